//! Violates every invariant on purpose: its check finds the problem, and no other check does.

mod months;

use std::time::Duration;

use arrow_array::RecordBatch;
use chrono::DateTime;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::files::{WrittenFor, encode};
use crate::flatten::{Origin, flatten};
use crate::lake::{Extent, Governed, Holder, Ledger, StagedFlush, State, Wanted};
use crate::layout::FlushId;
use crate::model::{LakeColumns, PerTable, RunId};
use crate::store::Store;

type OfTables = PerTable<RecordBatch>;

fn run(number: u32) -> RunId {
    RunId::new(DateTime::UNIX_EPOCH, number)
}

/// Conversation `id`, created on a day of January 2024, with two messages, a tag and a log.
fn conversation(id: &str, day: u32) -> Value {
    let message = |text: &str| json!({"text": text, "role": "USER"});
    json!({
        "conversation_id": id,
        "created_at": format!("2024-01-{day:02}T10:00:00Z"),
        "messages": [message("one"), message("two")],
        "tags": [{"name": "t", "level": 0}],
        "audit_logs": [{"text": "l", "payload": {}}],
    })
}

fn with(mut conversation: Value, field: &str, value: Value) -> Value {
    conversation[field] = value;
    conversation
}

/// The rows of conversations, fetched by a run at a second.
fn rows_of(run: &RunId, secs: i64, conversations: &[Value]) -> OfTables {
    // After all that changed.
    let exported_at = DateTime::from_timestamp(1_717_200_000 + secs, 0).unwrap();
    let texts: Vec<_> = conversations.iter().map(ToString::to_string).collect();
    let origin = Origin { run_id: run, exported_at, first_seq: 0 };
    let batch = flatten(texts.iter().map(String::as_str), &LakeColumns::default(), &origin).unwrap();
    PerTable::from_fn(|table| batch.tables.get(table).as_ref().clone())
}

fn rows(conversations: &[Value]) -> OfTables {
    rows_of(&run(1), 0, conversations)
}

fn date(day: u32) -> CreatedDate {
    format!("2024-01-{day:02}").parse().unwrap()
}

async fn put(lake: &Lake, day: u32, tables: &OfTables) {
    for table in Table::ALL {
        put_as(lake, layout::table_file(table, date(day)), table, tables.get(table)).await;
    }
}

async fn put_as(lake: &Lake, key: object_store::path::Path, table: Table, rows: &RecordBatch) {
    let (columns, rows) = (LakeColumns::default(), std::slice::from_ref(rows));
    lake.store().put(&key, encode(columns.of(table), WrittenFor::Table, rows, &[]).unwrap()).await.unwrap();
}

const WANTED: Wanted<'_> = Wanted {
    base_url: "https://api",
    user_filters: None,
    format: None,
    partition_by: None,
    metadata_columns: &[],
    governed: Governed { policy: None, key: None },
};

/// A lake with two sound days.
async fn sound() -> Lake {
    let lake = Lake::on(Store::on(InMemory::new(), "memory", Duration::from_secs(60)));
    lake.claim(None, WANTED, true, DateTime::UNIX_EPOCH).await.unwrap();
    put(&lake, 1, &rows(&[conversation("a", 1), conversation("b", 1), conversation("c", 1)])).await;
    put(&lake, 2, &rows(&[conversation("d", 2)])).await;
    lake
}

/// The checks that found problems, and how many.
fn broken(found: &Verification) -> Vec<(Check, u64)> {
    found.checks.iter().filter(|it| it.problems > 0).map(|it| (it.check, it.problems)).collect()
}

async fn broken_in(lake: &Lake) -> Vec<(Check, u64)> {
    broken(&verify(lake, Clock::system()).await.unwrap())
}

#[tokio::test]
async fn a_sound_lake_is_counted() {
    let found = verify(&sound().await, Clock::system()).await.unwrap();
    assert_eq!(broken(&found), []);
    assert_eq!((found.dates, found.files, found.staged_files, found.unnamed_files), (2, 8, 0, 0));
    assert_eq!(Table::ALL.map(|table| *found.rows.get(table)), [4, 8, 4, 4]);
}

