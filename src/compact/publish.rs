//! Makes new table files visible, and discards the staged files that they were made of.
//!
//! Guarantees: a change of Delta tables is completed by this run or a later one, unless another writer conflicts,
//! because a checkpoint names it as a write intent first; a run that lost the lake cannot commit one. Plain table files
//! are visible as soon as they are written. The checkpoint that publishes files records them in the manifest.
//! Must not depend on: how table files are made.

use std::collections::BTreeMap;

use object_store::path::Path;

use super::record;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::files::current_form;
use crate::lake::{Lake, Ledger, Replacement, State, WriteIntent};
use crate::model::{CreatedDate, RunId};
use crate::tables::{Change, Tables};

/// Makes the manifest again from all table files, whatever it says, and commits it. For the holder of the lease.
///
/// # Errors
/// Of the store; kind `Held` if another run has committed.
pub async fn rebuild_manifest(
    lake: &Lake,
    tables: &Tables,
    ledger: &mut Ledger,
    run: &RunId,
    clock: Clock,
) -> Result<()> {
    let mut publisher = Publisher { lake, tables, ledger, run, clock };
    let mut state = publisher.ledger.state().clone();
    let obsolete = record::make(lake, tables, publisher.ledger.shards(), &mut state, publisher.next_number()).await?;
    publisher.commit_and_discard(state, obsolete).await
}

/// Publishes table files and commits states.
pub(super) struct Publisher<'a> {
    pub(super) lake: &'a Lake,
    pub(super) tables: &'a Tables,
    pub(super) ledger: &'a mut Ledger,
    pub(super) run: &'a RunId,
    pub(super) clock: Clock,
}

impl Publisher<'_> {
    /// Completes the write intent of a run that died, before anything else changes the tables.
    ///
    /// # Errors
    /// Of the store; kind `Held` if another run has taken over.
    pub(super) async fn resume(&mut self) -> Result<()> {
        if !self.tables.are_delta() {
            // A run that was taken over would find the newer table files, and replace them.
            self.ledger.check().await?;
        }
        if let Some(Change::Conflict(place)) = self.apply_intent().await? {
            tracing::warn!(
                "another writer committed to Delta table {place}, first; merging the staged rows with that commit"
            );
        }
        Ok(())
    }

    /// Publishes the new table files of `dates`, commits `state` without the staged files that they were made of, and
    /// discards these and the `folded` ones.
    ///
    /// # Errors
    /// Of the store; kind `Held` if another run or another writer committed first.
    pub(super) async fn publish(
        &mut self,
        mut state: State,
        dates: BTreeMap<CreatedDate, Replacement>,
        mut folded: Vec<Path>,
    ) -> Result<()> {
        if dates.is_empty() || !self.tables.are_delta() {
            folded.append(&mut state.remove_compacted(&dates));
            folded.append(&mut self.record(&mut state, &dates).await?);
            return self.commit_and_discard(state, folded).await;
        }
        state.write_intent = Some(WriteIntent { number: self.next_number(), dates });
        self.commit_and_discard(state, folded).await?;
        match self.apply_intent().await? {
            Some(Change::Conflict(place)) => {
                let url = self.lake.url();
                Err(Error::held(format!("another writer committed to Delta table {place}, first (lake {url})"))
                    .with_hint("run this again to merge the staged rows with that commit; nothing is lost"))
            }
            _ => Ok(()),
        }
    }

    /// Makes the manifest if there is none, and commits it; it also learns what a repair that died has left.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn complete_manifest(&mut self) -> Result<()> {
        // A lake without a checkpoint may still become another one.
        if self.ledger.number() == 0 {
            return Ok(());
        }
        let mut state = self.ledger.state().clone();
        let obsolete =
            record::complete(self.lake, self.tables, self.ledger.shards(), &mut state, self.next_number()).await?;
        self.commit_and_discard(state, obsolete).await
    }

    /// The partitions whose table files have older columns or encodings than this release writes.
    ///
    /// # Errors
    /// Of the store; kind `Integrity` if the manifest is damaged.
    pub(super) async fn older_partitions(&self) -> Result<Vec<CreatedDate>> {
        let Some(manifest) = &self.ledger.state().manifest else { return Ok(Vec::new()) };
        let form = current_form(self.tables.columns());
        let entries = self.ledger.shards().entries(manifest).await?;
        Ok(entries.into_iter().filter(|(_, entry)| entry.form < form).map(|(date, _)| date).collect())
    }

    /// Announces that the plain table files of `dates` will be replaced although no staged files are in them.
    ///
    /// # Errors
    /// Of the store.
    pub(super) async fn announce(&mut self, dates: impl Iterator<Item = CreatedDate>) -> Result<()> {
        let mut state = self.ledger.state().clone();
        if let Some(manifest) = state.manifest.as_mut().filter(|_| !self.tables.are_delta()) {
            manifest.rewriting.extend(dates);
        }
        self.commit_and_discard(state, Vec::new()).await
    }

    /// Records the new table files of `dates` in the manifest of `state`; returns the keys to discard after the commit.
    async fn record(&self, state: &mut State, dates: &BTreeMap<CreatedDate, Replacement>) -> Result<Vec<Path>> {
        record::record(self.lake, self.tables, self.ledger.shards(), state, dates, self.next_number()).await
    }

    /// The number of the next checkpoint.
    fn next_number(&self) -> u64 {
        self.ledger.number().saturating_add(1)
    }

    /// Applies the write intent that the newest checkpoint names, if any, and commits that it is done.
    async fn apply_intent(&mut self) -> Result<Option<Change>> {
        let Some(intent) = self.ledger.state().write_intent.clone() else { return Ok(None) };
        let change = self.tables.publish(&intent).await?;
        let mut state = State { write_intent: None, ..self.ledger.state().clone() };
        let mut discarded = Vec::new();
        if change == Change::Made {
            discarded = state.remove_compacted(&intent.dates);
            discarded.append(&mut self.record(&mut state, &intent.dates).await?);
        }
        self.commit_and_discard(state, discarded).await?;
        Ok(Some(change))
    }

    /// Commits `state`, which does not name the staged files `discarded` any more, and makes sure that no run has taken
    /// over: table files are replaced or published only after that.
    async fn commit_and_discard(&mut self, state: State, discarded: Vec<Path>) -> Result<()> {
        self.commit(state).await?;
        self.ledger.check().await?;
        self.ledger.discard(discarded).await
    }

    /// Commits `state`.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub(super) async fn commit(&mut self, state: State) -> Result<()> {
        self.ledger.commit(state, self.run, self.clock.now()).await
    }
}
