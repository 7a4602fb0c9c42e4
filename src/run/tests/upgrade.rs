//! An upgrade of a lake that an earlier release wrote: any of its calls may fail, or be the last of its process.

use std::path::Path as FilePath;

use object_store::ObjectStoreExt;

use super::*;
use crate::policy::{Policy, PolicyKey};
use crate::status::status;

/// A lake of tests/data, with all of its files.
async fn earlier(name: &str) -> Arc<Shelf> {
    let (store, root) =
        (Arc::new(Shelf::new()), FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name));
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let key = object_store::path::Path::from(path.strip_prefix(&root).unwrap().to_str().unwrap());
            store.put(&key, std::fs::read(&path).unwrap().into()).await.unwrap();
        }
    }
    // It was written in November.
    store.clock().advance(chrono::TimeDelta::days(365));
    store
}

async fn upgrade_in(lake: Lake, settings: &UpgradeSettings) -> Result<RunReport> {
    upgrade(&lake, settings).await.map_err(Error::from)
}

/// A policy that hashes, so that masking anything twice would show.
fn with_policy() -> UpgradeSettings {
    let rules = "[[rules]]\nfield = 'user_id'\naction = 'hash'\n[[rules]]\nfield = 'metadata.*'\naction = 'hash'\n\
        [[rules]]\nfield = 'messages.text'\naction = 'hash'\n[[rules]]\nfield = 'tags.name'\naction = 'hash'";
    let policy_key = PolicyKey::from_bytes(b"a key of these tests", "the test").unwrap();
    let compact = CompactSettings { policy_key: Some(policy_key), ..CompactSettings::default() };
    UpgradeSettings { policy: Some(Policy::parse(rules).unwrap()), compact, ..UpgradeSettings::default() }
}

/// The plain table files, which are the same for the same rows.
async fn plain_tables(store: &Arc<Shelf>) -> Vec<(String, bytes::Bytes)> {
    let mut found = Vec::new();
    for table in Table::ALL {
        let objects: Vec<_> = store.list(Some(&layout::table_folder(table))).try_collect().await.unwrap();
        for object in objects {
            let body = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            found.push((object.location.to_string(), body));
        }
    }
    found.sort();
    found
}

/// The rows of the tables, and the partitions of an older form.
async fn held(store: &Arc<Shelf>) -> ([u64; 4], u64) {
    let status = status(&lake(sound(store), &Kept::ByLease), store.clock().now()).await.unwrap();
    (Table::ALL.map(|table| status.tables.get(table).rows), status.older_partitions)
}

/// Lets each call of an upgrade fail or be the last in turn; the next upgrade does the rest.
async fn exhaust_upgrade(name: &str, fates: &[Fate], settings: &UpgradeSettings) {
    let (made, kept) = (earlier(name).await, Kept::ByLease);
    assert_eq!(held(&made).await.1, 3);
    let whole = Arc::new(made.fork());
    let report = upgrade_in(lake(sound(&whole), &kept), settings).await.unwrap();
    let compacted = report.compacted_dates.len() as u64;
    assert!(compacted > 0 && report.upgraded_partitions > 0, "{compacted} {}", report.upgraded_partitions);
    let (rows, older) = held(&whole).await;
    assert_eq!(older, 0);

    let mut calls = 0;
    for fate in fates {
        for at in 1.. {
            let case = format!("{name}, call {at} {fate:?}");
            let store = Arc::new(made.fork());
            let faulty = Faulty::new(store.clone(), at, *fate);
            let mut first = std::pin::pin!(upgrade_in(lake(faulty.clone(), &kept), settings));
            let result = tokio::select! {
                result = &mut first => Some(result),
                () = faulty.falls_asleep() => None,
            };
            if faulty.calls() < at {
                calls = at - 1;
                break;
            }
            if let Some(Err(error)) = &result {
                assert!(matches!(error.kind(), Kind::Store | Kind::Held), "{case}: {}", error.chain().join(": "));
            }
            let later = lake(Faulty::an_hour_later(store.clone()), &kept);
            upgrade_in(later, settings).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            if result.is_none() {
                faulty.wake();
                if let Err(error) = first.await {
                    assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
                }
                compact(&lake(Faulty::an_hour_later(store.clone()), &kept), &settings.compact).await.unwrap();
            }
            assert_eq!(held(&store).await, (rows, 0), "{case}");
            if !name.contains("delta") {
                assert!(plain_tables(&store).await == plain_tables(&whole).await, "{case}: other rows");
            }
            let found = verify::verify(&lake(sound(&store), &kept), Clock::system()).await.unwrap();
            assert_eq!(found.problems(), 0, "{case}: {:?}", found.checks);
            manifest::assert_manifest(&store, &case).await;
        }
    }
    println!("{calls} calls of an upgrade of {name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_an_upgrade_may_fail_or_be_the_last_of_its_process() {
    exhaust_upgrade(
        "lake-schema-1",
        &[Fate::EndsBefore, Fate::EndsAfter, Fate::FailsAfter, Fate::SleepsAfter],
        &UpgradeSettings::default(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_an_upgrade_to_a_policy_may_fail_or_be_the_last_of_its_process() {
    exhaust_upgrade("lake-schema-1", &[Fate::EndsBefore, Fate::EndsAfter], &with_policy()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_an_upgrade_of_a_delta_lake_may_fail_or_be_the_last_of_its_process() {
    exhaust_upgrade("lake-schema-1-delta", &[Fate::EndsAfter], &UpgradeSettings::default()).await;
}
