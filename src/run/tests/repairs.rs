//! A compaction sleeps at each call in turn while `verify --repair` removes a conversation from the partition that it
//! writes. When it wakes up, it does not put the conversation back.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::*;
use crate::files::{WrittenFor, encode};
use crate::flatten::{Origin, flatten};
use crate::lake::{Extent, Governed, StagedFlush, Wanted};
use crate::layout::FlushId;
use crate::model::{CreatedDate, LakeColumns, PerTable};
use crate::verify::Check;

/// The partition that is compacted, and the one that has the newer version of `moved`.
const DATES: [&str; 2] = ["2024-01-01", "2024-01-02"];

fn day(day: usize) -> CreatedDate {
    DATES[day].parse().unwrap()
}

/// A conversation of a day, so large that the messages of twenty are uploaded in parts.
fn conversation(id: &str, day: usize, changed: &str) -> Value {
    let mut random = fastrand::Rng::with_seed(id.bytes().map(u64::from).sum());
    let text: String = std::iter::repeat_with(|| random.alphanumeric()).take(700).collect();
    json!({
        "conversation_id": id,
        "created_at": format!("{}T10:00:00Z", DATES[day]),
        "updated_at": changed,
        "messages": [{"text": text}],
        "tags": [{"name": "t"}],
        "audit_logs": [{"text": "l"}],
    })
}

/// The Parquet files of some conversations, with their rows and bytes.
fn files(conversations: &[Value], lifetime: WrittenFor) -> (PerTable<Vec<u8>>, Extent) {
    let texts: Vec<_> = conversations.iter().map(ToString::to_string).collect();
    let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
    let exported_at = "2024-02-01T00:00:00Z".parse().unwrap();
    let origin = Origin { run_id: &run_id, exported_at, first_seq: 0 };
    let rows = flatten(texts.iter().map(String::as_str), &LakeColumns::default(), &origin).unwrap().tables;
    let mut extent = Extent::default();
    let files = PerTable::from_fn(|table| {
        let file =
            encode(LakeColumns::default().of(table), lifetime, std::slice::from_ref(rows.get(table).as_ref()), &[])
                .unwrap();
        *extent.rows.get_mut(table) = u64::try_from(rows.get(table).num_rows()).unwrap();
        *extent.bytes.get_mut(table) = u64::try_from(file.len()).unwrap();
        file.to_vec()
    });
    (files, extent)
}

/// A lake with `moved` in both partitions, and a staged change to another conversation of the first.
async fn with_a_double() -> Arc<Shelf> {
    let store = Arc::new(Shelf::new());
    let lake = lake(sound(&store), &Kept::ByLease);
    let wanted = Wanted {
        base_url: "https://api",
        user_filters: None,
        format: None,
        partition_by: None,
        metadata_columns: &[],
        governed: Governed::default(),
    };
    lake.claim(None, wanted, true, DateTime::UNIX_EPOCH).await.unwrap();
    let mut first: Vec<_> = (10..30).map(|n| conversation(&format!("c{n}"), 0, "2024-01-03T00:00:00Z")).collect();
    first.push(conversation("moved", 0, "2024-01-03T00:00:00Z"));
    let second = [conversation("moved", 1, "2024-01-04T00:00:00Z")];
    let changed = [conversation("c10", 0, "2024-01-05T00:00:00Z")];
    for (number, conversations) in [(0, first.as_slice()), (1, second.as_slice())] {
        let (files, _) = files(conversations, WrittenFor::Table);
        for table in Table::ALL {
            lake.store().put(&layout::table_file(table, day(number)), files.get(table).clone()).await.unwrap();
        }
    }
    let flush = FlushId { run: RunId::new(DateTime::UNIX_EPOCH, 1), number: 0 };
    let (files, extent) = files(&changed, WrittenFor::Staging);
    for table in Table::ALL {
        lake.store().put(&layout::staged_file(table, day(0), &flush), files.get(table).clone()).await.unwrap();
    }
    let mut ledger = Ledger::load(lake.store()).await.unwrap();
    let staged = vec![StagedFlush { flush, dates: [(day(0), extent)].into(), overlap: None }];
    let state = State { staged, ..State::default() };
    ledger.commit(state, &RunId::new(DateTime::UNIX_EPOCH, 1), DateTime::UNIX_EPOCH).await.unwrap();
    store
}

/// The ids of the conversations in a table file.
async fn ids(store: &Shelf, table: Table, number: usize) -> BTreeSet<String> {
    let file = store.get(&layout::table_file(table, day(number))).await.unwrap().bytes().await.unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let ids = |batch: RecordBatch| {
        let ids = batch.column_by_name("conversation_id").unwrap().as_string::<i32>();
        ids.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    batches.flat_map(|batch| ids(batch.unwrap())).collect()
}

#[tokio::test]
async fn a_compaction_that_slept_does_not_put_back_what_a_repair_removed() {
    let made = with_a_double().await;
    let mut woken = 0;
    for at in 1.. {
        let case = format!("call {at}");
        let store = Arc::new(made.fork());
        let faulty = Faulty::new(store.clone(), at, Fate::SleepsBefore);
        let sleeping = lake(faulty.clone(), &Kept::ByLease);
        let mut first = std::pin::pin!(compact_in(sleeping));
        tokio::select! {
            result = &mut first => {
                result.unwrap();
                break;
            }
            () = faulty.falls_asleep() => {}
        }
        let found = repair_in(lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease)).await.unwrap();
        assert_eq!(found.removed_versions, 1, "{case}");
        faulty.wake();
        if let Err(error) = first.await {
            assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
        }
        let verified = verify::verify(&lake(sound(&store), &Kept::ByLease), Clock::system()).await.unwrap();
        assert_eq!(verified.problems_of(Check::UniqueAcrossDates), 0, "{case}: it was put back");
        for table in Table::ALL {
            assert!(!ids(&store, table, 0).await.contains("moved"), "{case}: its {} were put back", table.name());
        }
        compact_in(lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease))
            .await
            .unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let verified = verify::verify(&lake(sound(&store), &Kept::ByLease), Clock::system()).await.unwrap();
        assert_eq!((verified.problems(), verified.staged_files), (0, 0), "{case}: {:?}", verified.checks);
        woken += 1;
    }
    let parts = lake(sound(&made), &Kept::ByLease);
    compact_in(parts.clone()).await.unwrap();
    assert!(parts.calls().part > 1 && woken > 20, "{woken} calls, {:?}", parts.calls());
}
