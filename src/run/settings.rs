//! What a run can be told, with the defaults that suit most accounts. Knows no command line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::export::{FlushPolicy, OnBadRecord, OnIgnoredFilter, Progress};
use crate::lake::{Format, History};
use crate::model::TimestampFilter;

/// How a program goes along with a run.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Cancelled to stop the run where it is safe; the next run goes on from there.
    pub shutdown: CancellationToken,
    /// Receives the progress of the walk under way: `None` before and after it. Subscribe before the run begins.
    pub progress: watch::Sender<Option<Progress>>,
}

/// What `export`, `sync` and `backfill` have in common.
#[derive(Debug, Clone, Default)]
pub struct FetchSettings {
    /// Discards an interrupted walk and starts over.
    pub restart: bool,
    /// How many conversations to ask for at once; `None` lets the API decide.
    pub page_size: Option<u32>,
    /// Restricts the lake to some users: the API's `user_filters`.
    pub user_filters: Option<Value>,
    /// How the tables of a new lake are kept; `None` takes an existing lake as it is.
    pub format: Option<Format>,
    /// What becomes of a malformed entry.
    pub on_bad_record: OnBadRecord,
    /// When fetched rows are staged.
    pub flush: FlushPolicy,
    /// How much the lake keeps of its past.
    pub history: History,
    /// How the program goes along.
    pub control: Control,
}

/// An export of what changed.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// How long before the watermark changes are fetched again, in case the API published them late.
    pub overlap: Duration,
    /// What to do if the API ignores `timestamp_filter`.
    pub on_ignored_filter: OnIgnoredFilter,
    /// What all that fetch have in common.
    pub fetch: FetchSettings,
}

impl Default for ExportSettings {
    fn default() -> Self {
        let (overlap, on_ignored_filter) = (Duration::from_secs(600), OnIgnoredFilter::Fail);
        ExportSettings { overlap, on_ignored_filter, fetch: FetchSettings::default() }
    }
}

/// An export of a range of time.
#[derive(Debug, Clone)]
pub struct BackfillSettings {
    /// The first instant of the range.
    pub from: DateTime<Utc>,
    /// The first instant after the range.
    pub to: DateTime<Utc>,
    /// Which time of a conversation the range means.
    pub timestamp_filter: TimestampFilter,
    /// What all that fetch have in common.
    pub fetch: FetchSettings,
}

/// How long Delta tables keep replaced files if nothing else is said.
const RETAIN: Duration = Duration::from_secs(7 * 86_400);

/// An export of what changed, followed by a compaction.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// What is fetched.
    pub export: ExportSettings,
    /// How long Delta tables keep files that were replaced.
    pub retain: Duration,
    /// After how many pages of a long walk its staged files are compacted, so that there are tables before its end.
    pub compact_every_pages: u64,
}

impl Default for SyncSettings {
    fn default() -> Self {
        SyncSettings { export: ExportSettings::default(), retain: RETAIN, compact_every_pages: 2_000 }
    }
}

/// A compaction.
#[derive(Debug, Clone)]
pub struct CompactSettings {
    /// How long Delta tables keep files that were replaced.
    pub retain: Duration,
    /// How much the lake keeps of its past.
    pub history: History,
    /// How the program goes along.
    pub control: Control,
}

impl Default for CompactSettings {
    fn default() -> Self {
        CompactSettings { retain: RETAIN, history: History::default(), control: Control::default() }
    }
}
