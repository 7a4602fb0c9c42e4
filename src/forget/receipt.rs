//! The receipt of an erasure: what was done, when and why, and what could not be reached. It says nothing of the person.
//! Kept as `_state/receipts/<run>.json` and printed with `--json`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::layout;
use crate::model::{PerTable, RunId};
use crate::store::{Remains, Store, to_json};

/// A receipt. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct Receipt {
    /// The run; none for a dry run.
    pub run_id: Option<RunId>,
    /// The version of this program.
    pub version: &'static str,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When everything was erased.
    pub finished_at: DateTime<Utc>,
    /// The machine that it ran on.
    pub host: String,
    /// Why, in the words of who asked for it.
    pub reason: Option<String>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The conversations that were chosen and that the lake did not suppress before.
    pub conversations: u64,
    /// The conversations that may come back now; none if the run erased.
    pub lifted: Option<u64>,
    /// The conversations that the lake suppresses now.
    pub suppressed: u64,
    /// The rows that were erased from the tables and from staged files; in a dry run, only the conversations.
    pub rows: PerTable<u64>,
    /// The partitions whose table files were replaced. Each has one file per table.
    pub partitions: u64,
    /// The staged files of conversations that held them.
    pub staged_files: u64,
    /// Files of earlier versions of Delta tables that were deleted.
    pub old_files: PerTable<u64>,
    /// Parts of the logs of Delta tables that were deleted.
    pub log_parts: u64,
    /// What was erased from `_state`.
    #[serde(flatten)]
    pub traces: Traces,
    /// What could not be reached.
    pub not_reached: Vec<Remains>,
}

/// Files of earlier versions of Delta tables that held the conversations.
#[derive(Debug, Clone, Default)]
pub struct OldFiles {
    /// How many were deleted.
    pub deleted: PerTable<u64>,
    /// Those that could not be read.
    pub unreadable: u64,
}

/// What was erased from the lake's own objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Traces {
    /// Quarantined entries.
    pub quarantined_entries: u64,
    /// Run reports from which something was erased.
    pub reports: u64,
    /// Checkpoints that were deleted; the newest stays.
    pub checkpoints: u64,
}

impl Receipt {
    /// Writes it to the lake.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn save(&self, store: &Store) -> Result<()> {
        match &self.run_id {
            Some(run_id) => store.put(&layout::receipt(run_id), to_json(self)?).await,
            None => Ok(()),
        }
    }

    /// Formats it as one line of JSON.
    ///
    /// # Errors
    /// Never, short of a bug.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::bug("cannot write the receipt").caused_by(error))
    }
}
