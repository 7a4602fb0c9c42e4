//! What was checked, how much of it, and what does not hold.

use std::collections::BTreeSet;

use object_store::path::Path;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{CreatedDate, PerTable, Table};

/// How many findings of one check are kept as evidence; the others are counted.
const EVIDENCE: usize = 10;

/// One promise of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Every file can be read and has its table's columns.
    Readable,
    /// A date that is in one table is in all four.
    AllTables,
    /// There is nothing in the tables' folders but the tables' objects.
    NothingElse,
    /// Within a date every id is there once, and the rows are sorted by it.
    UniqueAndSorted,
    /// No id is under two dates.
    UniqueAcrossDates,
    /// Every conversation is under the date that it was created at.
    CreatedDate,
    /// Every message, tag and log has its conversation, and comes from the same copy.
    Owned,
    /// The indexes of a conversation's rows count from 0 without a gap.
    Indexes,
    /// `message_count` is the number of the messages.
    MessageCount,
    /// What the checkpoint names as landed is there, as it says.
    StagedFlush,
    /// No table is newer than the lake's own state.
    State,
}

impl Check {
    /// All of them.
    pub const ALL: [Check; 11] = [
        Check::Readable,
        Check::AllTables,
        Check::NothingElse,
        Check::UniqueAndSorted,
        Check::UniqueAcrossDates,
        Check::CreatedDate,
        Check::Owned,
        Check::Indexes,
        Check::MessageCount,
        Check::StagedFlush,
        Check::State,
    ];

    /// The promise, in words.
    pub fn promise(self) -> &'static str {
        match self {
            Check::Readable => "every file can be read and has its table's columns",
            Check::AllTables => "a date that is in one table is in all four",
            Check::NothingElse => "there is nothing in the tables' folders but the tables",
            Check::UniqueAndSorted => "within a date every id is there once, in order",
            Check::UniqueAcrossDates => "no id is under two dates",
            Check::CreatedDate => "every conversation is under the date of its created_at",
            Check::Owned => "every message, tag and log has its conversation, and comes from the same copy",
            Check::Indexes => "the indexes of a conversation's rows count from 0 without a gap",
            Check::MessageCount => "message_count is the number of the messages",
            Check::StagedFlush => "what the checkpoint names as landed is there, as it says",
            Check::State => "no table is newer than the lake's _state",
        }
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which promise.
    pub check: Check,
    /// The object, where it is one's.
    pub key: Option<String>,
    /// The evidence.
    pub detail: String,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Which promise.
    pub check: Check,
    /// How often it does not hold.
    pub findings: u64,
    /// The first of those.
    pub evidence: Vec<Problem>,
}

/// What was read of a lake, and what does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// Where the lake is.
    pub lake: String,
    /// Dates.
    pub dates: u64,
    /// Files of the tables.
    pub files: u64,
    /// Their rows.
    pub rows: PerTable<u64>,
    /// Their bytes.
    pub bytes: u64,
    /// Landing objects.
    pub landed_files: u64,
    /// Their rows.
    pub landed_rows: u64,
    /// Landing objects that no checkpoint names: a run that is under way, or leftovers that the next one removes.
    pub unnamed_files: u64,
    /// Older copies of conversations that were removed from other dates.
    pub removed_copies: u64,
    /// Dates of flushes whose landing objects were missing or damaged, and were given up.
    pub given_up_landings: u64,
    /// Every check.
    pub checks: Vec<Verified>,
    #[serde(skip)]
    unreadable: BTreeSet<CreatedDate>,
}

impl Verification {
    /// Nothing was read yet.
    pub(super) fn of(lake: &str) -> Self {
        Verification {
            lake: lake.to_owned(),
            dates: 0,
            files: 0,
            rows: PerTable::default(),
            bytes: 0,
            landed_files: 0,
            landed_rows: 0,
            unnamed_files: 0,
            removed_copies: 0,
            given_up_landings: 0,
            checks: Check::ALL.map(|check| Verified { check, findings: 0, evidence: Vec::new() }).into(),
            unreadable: BTreeSet::new(),
        }
    }

    /// How many findings there are.
    pub fn findings(&self) -> u64 {
        self.checks.iter().map(|checked| checked.findings).sum()
    }

    /// How many findings of one check there are.
    pub fn findings_of(&self, check: Check) -> u64 {
        self.checks.iter().filter(|checked| checked.check == check).map(|checked| checked.findings).sum()
    }

    /// Takes note of something that does not hold.
    pub(super) fn note(&mut self, check: Check, key: Option<&Path>, detail: impl FnOnce() -> String) {
        let Some(checked) = self.checks.iter_mut().find(|checked| checked.check == check) else { return };
        checked.findings += 1;
        if checked.evidence.len() < EVIDENCE {
            checked.evidence.push(Problem { check, key: key.map(ToString::to_string), detail: detail() });
        }
    }

    /// Takes note of a file of `date` that cannot be read.
    ///
    /// # Errors
    /// The error, where not the file is at fault but the store.
    pub(super) fn unreadable(&mut self, date: CreatedDate, error: Error) -> Result<()> {
        if !error.is_of_one_object() {
            return Err(error);
        }
        self.unreadable.insert(date);
        self.note(Check::Readable, None, || error.chain().join(": "));
        Ok(())
    }

    /// Adds what was found elsewhere.
    pub(super) fn merge(&mut self, other: Verification) {
        self.unreadable.extend(other.unreadable);
        self.files += other.files;
        self.rows.add(&other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.landed_files += other.landed_files;
        self.landed_rows += other.landed_rows;
        for (mine, theirs) in self.checks.iter_mut().zip(other.checks) {
            mine.findings += theirs.findings;
            let room = EVIDENCE.saturating_sub(mine.evidence.len());
            mine.evidence.extend(theirs.evidence.into_iter().take(room));
        }
    }

    /// Counts a file that is there.
    pub(super) fn count_file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Counts rows that were read.
    pub(super) fn count_rows(&mut self, table: Table, rows: u64) {
        let sum = self.rows.get_mut(table);
        *sum = sum.saturating_add(rows);
    }

    /// Whether every file of a date could be read.
    pub(super) fn is_readable(&self, date: CreatedDate) -> bool {
        !self.unreadable.contains(&date)
    }
}
