//! Finds the conversations of the lake that did not come in a complete walk.
//!
//! Guarantees: bounded memory: the hashes of a part of the ids at a time, and at most [`MOST_MISSED`] conversations.
//! Must not depend on: the API.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};

use super::hashes::{IdHasher, Seen, is_in};
use crate::error::{Error, Result};
use crate::lake::Reconciliation;
use crate::merge::{other_time, time};
use crate::model::{CreatedDate, Table, Window, column, from_micros, texts};
use crate::verify::Ids;

/// How many hashes to keep at a time: 64 MB.
const HASHES: u64 = if cfg!(test) { 7 } else { 8 << 20 };
/// The most conversations that a second look can be about: some 50 MB.
const MOST_MISSED: usize = 1 << 20;
/// How many witnesses are kept, because some may be erased meanwhile.
const WITNESSES: usize = 5;
/// How long after its creation, in microseconds, a witness must have changed: bounds are whole seconds, sent one too
/// wide.
const APART: i64 = 3_000_000;
/// The columns that a survey reads.
const COLUMNS: [&str; 6] = [
    column::CONVERSATION_ID,
    column::CREATED_AT,
    column::UPDATED_AT,
    column::LAST_MESSAGE_AT,
    column::LAST_USER_MESSAGE_AT,
    column::DELETED_AT,
];

/// A conversation of the lake that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missed {
    /// `created_at`, in microseconds.
    pub created_at: i64,
    /// The hash of its id.
    pub hash: u64,
}

/// A conversation that came, and that changed after it was created: a request for the second of its creation returns it
/// only if the API bounds `created_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// `created_at`, in microseconds.
    pub created_at: i64,
    /// The hash of its id.
    pub hash: u64,
}

/// What a lake has of the range of a complete walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many conversations came.
    pub there: u64,
    /// How many the lake has, without those that are marked as deleted.
    pub here: u64,
    /// Those of them that did not come, by `created_at`. What changed after the walk began is none of them.
    pub missed: Vec<Missed>,
    /// Witnesses that the API bounds `created_at`.
    pub witnesses: Vec<Witness>,
}

/// The conversations of a lake that a walk should have returned.
pub struct Scope {
    /// The partitions, and how to read them.
    pub ids: Ids,
    /// The range.
    pub window: Window,
    /// When the walk began: nothing is known of what changed later.
    pub began_at: DateTime<Utc>,
    /// Hashes the ids.
    pub hasher: IdHasher,
}

/// A row of the lake inside the range.
struct Found<'a> {
    date: CreatedDate,
    id: &'a str,
    hash: u64,
    /// `None` if it cannot be read.
    created_at: Option<i64>,
    changed_at: Option<i64>,
}

impl Scope {
    /// Compares the lake with the hashes that the walk of `reconciliation` noted. Must not be called on an async thread.
    ///
    /// # Errors
    /// If a table or a hash cannot be read; kind `Integrity` if too many conversations did not come.
    pub fn survey(&self, reconciliation: &Reconciliation) -> Result<Survey> {
        let parts = reconciliation.compared.ids.div_ceil(HASHES).max(1);
        let (mut survey, mut missed) = (Survey::default(), BTreeSet::new());
        for part in 0..parts {
            let Ids { lake, runtime, .. } = &self.ids;
            let seen = Seen::read(lake, &reconciliation.seen, parts, part, runtime)?;
            survey.there += seen.inside();
            self.each(|found| {
                let Found { hash, created_at, changed_at, .. } = found;
                if !is_in(hash, parts, part) {
                    return;
                }
                survey.here += u64::from(created_at.is_some() || seen.has_inside(hash));
                let Some(created_at) = created_at else { return };
                if !seen.has(hash) {
                    if self.is_settled(changed_at) && missed.len() <= MOST_MISSED {
                        missed.insert(Missed { created_at, hash });
                    }
                } else if self.is_settled(changed_at)
                    && changed_at.is_some_and(|changed| changed.saturating_sub(created_at) >= APART)
                    && survey.witnesses.len() < WITNESSES
                {
                    survey.witnesses.push(Witness { created_at, hash });
                }
            })?;
        }
        if missed.len() > MOST_MISSED {
            return Err(Error::integrity(format!(
                "the API did not return more than {MOST_MISSED} conversations of the lake {}",
                self.ids.lake.url()
            ))
            .with_hint("nothing was marked or removed; reconcile shorter ranges with --from and --to"));
        }
        survey.missed = missed.into_iter().collect();
        Ok(survey)
    }

    /// Finds the ids of conversations by their hashes, by partition. Must not be called on an async thread.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn ids_of(&self, hashes: &HashSet<u64>) -> Result<BTreeMap<CreatedDate, BTreeSet<String>>> {
        let mut ids: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        self.each(|found| {
            let is_one = hashes.contains(&found.hash) && found.created_at.is_some();
            if is_one && self.is_settled(found.changed_at) {
                ids.entry(found.date).or_default().insert(found.id.to_owned());
            }
        })?;
        Ok(ids)
    }

    /// Calls `visit` with every conversation that is inside the range, or whose `created_at` cannot be read, except
    /// those that are marked as deleted.
    fn each(&self, mut visit: impl FnMut(Found<'_>)) -> Result<()> {
        self.ids.each(Table::Conversations, &COLUMNS, |date, batch| {
            for (row, id) in texts(batch, column::CONVERSATION_ID).into_iter().flatten().enumerate() {
                let Some(id) = id.filter(|_| time(batch, column::DELETED_AT, row).is_none()) else { continue };
                let created_at = time(batch, column::CREATED_AT, row);
                let is_inside = |time| from_micros(time).is_some_and(|time| self.window.contains(time));
                if created_at.is_none_or(is_inside) {
                    let changed_at = changed_at(batch, row);
                    visit(Found { date, id, hash: self.hasher.hash(id), created_at, changed_at });
                }
            }
        })
    }

    /// Whether the conversation last changed before the walk began.
    fn is_settled(&self, changed_at: Option<i64>) -> bool {
        changed_at.is_some_and(|changed| changed < self.began_at.timestamp_micros())
    }
}

/// When the conversation changed, without the times of its children.
fn changed_at(batch: &RecordBatch, row: usize) -> Option<i64> {
    time(batch, column::UPDATED_AT, row).or_else(|| other_time(batch, row))
}
