//! Exhaustive faults: each call to the store in turn fails, hangs or is the last of its process. In each case the same
//! command, run again, makes the lake exact and leaves nothing else behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use futures::TryStreamExt;
use object_store::ObjectStore;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::api::{ApiKey, Client, Options};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::export::OnIgnoredFilter;
use crate::lake::{Format, History, Lake, Ledger, RunReport, State};
use crate::layout;
use crate::model::{PageSizeChoice, PartitionBy, RunId, Table, TimestampFilter};
use crate::simulate::{Disputed, Settings, SimulatedTime, Simulator, World, WorldSettings};
use crate::store::{Shelf, Store};
use crate::tables::Tables;
use crate::verify::{self, Verification};
use faulty::{Fate, Faulty};
use truth::{Conversations, expected};

mod distance;
mod faulty;
mod flight;
mod forget;
mod manifest;
mod metered;
mod outrun;
mod reconcile;
mod records;
mod repairs;
mod scenarios;
mod sleepers;
mod time;
mod truth;
mod upgrade;

const SEED: u64 = 17;
/// The time between the first export and the second.
const LATER: Duration = Duration::from_secs(20 * 3_600);
/// The time limit of a call; calls that do not hang take microseconds.
const CALL_TIMEOUT: Duration = Duration::from_millis(150);
const KEY: &str = "simulated-key";

/// A simulated API on a thread of its own, whose time the test moves.
struct Api {
    url: String,
    /// The format of its lakes.
    format: Format,
    /// How much time a partition of its lakes covers.
    partition_by: PartitionBy,
    /// How many pages its syncs fetch between two compactions.
    compact_every: u64,
    time: SimulatedTime,
    /// Its conversations at first, and later.
    truth: [Conversations; 2],
    /// Stops the server when it is dropped.
    _stop: DropGuard,
}

impl Api {
    fn start() -> Self {
        Self::with(false)
    }

    /// Starts an API whose lakes are Delta tables.
    fn for_delta() -> Self {
        Api { format: Format::Delta, ..Self::start() }
    }

    /// Makes its lakes by month.
    fn by_month(self) -> Self {
        Api { partition_by: PartitionBy::Month, ..self }
    }

    /// Makes its syncs compact after each page.
    fn compacting_after_each_page(self) -> Self {
        Api { compact_every: 1, ..self }
    }

    /// Starts an API that ignores `timestamp_filter` and bounds `created_at`.
    fn ignoring_the_filter() -> Self {
        Self::with(true)
    }

    fn with(ignores_filter: bool) -> Self {
        let now = DateTime::from_timestamp(1_709_251_200, 0).unwrap();
        Self::of(WorldSettings { seed: SEED, conversations: 24, days: 2, messages: 3, now }, ignores_filter)
    }

    fn of(world: WorldSettings, ignores_filter: bool) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let disputed = Disputed { ignores_filter, ..Disputed::default() };
                let settings = Settings { disputed, ..Settings::without_limits(KEY) };
                let simulator = Simulator::bind(World::new(world), settings, Clock::system()).await.unwrap();
                sender.send((simulator.url().unwrap(), simulator.time())).unwrap();
                simulator.serve(stopped).await.unwrap();
            });
        });
        let (url, time) = receiver.recv().unwrap();
        let truth = [Duration::ZERO, LATER].map(|passed| {
            time.set(passed);
            expected(&time.conversations().collect::<String>())
        });
        assert_ne!(truth[0], truth[1]);
        let (format, partition_by, compact_every) = (Format::Parquet, PartitionBy::Day, u64::MAX);
        Api { url, format, partition_by, compact_every, time, truth, _stop: stop.drop_guard() }
    }
}

/// How runs are kept apart.
#[derive(Debug, Clone)]
enum Kept {
    /// By a lease in the store.
    ByLease,
    /// By a locked file in this folder.
    ByLock(PathBuf),
}

/// A store without faults.
fn sound(store: &Arc<Shelf>) -> Faulty {
    Faulty::new(Arc::clone(store), 0, Fate::Hangs)
}