#[tokio::test]
async fn files_that_are_damaged_or_of_another_table() {
    for damage in 0..3 {
        let lake = sound().await;
        let key = layout::table_file(Table::Messages, date(1));
        let bytes = lake.store().get(&key).await.unwrap().unwrap();
        match damage {
            0 => lake.store().put(&key, bytes.slice(..bytes.len() - 20)).await.unwrap(),
            1 => lake.store().put(&key, b"PAR1".to_vec()).await.unwrap(),
            _ => put_as(&lake, key, Table::Tags, rows(&[conversation("a", 1)]).get(Table::Tags)).await,
        }
        let found = verify(&lake, Clock::system()).await.unwrap();
        // Two messages of each conversation are gone with it.
        assert_eq!(broken(&found), [(Check::Readable, 1)], "{damage}");
        assert!(found.checks[0].evidence[0].detail.contains("messages/created_date=2024-01-01/part-0.parquet"));
    }
}

#[tokio::test]
async fn missing_table_files_and_foreign_objects() {
    let lake = sound().await;
    lake.store().delete(vec![layout::table_file(Table::Tags, date(2))]).await.unwrap();
    assert_eq!(broken_in(&lake).await, [(Check::AllTables, 1)]);

    let lake = sound().await;
    for key in
        ["tags/notes.txt", "messages/created_date=2024-01-01/part-1.parquet", "tags/created_date=soon/part-0.parquet"]
    {
        lake.store().put(&object_store::path::Path::from(key), b"x".to_vec()).await.unwrap();
    }
    assert_eq!(broken_in(&lake).await, [(Check::NothingElse, 3)]);
}

#[tokio::test]
async fn ids_that_occur_twice_or_out_of_order() {
    let lake = sound().await;
    let mut tables = rows(&[conversation("a", 1), conversation("a", 1)]);
    for table in Table::CHILDREN {
        *tables.get_mut(table) = rows(&[conversation("a", 1)]).get(table).clone();
    }
    put(&lake, 1, &tables).await;
    assert_eq!(
        broken_in(&lake).await,
        [(Check::UniqueAndSorted, 1), (Check::MessageCount, 1)],
        "the second row has no messages of its own"
    );

    put(&lake, 1, &rows(&[with(conversation("b", 1), "messages", json!([])), conversation("a", 1)])).await;
    assert!(broken_in(&lake).await.contains(&(Check::UniqueAndSorted, 1)));
}

#[tokio::test]
async fn a_conversation_in_another_partition_than_its_own() {
    let lake = sound().await;
    put(&lake, 2, &rows(&[conversation("d", 2), conversation("e", 3)])).await;
    assert_eq!(broken_in(&lake).await, [(Check::CreatedDate, 1)]);
    let lake = sound().await;
    put(&lake, 2, &rows(&[with(conversation("d", 2), "created_at", json!("soon"))])).await;
    assert_eq!(broken_in(&lake).await, [(Check::CreatedDate, 1)]);
}

#[tokio::test]
async fn rows_without_their_conversation_or_of_another_version() {
    for (position, table) in Table::CHILDREN.into_iter().enumerate() {
        let lake = sound().await;
        for stray in ["_", "bb", "x"] {
            let mut conversations =
                vec![conversation("a", 1), conversation("b", 1), conversation("c", 1), conversation(stray, 1)];
            conversations.sort_by_key(|it| it["conversation_id"].as_str().unwrap().to_owned());
            let with_stray = rows(&conversations);
            put_as(&lake, layout::table_file(table, date(1)), table, with_stray.get(table)).await;
            let strays = if position == 0 { 2 } else { 1 };
            let found = broken_in(&lake).await;
            // The places in the run have changed for those after the stray.
            assert!(matches!(found[..], [(Check::Owned, count)] if count >= strays), "{stray} {found:?}");
        }
        let of_another_run = rows_of(&run(2), 0, &[conversation("a", 1), conversation("b", 1), conversation("c", 1)]);
        put_as(&lake, layout::table_file(table, date(1)), table, of_another_run.get(table)).await;
        let expected = if position == 0 { 6 } else { 3 };
        assert_eq!(broken_in(&lake).await, [(Check::Owned, expected)]);
    }
}

#[tokio::test]
async fn rows_that_are_missing_at_the_front_and_at_the_end() {
    let messages = rows(&[conversation("d", 2)]).get(Table::Messages).clone();
    let key = layout::table_file(Table::Messages, date(2));
    let lake = sound().await;
    put_as(&lake, key.clone(), Table::Messages, &messages.slice(1, 1)).await;
    assert_eq!(broken_in(&lake).await, [(Check::Indexes, 1), (Check::MessageCount, 1)]);
    put_as(&lake, key.clone(), Table::Messages, &messages.slice(0, 1)).await;
    assert_eq!(broken_in(&lake).await, [(Check::MessageCount, 1)]);
    put_as(&lake, layout::table_file(Table::Tags, date(2)), Table::Tags, &rows(&[]).get(Table::Tags).clone()).await;
    assert_eq!(broken_in(&lake).await, [(Check::MessageCount, 1)], "the number of tags is recorded nowhere");
}

