//! The checks of a lake, how much they read, and the problems that they found.

use std::collections::BTreeSet;

use object_store::path::Path;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{CreatedDate, PerTable, Table};

/// How many problems of one check to keep as evidence; the others are only counted.
const EVIDENCE: usize = 10;

/// An invariant of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Every file can be read and has the columns of its table.
    Readable,
    /// A partition that one table has, all four have.
    AllTables,
    /// The tables' folders hold only table files.
    NothingElse,
    /// Within a partition every id occurs once, and the rows are sorted by it.
    UniqueAndSorted,
    /// No id occurs in two partitions.
    UniqueAcrossDates,
    /// Every conversation is in the partition of its `created_at`.
    CreatedDate,
    /// Every message, tag and log has its conversation, and comes from the same version.
    Owned,
    /// The indexes of a conversation's rows count from 0 without a gap.
    Indexes,
    /// `message_count` is the number of messages.
    MessageCount,
    /// Every staged file that the checkpoint names exists, as recorded.
    #[serde(rename = "landed")]
    StagedFiles,
    /// No table is newer than the lake's state.
    State,
    /// Every partition that the manifest lists is in the tables.
    Vanished,
    /// The manifest lists every partition of the tables.
    Unlisted,
    /// Every table file has the rows and times that the manifest says.
    Replaced,
    /// The manifest can be read, and its totals are right.
    Manifest,
    /// No conversation that was forgotten is in the tables.
    Forgotten,
}

impl Check {
    /// All of them.
    pub const ALL: [Check; 16] = [
        Check::Readable,
        Check::AllTables,
        Check::NothingElse,
        Check::UniqueAndSorted,
        Check::UniqueAcrossDates,
        Check::CreatedDate,
        Check::Owned,
        Check::Indexes,
        Check::MessageCount,
        Check::StagedFiles,
        Check::State,
        Check::Vanished,
        Check::Unlisted,
        Check::Replaced,
        Check::Manifest,
        Check::Forgotten,
    ];

    /// Those that a new manifest answers.
    pub(super) const OF_MANIFEST: [Check; 5] =
        [Check::State, Check::Vanished, Check::Unlisted, Check::Replaced, Check::Manifest];

    /// The invariant in words.
    pub fn promise(self) -> &'static str {
        match self {
            Check::Readable => "every file can be read and has the columns of its table",
            Check::AllTables => "a partition that one table has, all four have",
            Check::NothingElse => "the tables' folders hold only table files",
            Check::UniqueAndSorted => "within a partition every id occurs once, in order",
            Check::UniqueAcrossDates => "no id occurs in two partitions",
            Check::CreatedDate => "every conversation is in the partition of its created_at",
            Check::Owned => "every message, tag and log has its conversation, and comes from the same version",
            Check::Indexes => "the indexes of a conversation's rows count from 0 without a gap",
            Check::MessageCount => "message_count is the number of messages",
            Check::StagedFiles => "every staged file that the checkpoint names exists, as recorded",
            Check::State => "no table is newer than the lake's _state",
            Check::Vanished => "every partition that the manifest lists is in the tables",
            Check::Unlisted => "the manifest lists every partition of the tables",
            Check::Replaced => "every table file has the rows that the manifest says",
            Check::Manifest => "the manifest can be read, and its totals are right",
            Check::Forgotten => "no conversation that was forgotten is in the tables",
        }
    }
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The invariant.
    pub check: Check,
    /// The key of the object, if it concerns one.
    pub key: Option<String>,
    /// The evidence.
    pub detail: String,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The invariant.
    pub check: Check,
    /// How many problems it found.
    #[serde(rename = "findings")]
    pub problems: u64,
    /// The first of them.
    pub evidence: Vec<Problem>,
}

