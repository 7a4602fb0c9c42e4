//! Two runs that compete for a lake, with time under the test's control.

use std::collections::HashSet;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::runtime::Handle;

use super::record::EXPIRY;
use super::*;
use crate::error::Kind;
use crate::lake::{Ledger, Purpose, State, Walk, sweep};
use crate::model::{PartitionBy, Request, Table, Window};
use crate::store::{Shelf, StoreOptions, Upload};

const CLOCK: Clock = Clock::system();

fn in_memory() -> Store {
    Store::on(InMemory::new(), "memory", std::time::Duration::from_secs(60))
}

fn run(number: u32) -> RunId {
    RunId::new(DateTime::UNIX_EPOCH, number)
}

async fn acquire(store: &Store, number: u32) -> Result<Lease> {
    acquire_on(&format!("host-{number}"), store, number).await
}

fn holder(number: u32) -> Holder {
    let (command, since) = ("sync".to_owned(), DateTime::UNIX_EPOCH);
    Holder { run_id: run(number), command, host: String::new(), pid: 4711, since }
}

async fn acquire_on(host: &str, store: &Store, number: u32) -> Result<Lease> {
    let holder = Holder { host: host.to_owned(), ..holder(number) };
    Lease::acquire(store, holder, CLOCK, &CancellationToken::new()).await
}

/// The key of the record of an upload.
fn record(lease: &Lease, key: &Path) -> Path {
    layout::upload_record(lease.run_id(), key)
}

/// Pauses a run without its knowledge: it renews its lease no more.
fn pause(lease: &Lease) {
    lease.renewing.cancel();
}

fn state(newest_secs: i64) -> State {
    let request = Request { window: Window::EVERYTHING, user_filters: None };
    let newest_change = DateTime::from_timestamp(newest_secs, 0);
    let walk = Walk { newest_change, ..Walk::new(request, DateTime::UNIX_EPOCH) };
    let mut state = State::default();
    state.advance_walk(Purpose::Incremental, &walk);
    state
}

async fn swept(store: &Store, known: &HashSet<Path>, lease: &Lease) -> Result<usize> {
    sweep::remove(store, sweep::leftovers(store, known, true).await?, lease).await
}

