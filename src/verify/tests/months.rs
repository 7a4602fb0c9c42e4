//! Lakes by month are verified as those by day.

use std::time::Duration;

use super::*;
use crate::model::PartitionBy;

/// A lake by month with two sound months.
async fn by_month() -> Lake {
    let lake = Lake::on(Store::on(InMemory::new(), "memory", Duration::from_secs(60)));
    let partition_by = Some(PartitionBy::Month);
    let wanted = Wanted { partition_by, ..WANTED };
    lake.claim(None, wanted, true, DateTime::UNIX_EPOCH).await.unwrap();
    put_month(&lake, "2024-01-01", &[conversation("a", 1), conversation("b", 31)]).await;
    put_month(&lake, "2024-02-01", &[with(conversation("c", 1), "created_at", json!("2024-02-29T23:59:59.9Z"))]).await;
    lake
}

async fn put_month(lake: &Lake, month: &str, conversations: &[Value]) {
    let (month, tables) = (PartitionBy::Month.parse(month).unwrap(), rows(conversations));
    for table in Table::ALL {
        put_as(lake, layout::table_file(table, month), table, tables.get(table)).await;
    }
}

#[tokio::test]
async fn a_lake_by_month_is_verified_as_one_by_day() {
    let lake = by_month().await;
    assert_eq!(broken_in(&lake).await, []);
    put_month(&lake, "2024-02-01", &[conversation("d", 31)]).await;
    assert_eq!(broken_in(&lake).await, [(Check::CreatedDate, 1)]);
    let lake = by_month().await;
    put_month(&lake, "2024-01-01", &[with(conversation("d", 2), "created_at", json!("soon"))]).await;
    assert_eq!(broken_in(&lake).await, [(Check::CreatedDate, 1)]);
    let lake = by_month().await;
    put_month(&lake, "2024-02-01", &[conversation("a", 1)]).await;
    assert_eq!(broken_in(&lake).await, [(Check::UniqueAcrossDates, 1), (Check::CreatedDate, 1)]);
}

/// Queries would read it twice, or not at all.
#[tokio::test]
async fn a_day_in_a_lake_by_month_is_no_partition_and_no_more_is_a_month_in_one_by_day() {
    let lake = by_month().await;
    put(&lake, 3, &rows(&[conversation("d", 3)])).await;
    assert_eq!(broken_in(&lake).await, [(Check::NothingElse, 4)]);
    let lake = sound().await;
    put_month(&lake, "2024-01-01", &[conversation("z", 3)]).await;
    assert_eq!(broken_in(&lake).await, [(Check::NothingElse, 4)]);
}