#[tokio::test]
async fn staged_files_that_differ_from_the_checkpoint() {
    let lake = sound().await;
    let flush = FlushId { run: run(7), number: 0 };
    let staged = rows(&[conversation("a", 1)]);
    let mut extent = Extent::default();
    for table in Table::ALL {
        let body =
            encode(LakeColumns::default().of(table), WrittenFor::Staging, std::slice::from_ref(staged.get(table)), &[])
                .unwrap();
        *extent.rows.get_mut(table) = staged.get(table).num_rows() as u64;
        *extent.bytes.get_mut(table) = body.len() as u64;
        lake.store().put(&layout::staged_file(table, date(1), &flush), body).await.unwrap();
    }
    let commit = async |extent: Extent| {
        let staged = StagedFlush { flush: flush.clone(), dates: [(date(1), extent)].into(), overlap: None };
        let state = State { staged: vec![staged], ..State::default() };
        Ledger::load(lake.store()).await.unwrap().commit(state, &run(7), DateTime::UNIX_EPOCH).await.unwrap();
    };
    let found = verify(&lake, Clock::system()).await.unwrap();
    assert_eq!((broken(&found), found.unnamed_files), (vec![], 4), "of a run that has not committed yet");
    commit(extent).await;
    let found = verify(&lake, Clock::system()).await.unwrap();
    assert_eq!((broken(&found), found.unnamed_files, found.staged_files, found.staged_rows), (vec![], 0, 4, 5));

    let mut wrong = extent;
    *wrong.rows.get_mut(Table::Messages) += 1;
    *wrong.bytes.get_mut(Table::Tags) += 1;
    commit(wrong).await;
    lake.store().delete(vec![layout::staged_file(Table::AuditLogs, date(1), &flush)]).await.unwrap();
    let strange = rows(&[conversation("a", 2)]);
    let columns = LakeColumns::default();
    let strange = std::slice::from_ref(strange.get(Table::Conversations));
    let body = encode(columns.of(Table::Conversations), WrittenFor::Staging, strange, &[]).unwrap();
    *wrong.bytes.get_mut(Table::Conversations) = body.len() as u64;
    lake.store().put(&layout::staged_file(Table::Conversations, date(1), &flush), body).await.unwrap();
    commit(wrong).await;
    assert_eq!(broken_in(&lake).await, [(Check::StagedFiles, 4)]);
    let found = repaired(&lake).await;
    assert_eq!((broken(&found), found.discarded_staged, found.staged_files), (vec![], 1, 0));
}

async fn repaired(lake: &Lake) -> Verification {
    let (clock, shutdown) = (Clock::system(), CancellationToken::new());
    let (command, host) = ("verify".to_owned(), "here".to_owned());
    let holder = Holder { run_id: run(9), command, host, pid: 1, since: DateTime::UNIX_EPOCH };
    let lease = Arc::new(Lease::acquire(lake.store(), holder, clock, &shutdown).await.unwrap());
    let mut ledger = Ledger::load(lake.store()).await.unwrap();
    let found = repair(lake, &lease, &mut ledger, &Arc::default(), clock).await.unwrap();
    lease.release(crate::lake::Ended::default()).await.unwrap();
    found
}

