//! A reconciliation: any of its calls may fail or be the last of its process. Run again, it makes the lake what the API
//! has, with the deleted conversations marked or removed.

use std::collections::BTreeSet;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use chrono::Utc;

use super::*;
use crate::lake::Reconciled;
use crate::run::{MaxDeleted, OnDeleted, ReconcileSettings};

/// An old conversation that `upload` adds, which no increment returns.
const UPLOADED: &str = r#"{"conversation_id": "uploaded", "created_at": "2024-02-28T01:00:00Z",
    "updated_at": "2024-02-28T02:00:00Z", "messages": [{"text": "late"}], "tags": [], "audit_logs": []}"#;

/// A lake, an account that has changed since, and what the lake must become.
struct ChangedAccount {
    api: Api,
    made: Arc<Shelf>,
    /// The ids of the conversations that were deleted.
    deleted: BTreeSet<String>,
    /// What the API has now.
    there: Conversations,
    /// That, and what was deleted.
    all: Conversations,
}

impl ChangedAccount {
    async fn new(api: Api) -> Self {
        let made = Arc::new(Shelf::new());
        api.time.set(Duration::ZERO);
        sync(&api, sound(&made), &Kept::ByLease).await.unwrap();
        api.time.set(LATER);
        let changed = |id: &&String| api.truth[0].get(*id) == api.truth[1].get(*id);
        let mut ids = api.truth[0].keys().filter(changed).cloned();
        let (deleted, linked) = (ids.by_ref().step_by(4).take(2).collect::<BTreeSet<_>>(), ids.next().unwrap());
        for id in &deleted {
            assert!(api.time.change("delete", &format!(r#"{{"conversation_id": "{id}"}}"#)));
        }
        assert!(api.time.change("link", &format!(r#"{{"conversation_id": "{linked}", "user_id": "another"}}"#)));
        assert!(api.time.change("upload", UPLOADED));
        let there = expected(&api.time.conversations().collect::<String>());
        let mut all = there.clone();
        all.extend(
            api.truth[0].iter().filter(|(id, _)| deleted.contains(*id)).map(|(id, it)| (id.clone(), it.clone())),
        );
        assert!(all.len() == there.len() + 2 && there[&linked] != api.truth[1][&linked]);
        ChangedAccount { api, made, deleted, there, all }
    }

    /// What the lake must hold after a reconciliation.
    fn wanted(&self, on_deleted: OnDeleted) -> &Conversations {
        if on_deleted == OnDeleted::Remove { &self.there } else { &self.all }
    }

    /// Asserts that the lake is what it must become, with the deleted conversations marked if they stay.
    async fn assert_reconciled(&self, store: &Arc<Shelf>, on_deleted: OnDeleted, case: &str) {
        assert_exact(store, self.wanted(on_deleted), case).await;
        let marks = marks(store).await;
        let marked: BTreeSet<_> = marks.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(
            marked,
            if on_deleted == OnDeleted::Mark { self.deleted.clone() } else { BTreeSet::new() },
            "{case}"
        );
        let ledger = Ledger::load(lake(sound(store), &Kept::ByLease).store()).await.unwrap();
        assert_eq!(ledger.state().reconciliation, None, "{case}");
    }
}

/// The conversations that are marked as deleted, and the times.
async fn marks(store: &Arc<Shelf>) -> Vec<(String, i64)> {
    let lake = lake(sound(store), &Kept::ByLease);
    let tables = Tables::of(lake.store(), &lake.existing().await.unwrap()).unwrap();
    let mut marks = Vec::new();
    for batch in truth::rows(&lake, &tables, Table::Conversations).await {
        // Files of before have no such column.
        let Some(times) = batch.column_by_name("deleted_at") else { continue };
        let ids = batch.column_by_name("conversation_id").unwrap().as_string::<i32>();
        let times = times.as_primitive::<TimestampMicrosecondType>();
        marks.extend(ids.iter().zip(times).filter_map(|(id, time)| Some((id?.to_owned(), time?))));
    }
    marks
}

fn settings_of(on_deleted: OnDeleted) -> ReconcileSettings {
    let base = settings(9, 3);
    ReconcileSettings {
        to: Some("2024-03-02T00:00:00Z".parse::<DateTime<Utc>>().unwrap()),
        on_deleted,
        max_deleted: MaxDeleted::Percent(20.0),
        page_size: base.export.fetch.page_size,
        flush: base.export.fetch.flush,
        compact: CompactSettings { retain: base.retain, ..CompactSettings::default() },
        ..ReconcileSettings::default()
    }
}

async fn reconcile_as(api: &Api, store: Faulty, settings: &ReconcileSettings) -> Result<RunReport> {
    let mut client = client(api, store.clock());
    super::super::reconcile(&lake(store, &Kept::ByLease), &mut client, settings).await.map_err(Error::from)
}

async fn reconcile_in(api: &Api, store: Faulty, on_deleted: OnDeleted) -> Result<RunReport> {
    reconcile_as(api, store, &settings_of(on_deleted)).await
}

/// Gives each of `fates` to every call of a reconciliation.
async fn exhaust_reconcile(api: Api, on_deleted: OnDeleted, fates: &[Fate]) {
    let case = ChangedAccount::new(api).await;
    let whole = Arc::new(case.made.fork());
    let report = reconcile_in(&case.api, sound(&whole), on_deleted).await.unwrap();
    case.assert_reconciled(&whole, on_deleted, "without any fault").await;
    let found = report.reconciled.unwrap();
    assert!(found.complete && found.missing > 1 && found.stale > 1, "{found:?}");
    let here = found.conversations_here + found.missing - found.gone;
    assert_eq!((found.gone, found.conversations_there, found.conversations_there), (2, here, case.there.len() as u64));

    let mut calls = 0;
    for fate in fates {
        for at in 1.. {
            let name = format!("{on_deleted:?}, call {at} {fate:?}");
            let store = Arc::new(case.made.fork());
            let faulty = Faulty::new(store.clone(), at, *fate);
            let mut first = std::pin::pin!(reconcile_in(&case.api, faulty.clone(), on_deleted));
            let result = tokio::select! {
                result = &mut first => Some(result),
                () = faulty.falls_asleep() => None,
            };
            if faulty.calls() < at {
                calls = at - 1;
                break;
            }
            if let Some(Err(error)) = &result {
                assert!(matches!(error.kind(), Kind::Store | Kind::Held), "{name}: {}", error.chain().join(": "));
            }
            let again = Faulty::an_hour_later(store.clone());
            let report = reconcile_in(&case.api, again, on_deleted).await;
            let found = report.unwrap_or_else(|error| panic!("{name}: {error:?}")).reconciled.unwrap();
            assert!(found.complete && found.conversations_there == case.there.len() as u64, "{name}: {found:?}");
            if result.is_none() {
                faulty.wake();
                if let Err(error) = first.await {
                    assert_eq!(error.kind(), Kind::Held, "{name}: {}", error.chain().join(": "));
                }
                compact_in(lake(Faulty::an_hour_later(store.clone()), &Kept::ByLease)).await.unwrap();
            }
            case.assert_reconciled(&store, on_deleted, &name).await;
            // Nothing is found twice. One call in ten shows it, because each takes another run.
            if !at.is_multiple_of(10) {
                continue;
            }
            let again = reconcile_in(&case.api, Faulty::an_hour_later(store.clone()), on_deleted).await.unwrap();
            let Reconciled { missing, stale, returned, gone, .. } = again.reconciled.unwrap();
            assert_eq!((missing, stale, returned, gone), (0, 0, 0, 0), "{name}");
            case.assert_reconciled(&store, on_deleted, &name).await;
        }
    }
    println!("{calls} calls of a reconciliation, each {fates:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_reconciliation_that_marks_may_fail_or_be_the_last_of_its_process() {
    let fates = [Fate::EndsAfter, Fate::FailsAfter, Fate::SleepsAfter];
    exhaust_reconcile(Api::start(), OnDeleted::Mark, &fates).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_reconciliation_that_removes_may_fail_or_be_the_last_of_its_process() {
    exhaust_reconcile(Api::start().by_month(), OnDeleted::Remove, &[Fate::EndsBefore, Fate::SleepsAfter]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_of_a_reconciliation_of_a_delta_lake_may_fail_or_be_the_last_of_its_process() {
    exhaust_reconcile(Api::for_delta(), OnDeleted::Mark, &[Fate::EndsAfter]).await;
    exhaust_reconcile(Api::for_delta(), OnDeleted::Remove, &[Fate::EndsBefore]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_changes_nothing_that_is_deleted_and_too_many_deletions_stop_the_run() {
    let case = ChangedAccount::new(Api::start()).await;
    let store = Arc::new(case.made.fork());
    let found = reconcile_in(&case.api, sound(&store), OnDeleted::Report).await.unwrap().reconciled.unwrap();
    assert_eq!((found.gone, found.marked, found.removed, found.on_deleted), (2, 0, 0, "report"));
    case.assert_reconciled(&store, OnDeleted::Report, "a report").await;

    for on_deleted in [OnDeleted::Mark, OnDeleted::Remove] {
        for max_deleted in [MaxDeleted::Count(1), MaxDeleted::Percent(1.0)] {
            let settings = ReconcileSettings { max_deleted, ..settings_of(on_deleted) };
            let error = reconcile_as(&case.api, sound(&store), &settings).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity);
            assert!(error.to_string().contains(&format!("--max-deleted {max_deleted}")), "{error}");
            case.assert_reconciled(&store, OnDeleted::Report, "too many").await;
        }
    }
    let settings = ReconcileSettings { max_deleted: MaxDeleted::Count(2), ..settings_of(OnDeleted::Mark) };
    reconcile_as(&case.api, sound(&store), &settings).await.unwrap();
    case.assert_reconciled(&store, OnDeleted::Mark, "exactly as many").await;
}

/// A conversation that was marked and then comes back loses its mark.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_is_back_loses_its_mark() {
    let case = ChangedAccount::new(Api::start()).await;
    let store = Arc::new(case.made.fork());
    reconcile_in(&case.api, sound(&store), OnDeleted::Mark).await.unwrap();
    assert_eq!(marks(&store).await.len(), 2);
    // Another account with the same conversations, none of them deleted.
    let whole = Api::start();
    whole.time.set(LATER);
    assert!(whole.time.change("upload", UPLOADED));
    let moved = UpgradeSettings { base_url: Some(whole.url.clone()), ..UpgradeSettings::default() };
    upgrade(&lake(sound(&store), &Kept::ByLease), &moved).await.map_err(Error::from).unwrap();
    let found = reconcile_in(&whole, sound(&store), OnDeleted::Mark).await.unwrap().reconciled.unwrap();
    assert_eq!((found.returned, found.gone, found.missing), (2, 0, 0));
    assert_eq!(found.conversations_there, found.conversations_here + found.returned);
    assert_eq!(marks(&store).await, []);
}
