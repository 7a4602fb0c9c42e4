//! What a run did, kept in the lake as `_state/runs/<run>.json` and printed with `--json`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::layout;
use crate::model::{CreatedDate, PerTable, Request, RunId};
use crate::store::{Store, StoreCalls, to_json};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It did what it was asked to.
    Done,
    /// It did what it was asked to, but it, or a run before it, has set something aside that is no conversation.
    #[serde(rename = "set_aside")]
    Quarantined,
    /// It was asked to stop; the next run goes on from there.
    Interrupted,
    /// It failed; `error` says why.
    Failed,
}

/// The report of one run. Fields only get added.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The run.
    pub run_id: RunId,
    /// The command: `export`, `backfill`, `compact`, `sync` or `verify`.
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
    /// The error and its causes, where it failed.
    pub error: Vec<String>,
    /// What it asked the API for, where it did.
    pub request: Option<Request>,
    /// Whether it went on with a walk that an earlier run began.
    pub resumed: bool,
    /// Requests sent, retries included.
    pub requests: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Pages fetched.
    pub pages: u64,
    /// Bytes of the pages.
    pub page_bytes: u64,
    /// Rows landed.
    pub landed_rows: PerTable<u64>,
    /// Bytes landed.
    pub landed_bytes: PerTable<u64>,
    /// Landing objects written.
    pub landed_objects: u64,
    /// Pages that were full and yet had no cursor: the true end, or one that the API has renamed.
    pub full_pages_without_cursor: u64,
    /// Walks that ended with an empty page that had no field for a cursor, where the pages before it had one.
    pub ends_without_cursor_field: u64,
    /// Walks that were begun anew because the API refused the cursor that an earlier run had stored.
    pub restarted_walks: u64,
    /// Conversations that came as malformed JSON and were repaired.
    pub repaired: u64,
    /// Copies that lay outside the range that was asked for; those of a backfill were left out.
    pub outside_window: u64,
    /// Entries that are no conversations and were set aside, those of earlier runs that could not tell included.
    pub quarantined: u64,
    /// Values that were to be times and could not be read; they are in `extra`.
    pub unreadable_times: u64,
    /// The newest change that is now known to be in the lake.
    pub watermark: Option<DateTime<Utc>>,
    /// Dates whose tables were written anew.
    pub compacted_dates: Vec<CreatedDate>,
    /// Copies of conversations that the compaction read.
    pub compacted_copies: u64,
    /// Copies that a newer copy of the same conversation replaced.
    pub duplicates_resolved: u64,
    /// Conversations that an increment was the first to show although they had changed before the watermark.
    pub late_arrivals: u64,
    /// The longest time that one of them had changed before it, in seconds, rounded up.
    pub latest_arrival_secs: u64,
    /// Rows of the tables that were written anew.
    pub table_rows: PerTable<u64>,
    /// Bytes of the tables that were written anew.
    pub table_bytes: PerTable<u64>,
    /// Objects that Delta tables had no use for any more, and were removed.
    pub vacuumed_objects: usize,
    /// Calls to the store, up to the writing of this report.
    pub store_calls: StoreCalls,
}

impl RunReport {
    /// The report of a run that has just begun.
    pub fn new(command: &'static str, run_id: RunId, started_at: DateTime<Utc>) -> Self {
        RunReport {
            run_id,
            command,
            version: env!("CARGO_PKG_VERSION"),
            admitted: false,
            started_at,
            finished_at: started_at,
            outcome: RunOutcome::Done,
            error: Vec::new(),
            request: None,
            resumed: false,
            requests: 0,
            retries: 0,
            pages: 0,
            page_bytes: 0,
            landed_rows: PerTable::default(),
            landed_bytes: PerTable::default(),
            landed_objects: 0,
            full_pages_without_cursor: 0,
            ends_without_cursor_field: 0,
            restarted_walks: 0,
            repaired: 0,
            outside_window: 0,
            quarantined: 0,
            unreadable_times: 0,
            watermark: None,
            compacted_dates: Vec::new(),
            compacted_copies: 0,
            duplicates_resolved: 0,
            late_arrivals: 0,
            latest_arrival_secs: 0,
            table_rows: PerTable::default(),
            table_bytes: PerTable::default(),
            vacuumed_objects: 0,
            store_calls: StoreCalls::default(),
        }
    }

    /// Records how the run ended; `set_aside` where that it has set something aside is all that is wrong.
    pub fn end(&mut self, result: &Result<()>, set_aside: bool, now: DateTime<Utc>) {
        self.finished_at = now;
        if let Err(error) = result {
            self.outcome = match error.kind() {
                Kind::Interrupted => RunOutcome::Interrupted,
                _ if set_aside => RunOutcome::Quarantined,
                _ => RunOutcome::Failed,
            };
            self.error = error.chain();
        }
    }

    /// Leaves the report in the lake.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn save(&self, store: &Store) -> Result<()> {
        store.put(&layout::run_report(&self.run_id), to_json(self)?).await
    }

    /// The report as one line of JSON.
    ///
    /// # Errors
    /// Never, short of a bug.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("cannot write the report").caused_by(error))
    }
}