fn staged_file(run: &RunId) -> Path {
    let date = "2024-01-01".parse().unwrap();
    layout::staged_file(Table::Tags, date, &layout::FlushId { run: run.clone(), number: 0 })
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn the_second_run_is_refused_with_the_holder_while_that_one_lives() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    assert_eq!(*first.before(), Before::Nobody);
    for _ in 0..20 {
        let begun = CLOCK.instant();
        let error = acquire(&store, 2).await.unwrap_err();
        assert_eq!(error.kind().exit_code(), 7);
        let text = error.to_string();
        assert!(["sync", run(1).as_str(), "host-1", "4711", "1970-01-01"].iter().all(|it| text.contains(it)), "{text}");
        assert!(CLOCK.instant() - begun <= EXPIRY, "and soon");
        first.prove().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_ended_is_followed_at_once() {
    let store = in_memory();
    let ended = Ended { last_request_at: DateTime::from_timestamp(7, 0), checkpoint: Some(9), ..Ended::default() };
    let first = acquire(&store, 1).await.unwrap();
    first.release(ended.clone()).await.unwrap();
    let begun = CLOCK.instant();
    let second = acquire(&store, 2).await.unwrap();
    assert_eq!(*second.before(), Before::Ended(ended));
    assert_eq!(CLOCK.instant(), begun);
    assert_eq!(kind(first.prove().await), Kind::Bug, "nothing is written after the end");
    drop(first);
    second.prove().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_died_is_followed_within_half_a_minute() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    CLOCK.sleep(Duration::from_secs(100)).await;
    drop(first);
    let begun = CLOCK.instant();
    let second = acquire(&store, 2).await.unwrap();
    assert_eq!(*second.before(), Before::Died);
    let took = CLOCK.instant() - begun;
    assert!(took >= EXPIRY - RENEWAL && took <= Duration::from_secs(30), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_runs_at_once_one_gets_the_lease() {
    for dead in [false, true] {
        let store = in_memory();
        if dead {
            drop(acquire(&store, 9).await.unwrap());
        }
        let (first, second) = tokio::join!(acquire(&store, 1), acquire(&store, 2));
        assert_eq!([&first, &second].iter().filter(|it| it.is_ok()).count(), 1);
        let refused = if first.is_ok() { second } else { first };
        assert_eq!(kind(refused), Kind::Held);
    }
}

/// A run that wakes up may still try to commit, to replace a small table file, and to replace a large one.
#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_over_while_paused_changes_nothing() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    let mut stale = Ledger::load(&store).await.unwrap();
    stale.commit(state(1), &run(1), DateTime::UNIX_EPOCH).await.unwrap();
    let key = layout::table_file(Table::Messages, PartitionBy::Day.unknown());
    store.put(&key, b"as it was".to_vec()).await.unwrap();
    let found = store.head(&key).await.unwrap();
    pause(&first);

    let second = acquire(&store, 2).await.unwrap();
    assert_eq!(*second.before(), Before::Died);
    let mut ledger = Ledger::load(&store).await.unwrap();
    assert_eq!(ledger.state(), &state(1));
    ledger.fence(&run(2), DateTime::UNIX_EPOCH).await.unwrap();

    assert_eq!(kind(stale.commit(state(2), &run(1), DateTime::UNIX_EPOCH).await), Kind::Held);
    store.put(&key, b"newer".to_vec()).await.unwrap();
    let (runtime, store) = (Handle::current(), store.clone());
    let store_of_stale = store.clone();
    let key_of_stale = key.clone();
    let taker = second.run_id().clone();
    let replaced = tokio::task::spawn_blocking(move || {
        for (bytes, named) in [(10_usize, key_of_stale.as_ref()), (1 << 20, taker.as_str())] {
            let mut upload = Upload::begin(
                &store_of_stale,
                key_of_stale.clone(),
                record(&first, &key_of_stale),
                found.clone(),
                runtime.clone(),
            );
            std::io::Write::write_all(&mut upload, &vec![b'x'; bytes]).unwrap();
            let error = runtime.block_on(upload.close().finish(first.prove())).unwrap_err();
            assert_eq!(error.kind(), Kind::Held, "{bytes} bytes");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(first.stop().is_cancelled());
    });
    replaced.await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().as_ref(), b"newer");
    assert_eq!(Ledger::load(&store).await.unwrap().state(), &state(1));
    second.prove().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_paused_long_but_was_not_taken_over_goes_on() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    pause(&first);
    CLOCK.sleep(Duration::from_secs(3_600)).await;
    first.prove().await.unwrap();
    assert!(!first.stop().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn the_number_of_records_does_not_grow() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    CLOCK.sleep(Duration::from_secs(3_600)).await;
    first.release(Ended::default()).await.unwrap();
    let left: Vec<_> = store.list(layout::leases()).try_collect().await.unwrap();
    assert!(left.len() <= usize::try_from(KEPT).unwrap() + 1, "{left:?}");
    let newest = left.iter().filter_map(|object| layout::number_of(&object.location)).max();
    assert!(newest.unwrap() > 500, "it was renewed all the time");
}

#[tokio::test]
async fn on_a_local_disk_the_lock_ends_with_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path().to_str().unwrap(), &StoreOptions::default(), CLOCK).unwrap();
    let store = open();
    let first = acquire_on("here", &store, 1).await.unwrap();
    let error = acquire_on("here", &open(), 2).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Held);
    assert!(error.to_string().contains(run(1).as_str()));
    drop(first);
    let begun = CLOCK.instant();
    let second = acquire_on("here", &open(), 2).await.unwrap();
    assert!(CLOCK.instant() - begun < EXPIRY - RENEWAL, "there is nothing to wait for");
    assert_eq!(*second.before(), Before::Died, "it recorded no end");
    second.release(Ended::default()).await.unwrap();
    assert_eq!(kind(acquire(&open(), 3).await), Kind::Held, "until its process releases the lock, too");
}

#[tokio::test]
async fn leftovers_of_dead_runs_are_swept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default(), CLOCK).unwrap();
    let (known, orphan) = (staged_file(&run(1)), staged_file(&run(2)));
    let others = Path::from("_landing/others/data.csv");
    for key in [&known, &orphan, &others, &layout::store_time(&run(1)), &layout::run_report(&run(1))] {
        store.put(key, b"x".to_vec()).await.unwrap();
    }
    let at = |key: &str| folder.path().join(key);
    std::fs::create_dir_all(at("messages/created_date=2024-01-01")).unwrap();
    let temporary =
        ["_state/runs/r.json#1", &format!("{orphan}#12"), "messages/created_date=2024-01-01/part-0.parquet#2"];
    for file in &temporary[..2] {
        std::fs::write(at(file), "cut").unwrap();
    }
    std::fs::write(at("_state/runs/mine#1"), "kept").unwrap();
    std::fs::write(at(temporary[2]), "cut").unwrap();
    assert!(sweep::leftovers(&store, &HashSet::from([known.clone()]), false).await.unwrap().temporary_files() == 2);

    let known = HashSet::from([known]);
    let lease = acquire(&store, 1).await.unwrap();
    assert_eq!(swept(&store, &known, &lease).await.unwrap(), 5);
    let mut folders = vec![folder.path().to_owned()];
    let mut left = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(std::result::Result::unwrap) {
            if entry.path().is_dir() { folders.push(entry.path()) } else { left.push(entry.file_name()) }
        }
    }
    left.sort();
    assert_eq!(
        left,
        [
            "00000000000000000001.json",
            "19700101T000000Z-000001-0000.parquet",
            "19700101T000000Z-000001.json",
            "data.csv",
            "lock",
            "mine#1",
        ]
    );
    assert!(sweep::leftovers(&store, &known, true).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_over_sweeps_nothing_of_the_next() {
    let store = in_memory();
    let first = acquire(&store, 1).await.unwrap();
    pause(&first);
    let second = acquire(&store, 2).await.unwrap();
    let staged = staged_file(&run(2));
    store.put(&staged, b"x".to_vec()).await.unwrap();
    assert_eq!(kind(swept(&store, &HashSet::new(), &first).await), Kind::Held);
    assert!(store.get(&staged).await.unwrap().is_some());
    assert_eq!(swept(&store, &HashSet::from([staged]), &second).await.unwrap(), 0);
}

/// All permitted concurrent calls are uploads, and more of them wait.
#[tokio::test(start_paused = true)]
async fn slow_uploads_do_not_make_the_holder_expire() {
    let config = ThrottleConfig { wait_put_per_call: Duration::from_secs(5), ..ThrottleConfig::default() };
    let store = Store::on_narrow(ThrottledStore::new(InMemory::new(), config), "slow", Duration::from_secs(300), 2);
    let first = acquire(&store, 1).await.unwrap();
    let upload = |number| {
        let store = store.clone();
        async move { store.put(&Path::from(format!("tags/{number}")), b"x".to_vec()).await }
    };
    let uploads = tokio::spawn(futures::future::try_join_all((0..100).map(upload)));
    for _ in 0..5 {
        assert_eq!(kind(acquire(&store, 2).await), Kind::Held);
    }
    first.prove().await.unwrap();
    assert!(!uploads.is_finished(), "they were running all the time");
    uploads.await.unwrap().unwrap();
}

/// A lake in a shared folder, on a machine whose locks others do not see: it locks a file of its own.
fn shared(folder: &tempfile::TempDir) -> Store {
    let store = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default(), CLOCK).unwrap();
    let _ = std::fs::remove_file(store.local_path(&layout::lock()).unwrap());
    store
}

