//! Applies the lake's policy to the pages of an export, before anything else reads them.
//!
//! Guarantees: of a malformed entry nothing stays that cannot be masked; names of fields that a wildcard covers are not
//! counted by name. Without a policy everything stays as it came, and costs nothing. Must not depend on: flushes.

use std::borrow::Cow;
use std::sync::Arc;

use crate::api::{Page, Quotes};
use crate::error::Result;
use crate::flatten::{Batch, Counts, Origin, flatten_except};
use crate::model::{FieldCounts, LakeColumns, Table, column};
use crate::policy::{Masker, PolicyChain, Quarantined, RuleHits};

/// A policy, ready for pages.
#[derive(Debug, Clone)]
pub(super) struct Governor {
    policies: Arc<PolicyChain>,
    masker: Arc<Masker>,
}

impl Governor {
    /// The governor of an export to a lake with these policies.
    ///
    /// # Errors
    /// Kind `Usage` if the key is missing.
    pub(super) fn of(policies: Arc<PolicyChain>) -> Result<Self> {
        Ok(Governor { masker: policies.masker()?, policies })
    }

    /// Flattens the conversations of a page as they may land; those that are `unwanted` count nowhere. Each malformed
    /// entry is returned as it came.
    ///
    /// # Errors
    /// Only on a bug.
    pub(super) fn flatten(
        &self,
        page: &Page,
        columns: &LakeColumns,
        origin: &Origin<'_>,
        unwanted: &dyn Fn(&str) -> bool,
        hits: &mut RuleHits,
    ) -> Result<Batch> {
        // What cannot be followed becomes a malformed entry.
        let masked =
            page.conversations().map(|raw| self.masker.conversation(raw, hits).unwrap_or(Cow::Borrowed("null")));
        let masked: Vec<_> = masked.collect();
        let mut batch = flatten_except(masked.iter().map(AsRef::as_ref), columns, origin, unwanted)?;
        for reject in &mut batch.rejects {
            let place = usize::try_from(reject.seq.saturating_sub(origin.first_seq)).ok();
            let raw = place.and_then(|place| page.conversations().nth(place));
            reject.raw = raw.unwrap_or_default().to_owned();
        }
        self.hide(&mut batch.counts)?;
        Ok(batch)
    }

    /// What may be kept of a malformed entry.
    pub(super) fn quarantined(&self, raw: &str) -> Quarantined {
        self.masker.quarantined(raw)
    }

    /// The hash of the policy.
    ///
    /// # Errors
    /// Only on a bug.
    pub(super) fn hash(&self) -> Result<&str> {
        Ok(self.policies.current()?.hash())
    }

    /// Removes what a policy may cover from the counts of a page.
    fn hide(&self, counts: &mut Counts) -> Result<()> {
        let covered = covered(&self.policies)?;
        let counted = std::mem::take(&mut counts.fields_without_column);
        counts.fields_without_column = unnamed(counted, &covered);
        if let Some((_, value)) = &mut counts.unreadable_times.example {
            Quotes::HIDDEN.clone_into(value);
        }
        Ok(())
    }
}

/// The prefixes of names of fields that the policy covers by a wildcard.
///
/// # Errors
/// Only on a bug.
fn covered(policies: &PolicyChain) -> Result<Vec<String>> {
    let policy = policies.current()?;
    let of_table = |table: Table| match table {
        Table::Conversations => (table.name(), Vec::new()),
        _ => (table.name(), vec![table.name().to_owned()]),
    };
    let places = Table::ALL.into_iter().map(of_table).chain([(column::METADATA, vec![column::METADATA.to_owned()])]);
    Ok(places.filter(|(_, path)| policy.covers_unnamed(path)).map(|(name, _)| format!("{name}.")).collect())
}

/// The counts without the names that the policy may cover.
fn unnamed(counts: FieldCounts, covered: &[String]) -> FieldCounts {
    counts.renamed(|name| covered.iter().find(|prefix| name.starts_with(prefix.as_str())).map(|it| format!("{it}*")))
}

/// The counts of a lake without the names that its policy may cover, which an export before the policy has counted.
///
/// # Errors
/// Only on a bug.
pub fn without_covered_names(counts: FieldCounts, policies: &PolicyChain) -> Result<FieldCounts> {
    Ok(unnamed(counts, &covered(policies)?))
}
