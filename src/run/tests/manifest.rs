//! The manifest: it says what a scan of the tables finds, whatever becomes of its shards, and its costs do not grow
//! with the age of the lake.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::metered::Metered;
use super::*;
use crate::lake::{Entries, PartitionEntry, Shards};
use crate::model::CreatedDate;
use crate::status::status;
use crate::tables::scan;
use crate::verify::Check;

/// No other shards are there than those that the manifest names.
pub(super) async fn assert_no_other_shards(store: &Arc<Shelf>, case: &str) {
    assert_eq!(shard_keys(store).await, state(store).await.manifest.unwrap().shard_keys().collect(), "{case}");
}

/// The manifest says what a scan of the tables finds.
pub(super) async fn assert_manifest(store: &Arc<Shelf>, case: &str) {
    let lake = lake(sound(store), &Kept::ByLease);
    let ledger = Ledger::load(lake.store()).await.unwrap();
    let manifest = ledger.state().manifest.as_ref().unwrap_or_else(|| panic!("{case}: there is no manifest"));
    let listed = ledger.shards().entries(manifest).await.unwrap();
    let tables = Tables::of(lake.store(), &lake.existing().await.unwrap()).unwrap();
    let found = scan(&lake, &tables, None).await.unwrap();
    assert!(found.unreadable.is_empty(), "{case}: {:?}", found.unreadable);
    // A plain table file does not say which run wrote it.
    let comparable = |entries: &Entries| -> Entries {
        let entry = |entry: &PartitionEntry| PartitionEntry {
            run: entry.run.clone().filter(|_| tables.are_delta()),
            ..entry.clone()
        };
        entries.iter().map(|(date, it)| (*date, entry(it))).collect()
    };
    assert_eq!(comparable(&listed), comparable(&found.entries), "{case}");
    assert!(manifest.has_totals_of(&listed), "{case}: {:?}", manifest.tables);
    assert_eq!(manifest.rewriting, BTreeSet::new(), "{case}");
}

async fn shard_keys(store: &Arc<Shelf>) -> BTreeSet<Path> {
    let listed: Vec<_> = store.list(Some(&layout::manifest_shards())).try_collect().await.unwrap();
    listed.into_iter().map(|object| object.location).collect()
}

fn plain(store: &Arc<Shelf>) -> Lake {
    lake(sound(store), &Kept::ByLease)
}

fn shards(store: &Arc<Shelf>) -> Shards {
    Shards::of(plain(store).store())
}

/// A lake after a first sync.
async fn synced(api: &Api) -> Arc<Shelf> {
    api.time.set(Duration::ZERO);
    let store = Arc::new(Shelf::new());
    sync(api, sound(&store), &Kept::ByLease).await.unwrap();
    assert_manifest(&store, "after a first sync").await;
    store
}

async fn broken(store: &Arc<Shelf>) -> Vec<(Check, u64)> {
    let found = verify::verify(&plain(store), Clock::system()).await.unwrap();
    found.checks.iter().filter(|it| it.problems > 0).map(|it| (it.check, it.problems)).collect()
}

async fn table_files(store: &Arc<Shelf>, table: Table) -> Vec<Path> {
    let listed: Vec<_> = store.list(Some(&layout::table_folder(table))).try_collect().await.unwrap();
    listed.into_iter().map(|object| object.location).filter(|key| key.as_ref().ends_with(".parquet")).collect()
}

async fn state(store: &Arc<Shelf>) -> State {
    Ledger::load(plain(store).store()).await.unwrap().state().clone()
}

async fn commit(store: &Arc<Shelf>, change: impl FnOnce(&mut State)) {
    let mut ledger = Ledger::load(plain(store).store()).await.unwrap();
    let mut state = ledger.state().clone();
    change(&mut state);
    let run = ledger.run().unwrap().clone();
    ledger.commit(state, &run, store.clock().now()).await.unwrap();
}

#[tokio::test]
async fn a_shard_that_is_lost_or_damaged_is_found_and_made_again() {
    let api = Api::start();
    let made = synced(&api).await;
    let sizes = status(&plain(&made), made.clock().now()).await.unwrap().tables;
    for damage in ["lost", "damaged", "of another month"] {
        let damaged = async || {
            let store = Arc::new(made.fork());
            for key in shard_keys(&store).await {
                match damage {
                    "lost" => store.delete(&key).await.unwrap(),
                    "damaged" => drop(store.put(&key, "{\"2024-02-29\": ".into()).await.unwrap()),
                    _ => drop(store.put(&key, "{}".into()).await.unwrap()),
                }
            }
            assert_eq!(broken(&store).await, [(Check::Manifest, 1)], "{damage}");
            assert_eq!(status(&plain(&store), store.clock().now()).await.unwrap().tables, sizes, "{damage}");
            store
        };
        let store = damaged().await;
        let found = repair_in(plain(&store)).await.unwrap();
        assert!(found.rebuilt_manifest && found.problems() == 0, "{damage}: {:?}", found.checks);
        assert_manifest(&store, damage).await;

        let store = damaged().await;
        api.time.set(LATER);
        sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
        assert_exact(&store, &api.truth[1], damage).await;
        api.time.set(Duration::ZERO);
    }
}

