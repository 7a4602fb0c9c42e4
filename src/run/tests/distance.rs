//! How many calls to the store a run makes, and how many of them one after the other, because each takes tens of
//! milliseconds where the store is in a cloud.

use std::sync::Mutex;

use super::*;
use crate::store::StoreCalls;

/// How long a call takes.
const TRIP: Duration = Duration::from_millis(25);

/// A distance to a store: a call takes [`TRIP`], so that calls that wait for no other are under way at once. Counts the
/// most calls of which each began after the one before had ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Distance(Arc<Mutex<usize>>);

impl Distance {
    pub(super) async fn travel<T>(&self, call: impl Future<Output = T>) -> T {
        let after = *self.0.lock().unwrap();
        Clock::system().sleep(TRIP).await;
        let done = call.await;
        let mut longest = self.0.lock().unwrap();
        *longest = (*longest).max(after + 1);
        done
    }
}

/// What a run cost.
#[derive(Debug)]
struct Cost {
    report: RunReport,
    by_kind: StoreCalls,
    /// Requests: many deletions are one.
    requests: usize,
    /// How many of them came one after the other.
    in_sequence: usize,
}

/// A sync of a store at a distance.
async fn sync_far_away(api: &Api, store: &Arc<Shelf>) -> Cost {
    let distance = Distance::default();
    let far = Faulty::distant(Arc::clone(store), distance.clone());
    let lake = Lake::on(Store::on(far.clone(), "memory", Duration::from_secs(60)).in_large_parts().by(far.clock()));
    let mut settings = settings(100, 1_000);
    settings.export.fetch.format = Some(api.format);
    let report = super::super::sync(&lake, &mut client(api, far.clock()), &settings).await.unwrap();
    let in_sequence = *distance.0.lock().unwrap();
    Cost { report, by_kind: lake.calls(), requests: far.calls(), in_sequence }
}

/// Moves the API's time on until one date has changed since the sync of `made`.
async fn change_one_date(api: &Api, made: &Arc<Shelf>) {
    for minutes in (1..1_200).step_by(7) {
        api.time.set(Duration::from_secs(minutes * 60));
        let report = sync(api, sound(&Arc::new(made.fork())), &Kept::ByLease).await.unwrap();
        if report.compacted_dates.len() == 1 {
            return;
        }
    }
    panic!("more than one date changes, or none");
}

/// Finding out who holds the lake, taking it, and reading what it is (3 in sequence); staging and committing (2);
/// compacting and committing; deleting what is not needed any more, and the end.
#[tokio::test]
async fn an_increment_of_one_date_makes_few_calls_and_many_of_them_at_once() {
    let api = Api::start();
    api.time.set(Duration::ZERO);
    let store = Arc::new(Shelf::new());
    sync_far_away(&api, &store).await;
    change_one_date(&api, &store).await;
    let Cost { report, by_kind, requests, in_sequence } = sync_far_away(&api, &store).await;
    println!("{by_kind:?}, {requests} requests, {in_sequence} in sequence");
    assert_eq!(report.compacted_dates.len(), 1);
    // Leases twice; checkpoints at first, and before table files and staged files go.
    assert!(by_kind.list <= 5, "{by_kind:?}");
    // The table files.
    assert!(by_kind.head <= 4, "{by_kind:?}");
    // The newest lease and checkpoint, and the identity; the staged files and the table files.
    assert!(by_kind.get <= 3 + 4 + 4, "{by_kind:?}");
    // Two leases, the staged files, their checkpoint and perhaps one for a filter that was in doubt, the table files
    // and their checkpoint, the report.
    assert!(by_kind.put <= 2 + 4 + 2 + 4 + 1 + 1, "{by_kind:?}");
    // With one bulk deletion.
    assert!(requests <= 35, "{requests}: {by_kind:?}");
    assert!(in_sequence <= 26, "{in_sequence}");
}
