//! Runs that sleep for so long that their next numbers were used and removed: the conditional writes of these succeed,
//! and yet nothing comes of them.

use std::collections::BTreeMap;

use super::*;
use crate::lake::{Ended, Holder, Lease};

/// Takes the lake over an hour later, and commits and renews until every number that the run before could use is free
/// again.
async fn take_over(store: &Arc<Shelf>) {
    let lake = lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease);
    let now = lake.clock().now();
    let (run_id, host) = (RunId::new(now, 7), "elsewhere".to_owned());
    let holder = Holder { run_id, command: "sync".to_owned(), host, pid: 1, since: now };
    let lease = Lease::acquire(lake.store(), holder, lake.clock(), &CancellationToken::new()).await.unwrap();
    let mut ledger = Ledger::load(lake.store()).await.unwrap();
    ledger.fence(lease.run_id(), now).await.unwrap();
    for _ in 0..40 {
        let quarantined = 1 - ledger.state().quarantined;
        let state = State { quarantined, ..ledger.state().clone() };
        ledger.commit(state, lease.run_id(), now).await.unwrap();
        lease.prove().await.unwrap();
    }
    ledger.clean(lease.surplus().to_vec()).await.unwrap();
    lease.release(Ended::default()).await.unwrap();
}

/// All objects but the records of leases, with their bodies.
async fn contents(store: &Arc<Shelf>) -> BTreeMap<String, bytes::Bytes> {
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut contents = BTreeMap::new();
    for key in objects.into_iter().map(|object| object.location) {
        if !key.prefix_matches(&layout::leases()) {
            let body = object_store::ObjectStoreExt::get(store.as_ref(), &key).await.unwrap();
            contents.insert(key.to_string(), body.bytes().await.unwrap());
        }
    }
    contents
}

async fn oversleep_numbers(api: &Api) {
    let kept = Kept::ByLease;
    let made = Arc::new(Shelf::new());
    api.time.set(Duration::ZERO);
    sync(api, sound(&made), &kept).await.unwrap();
    api.time.set(LATER);
    let (mut calls, mut fenced) = (0, 0);
    for at in 1.. {
        let case = format!("seed {SEED}, call {at}");
        let store = Arc::new(made.fork());
        let faulty = Faulty::new(store.clone(), at, Fate::SleepsBefore);
        let mut sleeper = std::pin::pin!(sync(api, faulty.clone(), &kept));
        tokio::select! {
            result = &mut sleeper => {
                result.unwrap();
                break;
            }
            () = faulty.falls_asleep() => calls = at,
        }
        take_over(&store).await;
        let before = contents(&store).await;
        let newest = Ledger::load(lake(sound(&store), &kept).store()).await.unwrap();
        faulty.wake();
        match sleeper.await {
            // It had nothing more to commit, or had not begun.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
                fenced += 1;
                let found = Ledger::load(lake(sound(&store), &kept).store()).await.unwrap();
                // Before it slept it had read nothing yet, so it has continued what it then found.
                if found.number() > newest.number() {
                    assert!(at < 8, "{case}");
                } else {
                    assert_eq!((found.number(), found.state()), (newest.number(), newest.state()), "{case}");
                    let after = contents(&store).await;
                    let gone: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
                    assert!(gone.is_empty(), "{case}: {gone:?}");
                }
            }
        }
        sync(api, Faulty::an_hour_later(store.clone()), &kept)
            .await
            .unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_exact(&store, &api.truth[1], &case).await;
    }
    println!("{calls} calls of a sync, {fenced} times fenced");
}

#[tokio::test]
async fn a_run_whose_next_numbers_were_used_and_removed_changes_nothing() {
    oversleep_numbers(&Api::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_a_delta_lake_whose_next_numbers_were_used_and_removed_changes_nothing() {
    oversleep_numbers(&Api::for_delta()).await;
}

/// Lets a put of a run arrive after the next run has swept the lake and ended.
pub(super) async fn late(api: &Api, store: &Arc<Shelf>, faulty: &Faulty, phase: usize, case: &str) {
    if phase == 0 {
        let meanwhile = compact_in(lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease)).await;
        // Without a lake there is nothing to compact.
        assert!(meanwhile.is_ok() || meanwhile.is_err_and(|error| error.kind() == Kind::Usage), "{case}");
    } else {
        let meanwhile = sync(api, Faulty::an_hour_later(store.clone()), &Kept::ByLease).await;
        assert!(meanwhile.is_ok(), "{case}");
    }
    faulty.arrives().await;
}
