//! Behavior that depends on the time, tested by moving a clock.

use chrono::TimeDelta;

use super::*;
use crate::layout::FlushId;
use crate::status::status;

/// A lake in memory after a first sync, and its API.
async fn synced(api: &Api) -> Arc<Shelf> {
    api.time.set(Duration::ZERO);
    let store = Arc::new(Shelf::new());
    sync(api, sound(&store), &Kept::ByLease).await.unwrap();
    store
}

#[tokio::test]
async fn the_lag_grows_as_time_passes() {
    let store = synced(&Api::start()).await;
    let lag = async || {
        let lake = lake(sound(&store), &Kept::ByLease);
        status(&lake, store.clock().now()).await.unwrap().lag_secs.unwrap()
    };
    let before = lag().await;
    store.clock().advance(TimeDelta::hours(5));
    let grown = lag().await - before;
    assert!((18_000..18_060).contains(&grown), "{grown}");
}

#[tokio::test]
async fn quarantine_files_are_kept_for_ninety_days() {
    let api = Api::start();
    let store = synced(&api).await;
    let run = RunId::new(store.clock().now(), 1);
    let key = layout::quarantine(&FlushId { run, number: 0 });
    lake(sound(&store), &Kept::ByLease).store().put(&key, "{}").await.unwrap();
    for (days, stays) in [(89, true), (2, false)] {
        store.clock().advance(TimeDelta::days(days));
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        let found = lake(sound(&store), &Kept::ByLease).store().head(&key).await.unwrap();
        assert_eq!(found.is_some(), stays, "after {days} more days");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delta_tables_keep_replaced_files_for_as_long_as_they_retain_them() {
    let api = Api::for_delta();
    let store = synced(&api).await;
    let files = async || {
        let listed: Vec<_> = store.list(Some(&layout::table_folder(Table::Conversations))).try_collect().await.unwrap();
        listed.iter().filter(|file| file.location.as_ref().ends_with(".parquet")).count()
    };
    let named = files().await;
    api.time.set(LATER);
    sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
    let with_replaced = files().await;
    assert!(with_replaced > named, "{with_replaced} files");
    let compacted = async || {
        let settings = CompactSettings { retain: Duration::from_secs(7 * 86_400), ..CompactSettings::default() };
        compact(&lake(sound(&store), &Kept::ByLease), &settings).await.unwrap().vacuumed_files
    };
    store.clock().advance(TimeDelta::days(6));
    assert_eq!((compacted().await, files().await), (0, with_replaced));
    store.clock().advance(TimeDelta::days(2));
    assert!(compacted().await > 0 && files().await < with_replaced);
    assert_exact(&store, &api.truth[1], "after the vacuum").await;
}

/// The watermark follows the server's clock, so a machine whose own clock is years off skips nothing.
#[tokio::test]
async fn a_wrong_clock_moves_no_watermark() {
    for years in [-10, 10] {
        let api = Api::start();
        api.time.set(Duration::ZERO);
        let store = Arc::new(Shelf::new());
        store.clock().advance(TimeDelta::days(365 * years));
        let now = store.clock().now();
        let report = sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        assert!((report.started_at - now).num_minutes() < 1, "the report's times are the machine's own");
        assert_exact(&store, &api.truth[0], "at first").await;
        api.time.set(LATER);
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        assert_exact(&store, &api.truth[1], "later").await;
    }
}