fn lake(store: Faulty, kept: &Kept) -> Lake {
    let clock = store.clock();
    let store = match kept {
        Kept::ByLease => Store::on(store, "memory", CALL_TIMEOUT),
        Kept::ByLock(folder) => Store::on_locked(store, "memory", CALL_TIMEOUT, folder.clone()),
    };
    Lake::on(store.by(clock))
}

/// The settings of a sync with so many conversations in a page and in a flush.
fn settings(page_size: u32, flush: u64) -> SyncSettings {
    let mut settings = SyncSettings { retain: Duration::from_secs(3_600), ..SyncSettings::default() };
    settings.compact_every_pages = u64::MAX;
    settings.export.fetch.page_size = PageSizeChoice::Fixed(page_size);
    settings.export.fetch.flush.max_conversations = flush;
    settings
}

fn client(api: &Api, clock: Clock) -> Client {
    let key = ApiKey::new(KEY, "the test").unwrap();
    let base_url = api.url.parse().unwrap();
    Client::new(Options { base_url, requests_per_second: 0.0, ..Options::new(key).unwrap() }, clock).unwrap()
}

async fn sync(api: &Api, store: Faulty, kept: &Kept) -> Result<RunReport> {
    let mut settings = settings(9, 18);
    settings.export.fetch.format = Some(api.format);
    settings.export.fetch.partition_by = Some(api.partition_by);
    settings.export.on_ignored_filter = OnIgnoredFilter::Full;
    settings.compact_every_pages = api.compact_every;
    let mut client = client(api, store.clock());
    super::sync(&lake(store, kept), &mut client, &settings).await.map_err(Error::from)
}

/// A compaction that retains nothing.
async fn compact_in(lake: Lake) -> Result<RunReport> {
    let settings = CompactSettings { retain: Duration::ZERO, ..CompactSettings::default() };
    compact(&lake, &settings).await.map_err(Error::from)
}

async fn repair_in(lake: Lake) -> Result<Verification> {
    repair(&lake, &Control::default()).await
}

/// Asserts that the lake holds the API's conversations, and no leftovers of a run.
async fn assert_exact(store: &Arc<Shelf>, truth: &Conversations, case: &str) {
    let unnamed = assert_tables(store, truth, case).await;
    assert_eq!(unnamed, 0, "{case}");
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    for key in objects.iter().map(|object| object.location.as_ref()) {
        let own = Table::ALL.iter().any(|table| key.starts_with(&format!("{}/", table.name())));
        assert!(own || key.starts_with("_state/") && key.ends_with(".json"), "{case}: {key} was left");
    }
    let leases = objects.iter().filter(|object| object.location.prefix_matches(&layout::leases())).count();
    assert!(leases <= 3, "{case}: {leases} leases");
    manifest::assert_manifest(store, case).await;
    manifest::assert_no_other_shards(store, case).await;
}

/// Asserts that each write intent was committed once to each of the four Delta tables, and that a compaction that
/// retains nothing leaves only the tables' files in their folders.
async fn assert_vacuumed(store: &Arc<Shelf>, case: &str) {
    // Files that a killed run did not commit stay for an hour.
    let later = lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease);
    compact_in(later).await.unwrap();
    let lake = lake(sound(store), &Kept::ByLease);
    let tables = Tables::of(lake.store(), &lake.existing().await.unwrap()).unwrap();
    let mut published = Vec::new();
    for table in Table::ALL {
        let (objects, _) = tables.files(table).await.unwrap();
        let mut named: Vec<_> = objects.into_iter().map(|(_, object)| object.location).collect();
        let listed: Vec<_> = store.list(Some(&layout::table_folder(table))).try_collect().await.unwrap();
        let mut there: Vec<_> = listed.into_iter().map(|object| object.location).collect();
        let log: Vec<_> = there.extract_if(.., |key| key.prefix_matches(&layout::delta_log(table))).collect();
        let mut numbers = Vec::new();
        for commit in log.iter().filter(|key| layout::number_of(key).is_some()) {
            let text = String::from_utf8(lake.store().get(commit).await.unwrap().unwrap().to_vec()).unwrap();
            let actions = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            numbers.extend(actions.filter_map(|action| action["txn"]["version"].as_i64()));
        }
        assert!(numbers.is_sorted_by(|one, next| one < next), "{case}: {numbers:?} were committed");
        published.push(numbers);
        named.sort();
        there.sort();
        assert_eq!(there, named, "{case}");
    }
    assert!(published.iter().all(|numbers| *numbers == published[0]), "{case}: {published:?} were committed");
}