#[tokio::test]
async fn a_shard_that_no_checkpoint_names_is_removed() {
    let api = Api::start();
    let store = synced(&api).await;
    let key = layout::manifest_shard("2024-02-99-0a1b2c3d");
    store.put(&key, "{}".into()).await.unwrap();
    assert_eq!(broken(&store).await, []);
    // The next upkeep.
    store.clock().advance(TimeDelta::days(1));
    sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
    assert_exact(&store, &api.truth[0], "an unnamed shard").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_without_a_manifest_gets_one_at_its_next_compaction() {
    for api in [Api::start(), Api::for_delta()] {
        let store = synced(&api).await;
        let sizes = status(&plain(&store), store.clock().now()).await.unwrap();
        assert!(sizes.manifest);
        commit(&store, |state| state.manifest = None).await;
        let counted = status(&plain(&store), store.clock().now()).await.unwrap();
        assert!(!counted.manifest);
        assert_eq!(counted.tables, sizes.tables, "counted from the files");
        assert_eq!(broken(&store).await, []);
        compact_in(plain(&store)).await.unwrap();
        assert_manifest(&store, "after a compaction without staged files").await;

        commit(&store, |state| state.manifest = None).await;
        assert!(repair_in(plain(&store)).await.unwrap().rebuilt_manifest);
        assert_manifest(&store, "after a repair").await;
    }
}

/// Another program changes a table; the files that it did not change stay as they are.
#[tokio::test]
async fn a_partition_that_vanished_was_replaced_or_came_from_nowhere_is_a_problem() {
    let api = Api::start();
    let made = synced(&api).await;
    let [first, second, ..] = &table_files(&made, Table::Conversations).await[..] else { panic!("too few") };
    let dates = [first, second].map(|key| layout::date_of(key).unwrap());
    let copy = async |store: &Arc<Shelf>, from: CreatedDate, to: CreatedDate, table| {
        store.copy(&layout::table_file(table, from), &layout::table_file(table, to)).await.unwrap();
    };
    for (case, check) in [("vanished", Check::Vanished), ("nowhere", Check::Unlisted), ("replaced", Check::Replaced)] {
        let store = Arc::new(made.fork());
        match case {
            "vanished" => {
                for table in Table::ALL {
                    store.delete(&layout::table_file(table, dates[0])).await.unwrap();
                }
            }
            "nowhere" => {
                for table in Table::ALL {
                    copy(&store, dates[0], "1999-01-01".parse().unwrap(), table).await;
                }
            }
            _ => {
                for table in Table::ALL {
                    copy(&store, dates[1], dates[0], table).await;
                }
            }
        }
        let found = broken(&store).await;
        assert!(found.iter().any(|(it, count)| *it == check && *count >= 1), "{case}: {found:?}");
        let others = found.iter().filter(|(it, _)| [Check::Vanished, Check::Unlisted, Check::Replaced].contains(it));
        assert_eq!(others.count(), 1, "{case}: {found:?}");
        if case == "vanished" {
            assert_eq!(found, [(check, 1)]);
            let found = repair_in(plain(&store)).await.unwrap();
            assert!(found.rebuilt_manifest && found.problems() == 0, "{:?}", found.checks);
            assert_manifest(&store, case).await;
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_lake_is_sound_although_its_etags_differ() {
    let api = Api::start();
    let made = synced(&api).await;
    let copy = Arc::new(Shelf::new());
    let mut keys: Vec<_> = made.list(None).try_collect().await.unwrap();
    keys.sort_by(|one, other| other.location.cmp(&one.location));
    for object in keys {
        let body = made.get(&object.location).await.unwrap().bytes().await.unwrap();
        copy.put(&object.location, body.into()).await.unwrap();
    }
    let etags = async |store: &Arc<Shelf>| -> Vec<_> {
        let listed: Vec<_> = store.list(Some(&layout::table_folder(Table::Tags))).try_collect().await.unwrap();
        listed.into_iter().map(|object| object.e_tag).collect()
    };
    assert_ne!(etags(&made).await, etags(&copy).await);
    assert_eq!(broken(&copy).await, []);
    api.time.set(LATER);
    sync(&api, sound(&copy), &Kept::ByLease).await.unwrap();
    assert_tables(&copy, &api.truth[1], "a copy").await;
}

#[tokio::test]
async fn tables_that_are_newer_than_state_are_one_problem_until_the_next_sync() {
    let api = Api::start();
    let made = synced(&api).await;
    let store = Arc::new(made.fork());
    api.time.set(LATER);
    sync(&api, Faulty::an_hour_later(store.clone()), &Kept::ByLease).await.unwrap();
    // `_state` comes from a backup, the tables do not.
    for object in store.list(Some(&layout::state())).try_collect::<Vec<_>>().await.unwrap() {
        store.delete(&object.location).await.unwrap();
    }
    for object in made.list(Some(&layout::state())).try_collect::<Vec<_>>().await.unwrap() {
        let body = made.get(&object.location).await.unwrap().bytes().await.unwrap();
        store.put(&object.location, body.into()).await.unwrap();
    }
    assert_eq!(broken(&store).await, [(Check::State, 1)]);
    let repaired = Arc::new(store.fork());
    let found = repair_in(lake(Faulty::an_hour_later(repaired.clone()), &Kept::ByLease)).await.unwrap();
    assert!(found.rebuilt_manifest && found.problems() == 0, "{:?}", found.checks);
    assert_manifest(&repaired, "after a repair").await;
    sync(&api, Faulty::an_hour_later(store.clone()), &Kept::ByLease).await.unwrap();
    assert_exact(&store, &api.truth[1], "after a sync").await;
}

/// The calls of a `status` and of an increment, and the bytes that they read and write, in a lake that has `more` old
/// partitions.
async fn costs(api: &Api, made: &Arc<Shelf>, more: u32) -> [(usize, u64); 2] {
    let store = Arc::new(made.fork());
    let mut ledger = Ledger::load(plain(&store).store()).await.unwrap();
    let mut state = ledger.state().clone();
    let manifest = state.manifest.as_mut().unwrap();
    let pattern = shards(&store).entries(manifest).await.unwrap().into_values().next().unwrap();
    let start: chrono::NaiveDate = "2010-01-01".parse().unwrap();
    let entries: Entries = start
        .iter_days()
        .take(usize::try_from(more).unwrap())
        .map(|day| (day.to_string().parse().unwrap(), pattern.clone()))
        .collect();
    let number = ledger.number() + 1;
    let obsolete = shards(&store).record(manifest, entries, number).await.unwrap();
    plain(&store).store().delete(obsolete).await.unwrap();
    let dates = manifest.tables.get(Table::Tags).dates;
    assert!(dates > u64::from(more));
    let run = ledger.run().unwrap().clone();
    ledger.commit(state, &run, store.clock().now()).await.unwrap();

    let metered = Metered::new(sound(&store));
    let lake = metered.lake();
    let told = status(&lake, store.clock().now()).await.unwrap();
    assert_eq!(told.tables.get(Table::Tags).dates, dates);
    let of_status = metered.spent();
    api.time.set(LATER);
    let (metered, settings) = (Metered::new(sound(&store)), settings(9, 18));
    super::super::sync(&metered.lake(), &mut client(api, store.clock()), &settings).await.unwrap();
    [of_status, metered.spent()]
}

#[tokio::test]
async fn neither_status_nor_an_increment_costs_more_in_an_old_lake() {
    let api = Api::start();
    let made = synced(&api).await;
    let (young, old) = (costs(&api, &made, 30).await, costs(&api, &made, 3_000).await);
    println!("calls and bytes of status and of an increment: {young:?} with 30 more partitions, {old:?} with 3,000");
    for (young, old) in young.into_iter().zip(old) {
        assert_eq!(young.0, old.0, "calls");
        // The names of 99 shards, in each checkpoint that is read or written.
        assert!(old.1 < young.1 + 40_000, "{old:?} after {young:?}");
    }
    let [status, _] = old;
    assert_eq!(status.0, 3, "the identity, the listing of checkpoints, and one of them");
}

#[tokio::test]
async fn a_partition_that_a_repair_left_in_doubt_is_read_again() {
    let store = synced(&Api::start()).await;
    let key = &table_files(&store, Table::Conversations).await[0];
    let date = layout::date_of(key).unwrap();
    let mut manifest = state(&store).await.manifest.unwrap();
    let entries = shards(&store).entries(&manifest).await.unwrap();
    let mut entry = entries[&date].clone();
    entry.files.get_mut(Table::Tags).as_mut().unwrap().rows = Some(7_000);
    let number = Ledger::load(plain(&store).store()).await.unwrap().number() + 1;
    let obsolete = shards(&store).record(&mut manifest, [(date, entry)].into(), number).await.unwrap();
    commit(&store, |state| state.manifest = Some(manifest.clone())).await;
    plain(&store).store().delete(obsolete).await.unwrap();
    assert_eq!(broken(&store).await, [(Check::Replaced, 1)]);
    commit(&store, |state| state.manifest.as_mut().unwrap().rewriting.extend([date])).await;
    assert_eq!(broken(&store).await, [], "a run that died may have replaced it");
    compact_in(plain(&store)).await.unwrap();
    assert_manifest(&store, "after a compaction").await;
}
