//! The ledger: a lake's numbered checkpoints, each the whole state, of which the highest counts.
//!
//! Guarantees: a run that has not seen the newest checkpoint cannot commit, because a checkpoint is a conditional write
//! under the next number. If that number was used and removed meanwhile, the write succeeds without effect, and
//! [`Ledger::check`] fails; nothing is deleted before a check. Callers commit after everything that the state names is
//! durable, and check before they change what they cannot undo.
//! Must not depend on: the meaning of the state.

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::series::Series;
use super::shards::Shards;
use super::state::State;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::RunId;
use crate::store::{Store, to_json};

/// How many checkpoints to keep, so that people can see what happened.
const KEPT: u64 = 16;
/// How many objects to delete at a time; S3 takes as many in one request.
const DELETED_AT_ONCE: usize = 1_000;

/// A checkpoint as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    committed_at: DateTime<Utc>,
    run: RunId,
    /// Whether nothing was ever committed but what was learned about pages.
    #[serde(default)]
    untouched: bool,
    #[serde(flatten)]
    state: State,
}

/// The newest checkpoint of a lake, and the means to write the next.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    series: Series,
    /// The newest checkpoint's number; 0 before the first.
    number: u64,
    /// The run that wrote it.
    run: Option<RunId>,
    /// The shards of the state's manifest.
    shards: Shards,
    untouched: bool,
    state: State,
    /// How many checkpoints were written since the last check.
    unchecked: u64,
    /// What the newest checkpoint does not name any more, to be deleted.
    discarded: Vec<Path>,
}

impl Ledger {
    /// Reads the newest checkpoint; the state is empty if there is none.
    ///
    /// # Errors
    /// If the store fails or the checkpoint is damaged.
    pub async fn load(store: &Store) -> Result<Self> {
        Self::load_near(store, None).await
    }

    /// As [`Ledger::load`]; if the newest checkpoint is the `likely` one, with one round trip instead of two.
    ///
    /// # Errors
    /// As [`Ledger::load`].
    pub async fn load_near(store: &Store, likely: Option<u64>) -> Result<Self> {
        let series = Series::new(store, layout::checkpoints(), KEPT);
        let newest = series.newest_near::<Commit>(likely).await?;
        let (number, run, untouched, state) = newest
            .map_or((0, None, true, State::default()), |(number, it)| (number, Some(it.run), it.untouched, it.state));
        let (store, shards, discarded) = (store.clone(), Shards::of(store), Vec::new());
        Ok(Ledger { store, series, number, run, shards, untouched, state, unchecked: 0, discarded })
    }

    /// The state that was committed last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The number of the newest checkpoint; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The run that wrote the newest checkpoint; `None` before the first.
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

    /// The shards of the state's manifest.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// Commits `state`, unless nothing has changed.
    ///
    /// # Errors
    /// Kind `Held` if another run has committed in the meantime; the lake then has nothing of `state`.
    pub async fn commit(&mut self, state: State, run: &RunId, now: DateTime<Utc>) -> Result<()> {
        if state == self.state {
            return Ok(());
        }
        // What a failed first run learned about pages decides nothing about the lake.
        let untouched = self.untouched && State { page_size: self.state.page_size, ..state.clone() } == self.state;
        self.append(Commit { committed_at: now, run: run.clone(), untouched, state }).await
    }