/// Asserts that the tables hold the API's conversations. Returns how many staged files no checkpoint names.
async fn assert_tables(store: &Arc<Shelf>, truth: &Conversations, case: &str) -> u64 {
    let found = truth::found(&lake(sound(store), &Kept::ByLease)).await;
    let differ: Vec<_> = truth.keys().chain(found.keys()).filter(|id| truth.get(*id) != found.get(*id)).collect();
    assert!(differ.is_empty(), "{case}: {differ:?}");
    let verified = verify::verify(&lake(sound(store), &Kept::ByLease), Clock::system()).await.unwrap();
    assert_eq!(verified.problems(), 0, "{case}: {:?}", verified.checks);
    verified.unnamed_files
}

/// Gives each of `fates` to every call of a first sync, and of a second sync that changes tables.
async fn exhaust(api: &Api, kept: Kept, fates: &[Fate]) {
    let made = Arc::new(Shelf::new());
    api.time.set(Duration::ZERO);
    sync(api, sound(&made), &kept).await.unwrap();
    assert_exact(&made, &api.truth[0], "without any fault").await;

    let (mut runs, mut calls, mut lost) = (0, [0, 0], 0);
    for (phase, name) in [(0, "first"), (1, "second")] {
        for at in 1.. {
            let mut reached = false;
            for fate in fates {
                let case = format!("seed {SEED}, {kept:?}, {name} sync, call {at} {fate:?}");
                let store = Arc::new(if phase == 0 { Shelf::new() } else { made.fork() });
                let faulty = Faulty::new(store.clone(), at, *fate);
                api.time.set(if phase == 0 { Duration::ZERO } else { LATER });
                let result = sync(api, faulty.clone(), &kept).await;
                runs += 1;
                if faulty.calls() < at {
                    result.unwrap();
                    continue;
                }
                reached = true;
                calls[phase] = at;
                if let Err(error) = result {
                    assert!(matches!(error.kind(), Kind::Store | Kind::Held), "{case}: {}", error.chain().join(": "));
                }
                if matches!(fate, Fate::EndsBefore | Fate::EndsAfter) {
                    lost += store.lose_power(at).await;
                }
                if *fate == Fate::ArrivesLate {
                    outrun::late(api, &store, &faulty, phase, &case).await;
                }
                for (passed, truth) in [(phase, &api.truth[phase]), (1, &api.truth[1])] {
                    api.time.set(if passed == 0 { Duration::ZERO } else { LATER });
                    let later = Faulty::an_hour_later(store.clone());
                    sync(api, later, &kept).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    assert_exact(&store, truth, &case).await;
                }
                if api.format == Format::Delta {
                    assert_vacuumed(&store, &case).await;
                }
            }
            if !reached {
                break;
            }
        }
    }
    let is_disk = matches!(kept, Kept::ByLock(_)) && fates.contains(&Fate::EndsAfter);
    assert_eq!(lost > 0, is_disk, "only a disk loses objects with its power: {lost}");
    println!("{kept:?}: {} calls of a first sync and {} of a second, each {fates:?}: {runs} runs", calls[0], calls[1]);
}

#[tokio::test]
async fn any_call_may_fail() {
    exhaust(&Api::start(), Kept::ByLease, &[Fate::FailsBefore, Fate::FailsAfter]).await;
}

#[tokio::test]
async fn any_put_may_arrive_after_its_run_has_ended() {
    exhaust(&Api::start(), Kept::ByLease, &[Fate::ArrivesLate]).await;
}

#[tokio::test]
async fn any_call_may_be_the_last_of_its_process() {
    exhaust(&Api::start(), Kept::ByLease, &[Fate::EndsBefore, Fate::EndsAfter]).await;
}

