//! The report of a run, kept in the lake as `_state/runs/<run>.json` and printed with `--json`.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::manifest::TableTotals;
use crate::error::{Error, Kind, Result};
use crate::layout;
use crate::model::{CreatedDate, FieldCounts, PerTable, Request, RunId};
use crate::policy::RuleHits;
use crate::store::{Store, StoreCalls, to_json};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It succeeded.
    Done,
    /// It succeeded, but it or an earlier run quarantined malformed entries.
    #[serde(rename = "set_aside")]
    Quarantined,
    /// It was asked to stop; the next run resumes from there.
    Interrupted,
    /// It failed; `error` says why.
    Failed,
}

impl RunOutcome {
    /// The outcome as people read it.
    pub fn words(self) -> &'static str {
        match self {
            RunOutcome::Done => "done",
            RunOutcome::Quarantined => "done, with entries quarantined",
            RunOutcome::Interrupted => "interrupted",
            RunOutcome::Failed => "failed",
        }
    }
}

/// The report of one run. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The run.
    pub run_id: RunId,
    /// The command: `export`, `backfill`, `compact`, `sync`, `forget`, `upgrade`, `reconcile` or `verify`.
    pub command: &'static str,
    /// The version of this program.
    pub version: &'static str,
    /// Whether the run was admitted to the lake: its report is saved there.
    #[serde(skip)]
    pub admitted: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How it ended.
    pub outcome: RunOutcome,
    /// The exit code of a process that ends so.
    pub exit_code: u8,
    /// The error and its causes, if it failed.
    pub error: Vec<String>,
    /// The problems that a verification found and did not repair; none if the run was no verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<u64>,
    /// Its request to the API, if it made one.
    pub request: Option<Request>,
    /// Whether it resumed the walk of an earlier run.
    pub resumed: bool,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Retries sent.
    pub retries: u64,
    /// The `page_size` of the last request; `None` if it had none.
    pub page_size: Option<u32>,
    /// Pages fetched.
    pub pages: u64,
    /// Bytes of pages fetched.
    pub page_bytes: u64,
    /// Rows staged.
    #[serde(rename = "landed_rows")]
    pub staged_rows: PerTable<u64>,
    /// Bytes staged.
    #[serde(rename = "landed_bytes")]
    pub staged_bytes: PerTable<u64>,
    /// Staged files written.
    #[serde(rename = "landed_objects")]
    pub staged_files: u64,
    /// Full pages without a cursor: the true end of a walk, or the API has renamed its cursor.
    pub full_pages_without_cursor: u64,
    /// Walks whose last page was empty and had no cursor field, unlike the pages before.
    pub ends_without_cursor_field: u64,
    /// Walks that started over because the API refused the cursor of an earlier run.
    pub restarted_walks: u64,
    /// Conversations whose malformed JSON was repaired.
    pub repaired: u64,
    /// Versions outside the requested window; a backfill leaves them out.
    pub outside_window: u64,
    /// Malformed entries quarantined, including those that earlier runs did not report by their exit code.
    pub quarantined: u64,
    /// Times that could not be read; they are in `extra`.
    pub unreadable_times: u64,
    /// Fields without a column that were staged, by name; they are in `extra`. Keys of `metadata` without one are named
    /// `metadata.…`.
    pub fields_without_column: FieldCounts,
    /// Values of `metadata` that do not fit their column, by column; they are in `metadata` alone.
    pub metadata_misfits: FieldCounts,
    /// The result of a reconciliation that has compared everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<Reconciled>,
    /// The newest change that is known to be in the lake now.
    pub watermark: Option<DateTime<Utc>>,
    /// Partitions compacted.
    #[serde(serialize_with = "partition_values")]
    pub compacted_dates: Vec<CreatedDate>,
    /// Versions of conversations that the compaction read.
    #[serde(rename = "compacted_copies")]
    pub compacted_versions: u64,
    /// Partitions rewritten because their files had older columns or encodings.
    pub upgraded_partitions: u64,
    /// Versions that the API sent of conversations that must not come back; they were dropped.
    pub suppressed: u64,
    /// Rows of such conversations that a compaction or a `forget` left out of what it wrote.
    pub forgotten_rows: PerTable<u64>,
    /// Partitions that a `forget` rewrote.
    pub forgotten_partitions: u64,
    /// Unfinished backfills that were given up.
    pub abandoned_backfills: u64,
    /// Versions that a later version of the same conversation replaced.
    pub duplicates_resolved: u64,
    /// Conversations that an increment returned first although they had changed before the watermark.
    pub late_arrivals: u64,
    /// The longest time between such a change and the watermark, in seconds, rounded up.
    pub latest_arrival_secs: u64,
    /// Rows of the table files written.
    pub table_rows: PerTable<u64>,
    /// Bytes of the table files written.
    pub table_bytes: PerTable<u64>,
    /// Unused files of Delta tables that were deleted.
    #[serde(rename = "vacuumed_objects")]
    pub vacuumed_files: usize,
    /// What each table holds at the end of the run; none if the lake has no manifest yet.
    pub tables: Option<PerTable<TableTotals>>,
    /// The policy of the lake; none if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyReport>,
    /// How often its rules applied to what was staged.
    #[serde(skip)]
    pub hits: RuleHits,
    /// Calls to the store before this report was written.
    pub store_calls: StoreCalls,
}