#[tokio::test(start_paused = true)]
async fn a_holder_on_another_machine_is_seen_though_its_lock_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = acquire(&shared(&folder), 1).await.unwrap();
    for _ in 0..3 {
        let error = acquire(&shared(&folder), 2).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Held);
        assert!(error.to_string().contains("host-1"), "{error}");
        first.prove().await.unwrap();
    }
    first.release(Ended::default()).await.unwrap();
    let begun = CLOCK.instant();
    acquire(&shared(&folder), 2).await.unwrap();
    assert_eq!(CLOCK.instant(), begun, "it has recorded its end");
}

#[tokio::test(start_paused = true)]
async fn a_dead_run_is_waited_for_if_it_was_on_another_machine() {
    for (host, waits) in [("host-1", false), ("host-2", true)] {
        let folder = tempfile::tempdir().unwrap();
        drop(acquire(&shared(&folder), 1).await.unwrap());
        let begun = CLOCK.instant();
        assert_eq!(*acquire_on(host, &shared(&folder), 2).await.unwrap().before(), Before::Died);
        let took = CLOCK.instant() - begun;
        assert_eq!(took >= EXPIRY, waits, "{host}: {took:?}");
    }
    // A host of the same name that has restarted, or mounts another file system.
    let folder = tempfile::tempdir().unwrap();
    drop(acquire(&shared(&folder), 1).await.unwrap());
    let record = folder.path().join("_state/leases/00000000000000000001.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let (before, after) = text.split_once("\"locked_at\":\"").unwrap();
    std::fs::write(&record, format!("{before}\"locked_at\":\"another-{after}")).unwrap();
    let begun = CLOCK.instant();
    acquire_on("host-1", &shared(&folder), 2).await.unwrap();
    assert!(CLOCK.instant() - begun >= EXPIRY);
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_machine_is_not_waited_for_if_it_is_older_than_clocks_differ() {
    for (age_secs, waits) in [(60, true), (-60, true), (3_600, false)] {
        let shelf = Shelf::new();
        // The folder on two machines that do not see each other's locks.
        let locks = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [first, second] = locks
            .each_ref()
            .map(|folder| Store::on_locked(shelf.clone(), "shared", Duration::from_secs(60), folder.path().to_owned()));
        drop(acquire(&first, 1).await.unwrap());
        shelf.clock().advance(chrono::TimeDelta::seconds(age_secs));
        let begun = CLOCK.instant();
        acquire(&second, 2).await.unwrap();
        assert_eq!(CLOCK.instant() - begun >= EXPIRY, waits, "{age_secs}");
    }
}

/// While a machine sleeps, its monotonic clock stops, but the wall clock does not.
#[tokio::test(start_paused = true)]
async fn a_holder_whose_machine_has_slept_reads_the_newest_record_before_it_writes() {
    let (shelf, folder) = (Shelf::new(), tempfile::tempdir().unwrap());
    let store = Store::on_locked(shelf.clone(), "shared", Duration::from_secs(60), folder.path().to_owned());
    let holder = Holder { host: "host-1".to_owned(), ..holder(1) };
    let lease = Lease::acquire(&store, holder, shelf.clock(), &CancellationToken::new()).await.unwrap();
    pause(&lease);
    let calls = store.calls();
    lease.prove().await.unwrap();
    assert_eq!(store.calls(), calls, "a fresh record is proof enough");
    shelf.clock().advance(chrono::TimeDelta::hours(1));
    lease.prove().await.unwrap();
    assert!(store.calls().list > calls.list, "after an hour the newest is read");
}

/// A folder has no conditional writes, so reading the newest record has to do.
#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_over_in_a_shared_folder_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = shared(&folder);
    let first = acquire(&store, 1).await.unwrap();
    pause(&first);
    let second = acquire(&shared(&folder), 2).await.unwrap();
    let key = layout::table_file(Table::Messages, PartitionBy::Day.unknown());
    store.put(&key, b"newer".to_vec()).await.unwrap();
    assert_eq!(kind(first.prove().await), Kind::Held);
    let (runtime, of_first, written) = (Handle::current(), store.clone(), key.clone());
    tokio::task::spawn_blocking(move || {
        for bytes in [10_usize, 1 << 20] {
            let mut upload = Upload::begin(&of_first, written.clone(), record(&first, &written), None, runtime.clone());
            std::io::Write::write_all(&mut upload, &vec![b'x'; bytes]).unwrap();
            let finished = runtime.block_on(upload.close().finish(first.prove()));
            assert_eq!(kind(finished), Kind::Held, "{bytes} bytes");
        }
        assert!(first.stop().is_cancelled());
    })
    .await
    .unwrap();
    assert_eq!(store.get(&key).await.unwrap().unwrap().as_ref(), b"newer");
    second.prove().await.unwrap();
}