/// The result of verifying a lake.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// The lake's URL or path.
    pub lake: String,
    /// Partitions read.
    pub dates: u64,
    /// Table files read.
    pub files: u64,
    /// Their rows.
    pub rows: PerTable<u64>,
    /// Their bytes.
    pub bytes: u64,
    /// Staged files.
    #[serde(rename = "landed_files")]
    pub staged_files: u64,
    /// Their rows.
    #[serde(rename = "landed_rows")]
    pub staged_rows: u64,
    /// Staged files that no checkpoint names: of a live run, or leftovers that the next run removes.
    pub unnamed_files: u64,
    /// Older versions of conversations removed from other partitions.
    #[serde(rename = "removed_copies")]
    pub removed_versions: u64,
    /// How often the missing or damaged staged files of a flush and partition were discarded.
    #[serde(rename = "given_up_landings")]
    pub discarded_staged: u64,
    /// Partitions that the manifest lists; none if there is no manifest that can be read.
    pub listed_dates: Option<u64>,
    /// Partitions of Delta tables that other writers have changed since the manifest listed them.
    pub changed_by_others: u64,
    /// Whether the manifest was made again from the table files.
    pub rebuilt_manifest: bool,
    /// Every check.
    pub checks: Vec<Verified>,
    #[serde(skip)]
    unreadable: BTreeSet<CreatedDate>,
}

impl Verification {
    /// Creates a result before anything is read.
    pub(super) fn of(lake: &str) -> Self {
        Verification {
            lake: lake.to_owned(),
            dates: 0,
            files: 0,
            rows: PerTable::default(),
            bytes: 0,
            staged_files: 0,
            staged_rows: 0,
            unnamed_files: 0,
            removed_versions: 0,
            discarded_staged: 0,
            listed_dates: None,
            changed_by_others: 0,
            rebuilt_manifest: false,
            checks: Check::ALL.map(|check| Verified { check, problems: 0, evidence: Vec::new() }).into(),
            unreadable: BTreeSet::new(),
        }
    }

    /// How many problems there are.
    pub fn problems(&self) -> u64 {
        self.checks.iter().map(|checked| checked.problems).sum()
    }

    /// How many problems of one check there are.
    pub fn problems_of(&self, check: Check) -> u64 {
        self.checks.iter().filter(|checked| checked.check == check).map(|checked| checked.problems).sum()
    }

    /// Adds a problem.
    pub(super) fn note(&mut self, check: Check, key: Option<&Path>, detail: impl FnOnce() -> String) {
        let Some(checked) = self.checks.iter_mut().find(|checked| checked.check == check) else { return };
        checked.problems += 1;
        if checked.evidence.len() < EVIDENCE {
            checked.evidence.push(Problem { check, key: key.map(ToString::to_string), detail: detail() });
        }
    }

    /// Adds the problem that a file of the partition `date` cannot be read.
    ///
    /// # Errors
    /// The error itself, if the store failed.
    pub(super) fn unreadable(&mut self, date: CreatedDate, error: Error) -> Result<()> {
        if !error.is_of_one_object() {
            return Err(error);
        }
        self.unreadable.insert(date);
        self.note(Check::Readable, None, || error.chain().join(": "));
        Ok(())
    }

    /// Adds the result of another part of the lake.
    pub(super) fn merge(&mut self, other: Verification) {
        self.unreadable.extend(other.unreadable);
        self.files += other.files;
        self.rows.add(&other.rows);
        self.bytes += other.bytes;
        self.staged_files += other.staged_files;
        self.staged_rows += other.staged_rows;
        for (mine, theirs) in self.checks.iter_mut().zip(other.checks) {
            mine.problems += theirs.problems;
            let room = EVIDENCE.saturating_sub(mine.evidence.len());
            mine.evidence.extend(theirs.evidence.into_iter().take(room));
        }
    }

    /// Counts a table file.
    pub(super) fn count_file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    /// Counts rows that were read.
    pub(super) fn count_rows(&mut self, table: Table, rows: u64) {
        *self.rows.get_mut(table) += rows;
    }

    /// Whether every file of a partition could be read.
    pub(super) fn is_readable(&self, date: CreatedDate) -> bool {
        !self.unreadable.contains(&date)
    }
}
