//! Makes new table objects visible, and forgets what was landed for them.
//!
//! Plain tables show them as soon as they are written. What goes into Delta tables is first named by a checkpoint: whoever
//! finds it there goes on with it, and a run that has lost the lake has named nothing. Must not know: how objects are made.

use std::collections::BTreeMap;

use object_store::path::Path;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::lake::{Lake, Ledger, Replacement, State, WriteIntent};
use crate::model::{CreatedDate, RunId};
use crate::tables::{Change, Tables};

/// What it takes to publish.
pub(super) struct Publisher<'a> {
    pub(super) lake: &'a Lake,
    pub(super) tables: &'a Tables,
    pub(super) ledger: &'a mut Ledger,
    pub(super) run: &'a RunId,
    pub(super) clock: Clock,
}

impl Publisher<'_> {
    /// Goes on with what a run that died has begun to publish.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn go_on(&mut self) -> Result<()> {
        if let Some(Change::Conflict(place)) = self.carry_out().await? {
            tracing::warn!("another program has written to {place} since; what is landed is merged with that");
        }
        Ok(())
    }

    /// Publishes the new objects of `dates`, and commits `state` without what was landed for them; then deletes that, and
    /// what else is `gone`.
    ///
    /// # Errors
    /// Of the store, and kind `Held` where another run, or another program, was faster.
    pub(super) async fn publish(
        &mut self,
        mut state: State,
        dates: BTreeMap<CreatedDate, Replacement>,
        mut gone: Vec<Path>,
    ) -> Result<()> {
        if dates.is_empty() || !self.tables.are_delta() {
            gone.append(&mut state.settle(&dates));
            self.commit(state).await?;
            return self.lake.store().delete(gone).await;
        }
        state.publication = Some(WriteIntent { number: self.ledger.number().saturating_add(1), dates });
        self.commit(state).await?;
        self.lake.store().delete(gone).await?;
        match self.carry_out().await? {
            Some(Change::Conflict(place)) => {
                Err(Error::held(format!("another program has written to {place} of the lake {}", self.lake.url()))
                    .with_hint("nothing is lost: run this again, which merges what is landed with what that one wrote"))
            }
            _ => Ok(()),
        }
    }

    /// Carries out the publication that the newest checkpoint names, where it names one, and forgets it.
    async fn carry_out(&mut self) -> Result<Option<Change>> {
        let Some(publication) = self.ledger.state().publication.clone() else { return Ok(None) };
        let change = self.tables.publish(&publication).await?;
        let mut state = State { publication: None, ..self.ledger.state().clone() };
        let gone = if change == Change::Made { state.settle(&publication.dates) } else { Vec::new() };
        self.commit(state).await?;
        self.lake.store().delete(gone).await?;
        Ok(Some(change))
    }

    /// Commits `state`.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub(super) async fn commit(&mut self, state: State) -> Result<()> {
        self.ledger.commit(state, self.run, self.clock.now()).await
    }
}