    /// Commits the same state again, so that a run that lost the lake without noticing cannot commit.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn fence(&mut self, run: &RunId, now: DateTime<Utc>) -> Result<()> {
        let (untouched, state) = (self.untouched, self.state.clone());
        self.append(Commit { committed_at: now, run: run.clone(), untouched, state }).await
    }

    /// Commits the same state again under a number above `number`, which Delta tables have applied although the
    /// checkpoints up to it are lost.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn pass(&mut self, number: u64, run: &RunId, now: DateTime<Utc>) -> Result<()> {
        self.number = self.number.max(number);
        self.fence(run, now).await
    }

    /// Makes sure that no other run has committed since this one began. Costs nothing if this run has not committed
    /// since the last check.
    ///
    /// # Errors
    /// Kind `Held` if another run has committed; those of the store.
    pub async fn check(&mut self) -> Result<()> {
        if self.unchecked == 0 {
            return Ok(());
        }
        let surplus = self.series.confirm(self.number).await?.ok_or_else(|| self.outrun())?;
        self.discarded.extend(surplus);
        self.unchecked = 0;
        Ok(())
    }

    /// Deletes `keys`, which the newest checkpoint does not name any more, with the next [`Ledger::clean`]. If they are
    /// many, that is now.
    ///
    /// # Errors
    /// As [`Ledger::clean`].
    pub async fn discard(&mut self, keys: Vec<Path>) -> Result<()> {
        self.discarded.extend(keys);
        if self.discarded.len() < DELETED_AT_ONCE { Ok(()) } else { self.clean(Vec::new()).await }
    }

    /// Checks, then deletes at once what was discarded, the oldest checkpoints and `others`.
    ///
    /// # Errors
    /// As [`Ledger::check`].
    pub async fn clean(&mut self, others: Vec<Path>) -> Result<()> {
        self.check().await?;
        let mut keys = std::mem::take(&mut self.discarded);
        keys.extend(others);
        if keys.is_empty() { Ok(()) } else { self.store.delete(keys).await }
    }

    async fn append(&mut self, commit: Commit) -> Result<()> {
        let number = self.number.saturating_add(1);
        if !self.series.create(number, to_json(&commit)?).await? {
            return Err(self.outrun());
        }
        tracing::debug!(checkpoint = number, "committed");
        (self.number, self.run) = (number, Some(commit.run));
        (self.untouched, self.state) = (commit.untouched, commit.state);
        self.unchecked += 1;
        // A long walk commits often.
        if self.unchecked < KEPT { Ok(()) } else { self.clean(Vec::new()).await }
    }

    fn outrun(&self) -> Error {
        Error::held(format!("another run committed to the lake {} after this one began", self.store.url()))
            .with_hint("run the command again; let one run at a time write to a lake")
    }

    /// Whether nothing was ever committed but what was learned about pages.
    pub fn is_new(&self) -> bool {
        self.untouched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;

    use crate::lake::{Purpose, Walk};
    use crate::model::{PageSize, Request, Window};

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn walk(newest: Option<i64>, started: i64) -> Walk {
        let request = Request { window: Window::EVERYTHING, user_filters: None };
        Walk { newest_change: newest.map(at), ..Walk::new(request, at(started)) }
    }

    #[tokio::test]
    async fn the_second_of_two_commits_on_the_same_state_fails() {
        let store = Store::on(InMemory::new(), "memory", std::time::Duration::from_secs(60));
        let run = RunId::new(at(0), 1);
        let state = |secs| {
            let mut state = State::default();
            state.complete_walk(Purpose::Incremental, &walk(Some(secs), 100));
            state
        };
        let (mut first, mut second) = (Ledger::load(&store).await.unwrap(), Ledger::load(&store).await.unwrap());
        first.commit(state(1), &run, at(1)).await.unwrap();
        let error = second.commit(state(2), &run, at(2)).await.unwrap_err();
        assert_eq!(error.kind().exit_code(), 7);
        assert_eq!(Ledger::load(&store).await.unwrap().state(), &state(1));

        let mut paused = Ledger::load(&store).await.unwrap();
        for secs in 2..40 {
            first.commit(state(secs), &run, at(secs)).await.unwrap();
        }
        first.clean(Vec::new()).await.unwrap();
        let count = async || store.list(layout::checkpoints()).try_collect::<Vec<_>>().await.unwrap().len() as u64;
        assert_eq!(count().await, KEPT);
        // The numbers after those that it knows are free again, but are not the next ones.
        let outrun = async |ledger: &mut Ledger| {
            assert_eq!(ledger.clean(vec![layout::identity()]).await.unwrap_err().kind().exit_code(), 7);
        };
        store.put(&layout::identity(), "{}").await.unwrap();
        for secs in 50..53 {
            paused.commit(state(secs), &run, at(secs)).await.unwrap();
            outrun(&mut paused).await;
            assert_eq!(Ledger::load(&store).await.unwrap().state(), &state(39));
        }
        let mut refused = None;
        for secs in 53..80 {
            refused = refused.or(paused.commit(state(secs), &run, at(secs)).await.err());
        }
        assert_eq!(refused.unwrap().kind().exit_code(), 7, "if it never checks, a commit does");
        assert_eq!(Ledger::load(&store).await.unwrap().state(), &state(39));
        assert!(store.get(&layout::identity()).await.unwrap().is_some(), "it has deleted nothing");
        first.commit(state(90), &run, at(90)).await.unwrap();
        first.clean(Vec::new()).await.unwrap();
        assert_eq!(count().await, KEPT, "what it has left is gone");
    }

    #[tokio::test]
    async fn the_checkpoints_of_a_long_walk_stay_few() {
        let store = Store::on(InMemory::new(), "memory", std::time::Duration::from_secs(60));
        let run = RunId::new(at(0), 1);
        let mut ledger = Ledger::load(&store).await.unwrap();
        for secs in 1..200 {
            ledger.commit(State { quarantined: secs, ..State::default() }, &run, at(0)).await.unwrap();
            let kept: Vec<_> = store.list(layout::checkpoints()).try_collect().await.unwrap();
            assert!(kept.len() as u64 <= 2 * KEPT, "{}", kept.len());
        }
    }

    #[tokio::test]
    async fn what_was_learned_about_pages_does_not_make_a_lake() {
        let store = Store::on(InMemory::new(), "memory", std::time::Duration::from_secs(60));
        let run = RunId::new(at(0), 1);
        let mut size = PageSize::default();
        assert!(size.failed(), "it learned something");
        let learned = State { page_size: size.learned(), ..State::default() };
        let mut ledger = Ledger::load(&store).await.unwrap();
        ledger.commit(learned.clone(), &run, at(1)).await.unwrap();
        let mut ledger = Ledger::load(&store).await.unwrap();
        assert!(ledger.is_new() && ledger.state() == &learned);
        ledger.commit(State { quarantined: 1, ..learned }, &run, at(2)).await.unwrap();
        assert!(!Ledger::load(&store).await.unwrap().is_new());
    }

    #[tokio::test]
    async fn the_likely_checkpoint_saves_a_call_and_a_wrong_guess_does_no_harm() {
        let store = Store::on(InMemory::new(), "memory", std::time::Duration::from_secs(60));
        let run = RunId::new(at(0), 1);
        let mut ledger = Ledger::load(&store).await.unwrap();
        for quarantined in 1..4 {
            ledger.commit(State { quarantined, ..State::default() }, &run, at(0)).await.unwrap();
        }
        // The right one; an earlier one, which a late commit has followed; one that a restored backup lacks.
        for (likely, lists, gets) in [(Some(3), 1, 1), (Some(2), 2, 2), (Some(9), 2, 2), (None, 1, 1)] {
            let before = store.calls();
            let found = Ledger::load_near(&store, likely).await.unwrap();
            assert_eq!((found.number(), found.state().quarantined), (3, 3), "{likely:?}");
            let calls = store.calls();
            assert_eq!((calls.list - before.list, calls.get - before.get), (lists, gets), "{likely:?}");
        }
    }
}