#[tokio::test]
async fn of_a_conversation_in_several_partitions_the_latest_version_stays() {
    let updated = |id: &str, day, updated: &str| with(conversation(id, day), "updated_at", json!(updated));
    let lake = sound().await;
    let early = [
        updated("both-say", 1, "2024-03-01T00:00:00Z"),
        conversation("fetched", 1),
        with(conversation("message", 1), "messages", json!([{"text": "x", "created_at": "2024-02-01T00:00:00Z"}])),
        updated("one-says", 1, "2024-05-01T00:00:00Z"),
        updated("three", 1, "2024-03-01T00:00:00Z"),
        updated("unlikely", 1, "2099-01-01T00:00:00Z"),
    ];
    let late = [
        updated("both-say", 2, "2024-02-01T00:00:00Z"),
        conversation("fetched", 2),
        conversation("message", 2),
        conversation("one-says", 2),
        updated("three", 2, "2024-03-02T00:00:00Z"),
        updated("unlikely", 2, "2024-02-01T00:00:00Z"),
    ];
    let numbers: Vec<_> = (10..40).map(|number| conversation(&format!("other-{number}"), 3)).collect();
    put(&lake, 1, &rows_of(&run(1), 100, &early)).await;
    put(&lake, 2, &rows_of(&run(2), 200, &late)).await;
    put(&lake, 3, &rows_of(&run(3), 50, &[numbers, vec![updated("three", 3, "2024-03-03T00:00:00Z")]].concat())).await;

    let found = verify(&lake, Clock::system()).await.unwrap();
    assert_eq!(broken(&found), [(Check::UniqueAcrossDates, 6)]);
    let found = repaired(&lake).await;
    assert_eq!((broken(&found), found.removed_versions), (vec![], 7));
    let left = async |day| {
        let key = layout::table_file(Table::Conversations, date(day));
        let file = crate::files::FoundFile::not_read(lake.store().head(&key).await.unwrap().unwrap());
        let (lake, runtime) = (lake.clone(), Handle::current());
        let read = tokio::task::spawn_blocking(move || {
            let columns = LakeColumns::default();
            let mut file = rows::CheckedRows::open(&lake, &columns, Table::Conversations, &file, &runtime).unwrap();
            let mut ids = Vec::new();
            while let Some(row) = file.head() {
                ids.push(row.id.to_owned());
                file.advance().unwrap();
            }
            ids
        });
        read.await.unwrap()
    };
    assert_eq!(left(1).await, ["both-say", "message", "one-says"]);
    assert_eq!(left(2).await, ["fetched", "unlikely"]);
    assert_eq!(left(3).await.len(), 31);
    assert_eq!(repaired(&lake).await.removed_versions, 0);
}

#[tokio::test]
async fn of_the_same_version_in_two_partitions_the_one_in_its_own_stays() {
    for wrong_day in [1, 3] {
        let lake = sound().await;
        put(&lake, wrong_day, &rows(&[conversation("d", 2)])).await;
        let found = repaired(&lake).await;
        assert_eq!((broken(&found), found.removed_versions), (vec![], 1));
    }
}

fn holder(number: u32) -> Holder {
    let (command, host) = ("sync".to_owned(), "there".to_owned());
    Holder { run_id: run(number), command, host, pid: 1, since: DateTime::UNIX_EPOCH }
}

/// The cost of verifying a lake with a damaged partition: reading calls, and seconds of waiting.
async fn costs(lake: &Lake) -> (u64, u64) {
    let key = layout::table_file(Table::Messages, date(1));
    lake.store().put(&key, b"PAR1".to_vec()).await.unwrap();
    let (before, began) = (lake.calls().get, Clock::system().instant());
    assert_eq!(broken_in(lake).await, [(Check::Readable, 1)]);
    (lake.calls().get - before, (Clock::system().instant() - began).as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_damaged_partition_is_read_once_if_nothing_changes() {
    let lake = sound().await;
    let (alone, waited) = costs(&lake).await;
    assert_eq!(waited, 0);

    let killed = Lease::acquire(lake.store(), holder(4), Clock::system(), &CancellationToken::new()).await.unwrap();
    drop(killed);
    let (reads, waited) = costs(&lake).await;
    assert!((5..=10).contains(&waited), "it may be alive: {waited} s");
    assert!(reads <= alone + 10, "only the lease is read again: {reads} reads, not {alone}");

    let mut record = serde_json::to_value(holder(4)).unwrap();
    record["written_at"] = json!("2024-01-01T00:00:00Z");
    lake.store().put(&layout::numbered(&layout::leases(), 9), record.to_string()).await.unwrap();
    let (reads, waited) = costs(&lake).await;
    assert!(waited == 0 && reads <= alone + 1, "it died long ago: {reads} reads, {waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_wait_for_itself() {
    let lake = sound().await;
    lake.store().delete(vec![layout::table_file(Table::Tags, date(2))]).await.unwrap();
    let began = Clock::system().instant();
    assert_eq!(broken(&repaired(&lake).await), [(Check::AllTables, 1)]);
    assert_eq!(Clock::system().instant(), began);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_a_run_replaces_meanwhile_is_read_again() {
    let lake = sound().await;
    let key = layout::table_file(Table::Messages, date(1));
    let whole = lake.store().get(&key).await.unwrap().unwrap();
    lake.store().put(&key, b"PAR1".to_vec()).await.unwrap();
    let lease = Lease::acquire(lake.store(), holder(4), Clock::system(), &CancellationToken::new()).await.unwrap();
    let replacing = async {
        Clock::system().sleep(Duration::from_secs(4)).await;
        lake.store().put(&key, whole).await.unwrap();
    };
    let (found, ()) = tokio::join!(verify(&lake, Clock::system()), replacing);
    assert_eq!(broken(&found.unwrap()), []);
    lease.prove().await.unwrap();
}