#[tokio::test]
async fn any_call_of_a_lake_by_month_may_fail_or_be_the_last_of_its_process() {
    let fates = [Fate::FailsAfter, Fate::EndsBefore, Fate::EndsAfter, Fate::ArrivesLate];
    exhaust(&Api::start().by_month(), Kept::ByLease, &fates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_delta_lake_by_month_may_be_the_last_of_its_process() {
    exhaust(&Api::for_delta().by_month(), Kept::ByLease, &[Fate::EndsAfter]).await;
}

#[tokio::test]
async fn any_call_may_be_the_last_of_its_process_on_a_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::ByLock(folder.path().to_owned());
    exhaust(&Api::start(), kept, &[Fate::EndsBefore, Fate::EndsAfter]).await;
}

/// The second sync has an increment, a probe and a walk over the whole history.
#[tokio::test]
async fn any_call_may_be_the_last_of_its_process_if_the_api_ignores_the_filter() {
    exhaust(&Api::ignoring_the_filter(), Kept::ByLease, &[Fate::EndsAfter, Fate::FailsAfter]).await;
}

#[tokio::test]
async fn any_call_may_hang() {
    let folder = tempfile::tempdir().unwrap();
    exhaust(&Api::start(), Kept::ByLock(folder.path().to_owned()), &[Fate::Hangs]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_delta_lake_may_fail_or_be_the_last_of_its_process() {
    exhaust(&Api::for_delta(), Kept::ByLease, &[Fate::FailsAfter, Fate::ArrivesLate]).await;
}

#[tokio::test]
async fn any_call_of_a_sync_that_compacts_in_between_may_be_the_last_of_its_process() {
    let api = Api::start().compacting_after_each_page();
    exhaust(&api, Kept::ByLease, &[Fate::EndsBefore, Fate::EndsAfter]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_sync_of_a_delta_lake_that_compacts_in_between_may_be_the_last_of_its_process() {
    exhaust(&Api::for_delta().compacting_after_each_page(), Kept::ByLease, &[Fate::EndsAfter]).await;
}

/// The compaction has more flushes than one merge takes, so it folds them first.
#[tokio::test]
async fn any_call_of_a_crowded_compaction_may_be_the_last_of_its_process() {
    let (api, kept) = (Api::start(), Kept::ByLease);
    api.time.set(Duration::ZERO);
    let made = Arc::new(Shelf::new());
    let export = settings(3, 3).export;
    super::export(&lake(sound(&made), &kept), &mut client(&api, made.clock()), &export).await.unwrap();

    let mut longest = 0;
    for fate in [Fate::EndsBefore, Fate::EndsAfter, Fate::FailsAfter, Fate::SleepsAfter] {
        for at in 1.. {
            let case = format!("seed {SEED}, crowded compaction, call {at} {fate:?}");
            let store = Arc::new(made.fork());
            let faulty = Faulty::new(store.clone(), at, fate);
            let mut first = std::pin::pin!(compact_in(lake(faulty.clone(), &kept)));
            let result = tokio::select! {
                result = &mut first => Some(result),
                () = faulty.falls_asleep() => None,
            };
            if faulty.calls() < at {
                let report = result.unwrap().unwrap();
                assert_eq!((report.compacted_dates.len(), report.compacted_versions), (2, 24), "{case}");
                longest = longest.max(at);
                break;
            }
            if let Some(Err(error)) = &result {
                assert!(matches!(error.kind(), Kind::Store | Kind::Held), "{case}: {}", error.chain().join(": "));
            }
            let later = || lake(Faulty::an_hour_later(store.clone()), &kept);
            compact_in(later()).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            if result.is_none() {
                faulty.wake();
                if let Err(error) = first.await {
                    assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
                }
                // It sweeps the shard that the first may have written when it woke up.
                compact_in(later()).await.unwrap();
            }
            assert_tables(&store, &api.truth[0], &case).await;
            manifest::assert_manifest(&store, &case).await;
        }
    }
    println!("{longest} calls of a crowded compaction");
}
