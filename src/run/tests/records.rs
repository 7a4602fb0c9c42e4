//! What a run believes of what the last one has recorded, and when it looks for itself.

use bytes::Bytes;
use object_store::path::Path;

use super::*;
use crate::layout::FlushId;
use crate::store::StoreCalls;

/// A lake in memory after a first sync, and its API.
async fn synced() -> (Api, Arc<Shelf>) {
    let (api, store) = (Api::start(), Arc::new(Shelf::new()));
    api.time.set(Duration::ZERO);
    sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
    (api, store)
}

/// Syncs, and returns the calls.
async fn calls(api: &Api, store: &Arc<Shelf>) -> StoreCalls {
    sync(api, sound(store), &Kept::ByLease).await.unwrap().store_calls
}

fn raw(store: &Arc<Shelf>) -> Store {
    lake(sound(store), &Kept::ByLease).store().clone()
}

/// The objects of a folder.
async fn objects(store: &Arc<Shelf>, folder: Path) -> Vec<(Path, Bytes)> {
    let mut objects = Vec::new();
    let listed: Vec<_> = raw(store).list(folder).try_collect().await.unwrap();
    for key in listed.into_iter().map(|object| object.location) {
        let body = raw(store).get(&key).await.unwrap().unwrap();
        objects.push((key, body));
    }
    objects.sort();
    objects
}

/// A staged file that no checkpoint names.
async fn put_orphan(store: &Arc<Shelf>) -> Path {
    let flush = FlushId { run: RunId::new(DateTime::UNIX_EPOCH, 1), number: 0 };
    let key = layout::staged_file(Table::Tags, "2024-01-01".parse().unwrap(), &flush);
    raw(store).put(&key, "x").await.unwrap();
    key
}

async fn is_there(store: &Arc<Shelf>, key: &Path) -> bool {
    raw(store).head(key).await.unwrap().is_some()
}

#[tokio::test]
async fn after_an_older_release_a_run_finds_everything_out_itself() {
    let (api, store) = synced().await;
    calls(&api, &store).await;
    let usual = calls(&api, &store).await;
    let (key, body) = objects(&store, layout::leases()).await.pop().unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let last_request_at = record["ended"]["last_request_at"].take();
    record["ended"] = serde_json::json!({ "last_request_at": last_request_at });
    raw(&store).put(&key, record.to_string()).await.unwrap();
    let orphan = put_orphan(&store).await;
    let found_out = calls(&api, &store).await;
    // Staged files and leases, reports and quarantine files; two proofs of conditional writes, and one of the lease.
    assert!(found_out.list > usual.list + 3 && found_out.put >= usual.put + 2, "{found_out:?}, usually {usual:?}");
    assert!(!is_there(&store, &orphan).await);
    assert_eq!(calls(&api, &store).await, usual);
}

#[tokio::test]
async fn leftovers_are_looked_for_where_there_may_be_some() {
    let (api, store) = synced().await;
    let orphan = put_orphan(&store).await;
    let syncs = async |store: &Arc<Shelf>, hours: i64| {
        store.clock().advance(chrono::TimeDelta::hours(hours));
        sync(&api, sound(store), &Kept::ByLease).await.unwrap();
        is_there(store, &orphan).await
    };
    assert!(syncs(&store, 1).await, "the run before has left nothing");
    assert!(syncs(&store, 21).await);
    assert!(!syncs(&store, 3).await, "once a day a run looks nevertheless");

    for (fate, how) in [(Fate::EndsBefore, "died"), (Fate::FailsBefore, "failed")] {
        let store = Arc::new(store.fork());
        syncs(&store, 1).await;
        // Its call to the report of the last run that is not this one, to any other, or to a checkpoint.
        let failed = sync(&api, Faulty::new(store.clone(), 12, fate), &Kept::ByLease).await;
        assert!(failed.is_err(), "{how}");
        put_orphan(&store).await;
        assert!(!syncs(&store, 1).await, "it {how}");
        put_orphan(&store).await;
        assert!(!syncs(&store, 22).await, "what it had sent may still have been on its way");
        put_orphan(&store).await;
        assert!(!syncs(&store, 30).await, "and once a day a run looks anyway");
        put_orphan(&store).await;
        assert!(syncs(&store, 1).await, "but not for ever");
    }
}

#[tokio::test]
async fn a_restored_backup_of_any_part_of_the_state_is_read_as_it_is() {
    for restored in [vec![layout::checkpoints()], vec![layout::leases()], vec![layout::checkpoints(), layout::leases()]]
    {
        let (api, store) = synced().await;
        let mut backup = Vec::new();
        for folder in &restored {
            backup.extend(objects(&store, folder.clone()).await);
        }
        api.time.set(LATER);
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        for folder in &restored {
            let newer = objects(&store, folder.clone()).await.into_iter().map(|(key, _)| key).collect();
            raw(&store).delete(newer).await.unwrap();
        }
        for (key, body) in backup {
            raw(&store).put(&key, body).await.unwrap();
        }
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        assert_tables(&store, &api.truth[1], &format!("{restored:?}")).await;
        // The next upkeep removes what the newer checkpoints named.
        store.clock().advance(chrono::TimeDelta::days(1));
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        assert_exact(&store, &api.truth[1], &format!("{restored:?}")).await;
    }
}

#[tokio::test]
async fn what_a_run_asks_for_and_what_is_deleted_by_another_rule_changes_at_once() {
    let (api, store) = synced().await;
    let reports = async || objects(&store, layout::run_reports()).await.len();
    for expected in 2..5 {
        calls(&api, &store).await;
        assert_eq!(reports().await, expected);
    }
    let history = History { reports: 2, ..History::default() };
    let settings = CompactSettings { history, ..CompactSettings::default() };
    compact(&lake(sound(&store), &Kept::ByLease), &settings).await.unwrap();
    assert_eq!(reports().await, 2);
}
