//! A `forget`: any of its calls may fail, be the last of its process, or find another run at work when it wakes up. The
//! next `forget` does the rest, and no later run brings the conversations back.

use object_store::ObjectStoreExt;

use super::*;
use crate::forget::{Search, Where};
use crate::model::Selector;

/// A lake with a first export in its tables, and a second one staged.
async fn with_staged_changes(api: &Api, kept: &Kept) -> Arc<Shelf> {
    let made = Arc::new(Shelf::new());
    api.time.set(Duration::ZERO);
    sync(api, sound(&made), kept).await.unwrap();
    api.time.set(LATER);
    let export = settings(9, 18).export;
    super::super::export(&lake(sound(&made), kept), &mut client(api, made.clock()), &export).await.unwrap();
    made
}

/// One conversation that changed, and one that did not.
fn unwanted(api: &Api) -> Vec<String> {
    let [before, after] = &api.truth;
    let changed = after.iter().find(|(id, content)| before.get(*id).is_some_and(|old| old != *content));
    let same = after.iter().find(|(id, content)| before.get(*id) == Some(content));
    [changed, same].into_iter().map(|found| found.unwrap().0.clone()).collect()
}

async fn forget_in(lake: Lake, ids: &[String]) -> Result<RunReport> {
    let selectors = ids.iter().map(|id| Selector::conversation(id)).collect();
    let settings = ForgetSettings { selectors, ..ForgetSettings::default() };
    let (_, report) = forget(&lake, &settings).await.map_err(Error::from)?;
    Ok(report.unwrap())
}

/// Asserts that nothing in the lake is about the conversations.
async fn assert_forgotten(store: &Arc<Shelf>, ids: &[String], case: &str) {
    let lake = lake(sound(store), &Kept::ByLease);
    let identity = lake.existing().await.unwrap();
    let suppression = Arc::new(lake.suppression(&identity).await.unwrap());
    assert!(ids.iter().all(|id| suppression.contains(id)) && !suppression.is_unfinished(), "{case}");
    let (tables, ledger) = (Tables::of(lake.store(), &identity).unwrap(), Ledger::load(lake.store()).await.unwrap());
    let stop = CancellationToken::new();
    let search = Search { lake: &lake, tables: &tables, state: ledger.state(), stop: &stop };
    for table in Table::ALL {
        for place in [Where::Tables, Where::Staging, Where::OldVersions] {
            let found = search.suppressed(place, table, &suppression).await.unwrap();
            assert!(found.hits.is_empty() && found.unreadable == 0, "{case}: {} {place:?}", table.name());
        }
    }
    let objects: Vec<_> = store.list(None).try_collect().await.unwrap();
    for object in objects {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!ids.iter().any(|id| text.contains(id.as_str())), "{case}: {}", object.location);
    }
}

async fn exhaust_forget(api: &Api, fates: &[Fate]) {
    let kept = Kept::ByLease;
    let (made, ids) = (with_staged_changes(api, &kept).await, unwanted(api));
    let mut truth = api.truth[1].clone();
    truth.retain(|id, _| !ids.contains(id));
    let mut calls = 0;
    for fate in fates {
        for at in 1.. {
            let case = format!("{:?}, call {at} {fate:?}", api.format);
            let store = Arc::new(made.fork());
            let faulty = Faulty::new(store.clone(), at, *fate);
            let mut first = std::pin::pin!(forget_in(lake(faulty.clone(), &kept), &ids));
            let result = tokio::select! {
                result = &mut first => Some(result),
                () = faulty.falls_asleep() => None,
            };
            if faulty.calls() < at {
                result.unwrap().unwrap();
                assert_forgotten(&store, &ids, &case).await;
                assert_tables(&store, &truth, &case).await;
                calls = at - 1;
                break;
            }
            if let Some(Err(error)) = &result {
                assert!(matches!(error.kind(), Kind::Store | Kind::Held), "{case}: {}", error.chain().join(": "));
            }
            let later = || lake(Faulty::an_hour_later(store.clone()), &kept);
            forget_in(later(), &ids).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            if result.is_none() {
                faulty.wake();
                if let Err(error) = first.await {
                    assert_eq!(error.kind(), Kind::Held, "{case}: {}", error.chain().join(": "));
                }
                // What the first has written after it woke up is swept, and counts nowhere.
                forget_in(later(), &ids).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            }
            assert_forgotten(&store, &ids, &case).await;
            api.time.set(LATER);
            sync(api, Faulty::an_hour_later(store.clone()), &kept).await.unwrap();
            assert_eq!(assert_tables(&store, &truth, &case).await, 0, "{case}");
            assert_forgotten(&store, &ids, &case).await;
            manifest::assert_manifest(&store, &case).await;
        }
    }
    println!("{calls} calls of a forget");
}

#[tokio::test]
async fn any_call_of_a_forget_may_fail_or_be_the_last_of_its_process() {
    exhaust_forget(&Api::start(), &[Fate::FailsAfter, Fate::EndsBefore, Fate::EndsAfter, Fate::SleepsAfter]).await;
}

#[tokio::test]
async fn any_call_of_a_forget_in_a_lake_by_month_may_be_the_last_of_its_process() {
    exhaust_forget(&Api::start().by_month(), &[Fate::EndsAfter]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_forget_in_a_delta_lake_may_fail_or_be_the_last_of_its_process() {
    exhaust_forget(&Api::for_delta(), &[Fate::FailsAfter, Fate::EndsBefore, Fate::EndsAfter]).await;
}