/// The result of a reconciliation: the proof that the lake has what the API has. `conversations_there` is
/// `conversations_here`, plus `missing` and `returned`, less `gone`, unless the lake or the account changed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The first `created_at` of the range; `None` if it has no beginning.
    pub from: Option<DateTime<Utc>>,
    /// The end of the range, which it does not include.
    pub to: Option<DateTime<Utc>>,
    /// When the walk began, by the API's clock.
    pub walked_at: DateTime<Utc>,
    /// Conversations that the API returned.
    pub conversations_there: u64,
    /// Conversations that the lake had before, without those that were marked as deleted.
    pub conversations_here: u64,
    /// Conversations that the lake lacked; they were fetched.
    pub missing: u64,
    /// Conversations of which the lake had an older version; the newer one was fetched.
    pub stale: u64,
    /// Conversations that were marked as deleted, but are there again; their mark was removed.
    pub returned: u64,
    /// Conversations that the API no longer has: two requests did not return them.
    pub gone: u64,
    /// Those of them that this run marked as deleted.
    pub marked: u64,
    /// Those of them that this run removed.
    pub removed: u64,
    /// What was done about them: `report`, `mark` or `remove`.
    pub on_deleted: &'static str,
    /// Whether the walk proves what is gone. If not, `gone` is 0 and `why_incomplete` says why.
    pub complete: bool,
    /// Why the walk proves nothing about deletions.
    pub why_incomplete: Option<&'static str>,
}

/// What a run did with the lake's policy. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyReport {
    /// The hash of its rules.
    pub hash: String,
    /// The rules that covered nothing of what the run fetched, although it fetched conversations.
    pub unmatched_rules: Vec<String>,
}

/// Whether a partition is a day or a month is said elsewhere.
fn partition_values<S: Serializer>(partitions: &[CreatedDate], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(partitions.iter().map(ToString::to_string))
}

impl RunReport {
    /// Creates the report of a run that has just begun.
    pub fn new(command: &'static str, run_id: RunId, started_at: DateTime<Utc>) -> Self {
        RunReport {
            run_id,
            command,
            version: env!("CARGO_PKG_VERSION"),
            admitted: false,
            started_at,
            finished_at: started_at,
            outcome: RunOutcome::Done,
            exit_code: 0,
            error: Vec::new(),
            problems: None,
            request: None,
            resumed: false,
            requests: 0,
            retries: 0,
            page_size: None,
            pages: 0,
            page_bytes: 0,
            staged_rows: PerTable::default(),
            staged_bytes: PerTable::default(),
            staged_files: 0,
            full_pages_without_cursor: 0,
            ends_without_cursor_field: 0,
            restarted_walks: 0,
            repaired: 0,
            outside_window: 0,
            quarantined: 0,
            unreadable_times: 0,
            fields_without_column: FieldCounts::default(),
            metadata_misfits: FieldCounts::default(),
            reconciled: None,
            watermark: None,
            compacted_dates: Vec::new(),
            compacted_versions: 0,
            upgraded_partitions: 0,
            suppressed: 0,
            forgotten_rows: PerTable::default(),
            forgotten_partitions: 0,
            abandoned_backfills: 0,
            duplicates_resolved: 0,
            late_arrivals: 0,
            latest_arrival_secs: 0,
            table_rows: PerTable::default(),
            table_bytes: PerTable::default(),
            vacuumed_files: 0,
            tables: None,
            policy: None,
            hits: RuleHits::default(),
            store_calls: StoreCalls::default(),
        }
    }

    /// Records what a verification found. The process ends with another exit code if there are problems, although the run
    /// itself did not fail.
    pub fn found_problems(&mut self, problems: u64) {
        self.problems = Some(problems);
        self.exit_code = if problems == 0 { 0 } else { Kind::Integrity.exit_code() };
    }

    /// Records how the run ended; `quarantined` says that quarantined entries are the only error.
    pub fn end(&mut self, result: &Result<()>, quarantined: bool, now: DateTime<Utc>) {
        self.finished_at = now;
        if let Err(error) = result {
            self.outcome = match error.kind() {
                Kind::Interrupted => RunOutcome::Interrupted,
                _ if quarantined => RunOutcome::Quarantined,
                _ => RunOutcome::Failed,
            };
            self.exit_code = error.kind().exit_code();
            self.error = error.chain();
        }
    }

    /// Writes the report to the lake.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn save(&self, store: &Store) -> Result<()> {
        store.put(&layout::run_report(&self.run_id), to_json(self)?).await
    }

    /// Formats the report as one line of JSON.
    ///
    /// # Errors
    /// Never, short of a bug.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("cannot write the report").caused_by(error))
    }
}
