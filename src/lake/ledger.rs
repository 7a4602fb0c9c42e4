//! The ledger: a lake's numbered checkpoints, each the whole state, of which the highest counts.
//!
//! Guarantees: a run that has not seen the newest checkpoint cannot commit, because a checkpoint is a conditional write
//! under the next number. Callers commit after everything that the state names is durable.
//! Must not depend on: the meaning of the state.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::series::Series;
use super::state::State;
use crate::error::{Error, Result};
use crate::layout;
use crate::model::RunId;
use crate::store::{Store, to_json};

/// How many checkpoints to keep, so that people can see what happened.
const KEPT: u64 = 16;

/// A checkpoint as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    committed_at: DateTime<Utc>,
    run: RunId,
    /// Whether no change of the state was ever committed.
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
    untouched: bool,
    state: State,
}

impl Ledger {
    /// Reads the newest checkpoint; the state is empty if there is none.
    ///
    /// # Errors
    /// If the store fails or the checkpoint is damaged.
    pub async fn load(store: &Store) -> Result<Self> {
        let series = Series::new(store, layout::checkpoints(), KEPT);
        let newest = series.newest::<Commit>().await?;
        let (number, untouched, state) =
            newest.map_or((0, true, State::default()), |(number, it)| (number, it.untouched, it.state));
        Ok(Ledger { store: store.clone(), series, number, untouched, state })
    }

    /// The state that was committed last.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The number of the newest checkpoint; 0 before the first.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Commits `state`, unless nothing has changed.
    ///
    /// # Errors
    /// Kind `Held` if another run has committed in the meantime; the lake then has nothing of `state`.
    pub async fn commit(&mut self, state: State, run: &RunId, now: DateTime<Utc>) -> Result<()> {
        if state == self.state {
            return Ok(());
        }
        self.append(Commit { committed_at: now, run: run.clone(), untouched: false, state }).await
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

    async fn append(&mut self, commit: Commit) -> Result<()> {
        let number = self.number.saturating_add(1);
        if !self.series.append(number, to_json(&commit)?).await? {
            let url = self.store.url();
            return Err(Error::held(format!("another run committed to the lake {url} after this one began"))
                .with_hint("run the command again; let one run at a time write to a lake"));
        }
        tracing::debug!(checkpoint = number, "committed");
        (self.number, self.untouched, self.state) = (number, commit.untouched, commit.state);
        Ok(())
    }

    /// Whether no change of the state was ever committed.
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
    use crate::model::{Request, Window};

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn walk(newest: Option<i64>, started: i64) -> Walk {
        let request = Request { window: Window::EVERYTHING, page_size: None, user_filters: None };
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
        let error = paused.commit(state(2), &run, at(50)).await.unwrap_err();
        assert_eq!(error.kind().exit_code(), 7, "its number is free again, but is not the next one");
        assert_eq!(Ledger::load(&store).await.unwrap().state(), &state(39));
        let kept: Vec<_> = store.list(layout::checkpoints()).try_collect().await.unwrap();
        assert_eq!(kept.len(), usize::try_from(KEPT).unwrap());
    }
}
