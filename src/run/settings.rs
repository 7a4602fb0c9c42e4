//! The settings of a run, with defaults that suit most accounts. Must not depend on: the command line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::export::{FlushPolicy, OnBadRecord, OnIgnoredFilter, Progress};
use crate::lake::{Format, History};
use crate::model::{MetadataColumn, PageSizeChoice, PartitionBy, Selector, TimestampFilter};
use crate::policy::{Policy, PolicyKey};

/// Stops a run and follows its progress.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Stops the run at a safe point when it is cancelled; the next run continues from there.
    pub shutdown: CancellationToken,
    /// Receives the progress of the current walk: `None` before and after it. Subscribe before the run starts.
    pub progress: watch::Sender<Option<Progress>>,
}

/// The settings that `export`, `sync` and `backfill` share.
#[derive(Debug, Clone, Default)]
pub struct FetchSettings {
    /// Discards an interrupted walk and starts over.
    pub restart: bool,
    /// How many conversations to request per page.
    pub page_size: PageSizeChoice,
    /// Restricts the lake to some users: the API's `user_filters`.
    pub user_filters: Option<Value>,
    /// The table format of a new lake; `None` means the default, or the format of an existing lake.
    pub format: Option<Format>,
    /// How much time a partition of a new lake covers; `None` means a day, or the partitions of an existing lake.
    pub partition_by: Option<PartitionBy>,
    /// Keys of the conversations' `metadata` that get a column; the lake keeps those that it has.
    pub metadata_columns: Vec<MetadataColumn>,
    /// What of the conversations may land; `None` means the policy that the lake has, if any.
    pub policy: Option<Policy>,
    /// The key of the hashes that a policy asks for.
    pub policy_key: Option<PolicyKey>,
    /// What to do with a malformed entry.
    pub on_bad_record: OnBadRecord,
    /// When fetched rows are staged.
    pub flush: FlushPolicy,
    /// How many run reports and quarantine files stay in the lake, and for how long.
    pub history: History,
    /// Stops the run and follows its progress.
    pub control: Control,
}

/// An export of the changes.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// From how long before the watermark changes are fetched again, in case the API published them late.
    pub overlap: Duration,
    /// What to do if the API ignores `timestamp_filter`.
    pub on_ignored_filter: OnIgnoredFilter,
    /// The settings that all fetching commands share.
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
    /// The time of a conversation that the range applies to.
    pub timestamp_filter: TimestampFilter,
    /// The settings that all fetching commands share.
    pub fetch: FetchSettings,
}

/// How long Delta tables keep replaced files by default.
const RETAIN: Duration = Duration::from_secs(7 * 86_400);

/// An export of the changes, followed by a compaction.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// The settings of the export.
    pub export: ExportSettings,
    /// How long Delta tables keep replaced files.
    pub retain: Duration,
    /// How many pages a long walk fetches between two compactions, so that the tables have rows before it ends.
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
    /// How long Delta tables keep replaced files.
    pub retain: Duration,
    /// How many run reports and quarantine files stay in the lake, and for how long.
    pub history: History,
    /// The key of the hashes that the lake's policy asks for.
    pub policy_key: Option<PolicyKey>,
    /// Stops the run and follows its progress.
    pub control: Control,
}

impl Default for CompactSettings {
    fn default() -> Self {
        CompactSettings { retain: RETAIN, history: History::default(), policy_key: None, control: Control::default() }
    }
}

/// An erasure.
#[derive(Debug, Clone, Default)]
pub struct ForgetSettings {
    /// The conversations to erase: those that any of these chooses. None completes an erasure that was interrupted. Values
    /// are looked for as they are and, with a policy's key, as their hashes.
    pub selectors: Vec<Selector>,
    /// Lets the conversations come back instead of erasing them.
    pub lift: bool,
    /// Changes nothing, and says what would be erased.
    pub dry_run: bool,
    /// Why, and who asked for it; goes into the receipt.
    pub reason: Option<String>,
    /// The settings of the compaction that erases.
    pub compact: CompactSettings,
}

/// An upgrade.
#[derive(Debug, Clone, Default)]
pub struct UpgradeSettings {
    /// The API that the lake's conversations come from, from now on; `None` means the same as before.
    pub base_url: Option<String>,
    /// Keys of the conversations' `metadata` that get a column, also of what the lake holds already.
    pub metadata_columns: Vec<MetadataColumn>,
    /// What of the conversations may land, and of what the lake holds already may stay; `None` means the policy that the
    /// lake has, if any.
    pub policy: Option<Policy>,
    /// Gives up the unfinished backfills.
    pub abandon_backfill: bool,
    /// The settings of the compaction that comes first.
    pub compact: CompactSettings,
}

/// What a reconciliation does about conversations that the API no longer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDeleted {
    /// Reports them.
    #[default]
    Report,
    /// Marks them in `deleted_at`.
    Mark,
    /// Removes their rows from all four tables.
    Remove,
}

impl OnDeleted {
    /// The name in flags and reports.
    pub fn name(self) -> &'static str {
        match self {
            OnDeleted::Report => "report",
            OnDeleted::Mark => "mark",
            OnDeleted::Remove => "remove",
        }
    }
}

/// How many conversations a reconciliation may find to be gone before it stops.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDeleted {
    /// So many.
    Count(u64),
    /// So many of a hundred that the lake has in the range.
    Percent(f64),
}

impl MaxDeleted {
    /// Whether `gone` of the `here` conversations are too many.
    pub fn is_exceeded(self, gone: u64, here: u64) -> bool {
        match self {
            MaxDeleted::Count(most) => gone > most,
            #[expect(clippy::cast_precision_loss, reason = "no lake has 2^53 conversations")]
            MaxDeleted::Percent(most) => gone as f64 * 100.0 > most * here as f64,
        }
    }
}

impl std::fmt::Display for MaxDeleted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MaxDeleted::Count(most) => write!(f, "{most}"),
            MaxDeleted::Percent(most) => write!(f, "{most}%"),
        }
    }
}

/// A comparison of the lake with the API.
#[derive(Debug, Clone)]
pub struct ReconcileSettings {
    /// The first `created_at` of the range; `None` means the beginning of the history.
    pub from: Option<DateTime<Utc>>,
    /// The end of the range; `None` means [`ReconcileSettings::RECENT`] ago, because newer ones may not be published.
    pub to: Option<DateTime<Utc>>,
    /// What to do about conversations that are gone.
    pub on_deleted: OnDeleted,
    /// How many may be gone.
    pub max_deleted: MaxDeleted,
    /// Discards an interrupted reconciliation and starts over.
    pub restart: bool,
    /// How many conversations to request per page.
    pub page_size: PageSizeChoice,
    /// The API's `user_filters`, which must be those of the lake.
    pub user_filters: Option<Value>,
    /// When fetched rows are staged.
    pub flush: FlushPolicy,
    /// The settings of its compactions.
    pub compact: CompactSettings,
}

impl ReconcileSettings {
    /// How long before a reconciliation the range ends, if the user gives no end.
    pub const RECENT: Duration = Duration::from_secs(600);
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        ReconcileSettings {
            from: None,
            to: None,
            on_deleted: OnDeleted::default(),
            max_deleted: MaxDeleted::Percent(1.0),
            restart: false,
            page_size: PageSizeChoice::default(),
            user_filters: None,
            flush: FlushPolicy::default(),
            compact: CompactSettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_limit_is_too_many() {
        let percent = MaxDeleted::Percent(1.0);
        assert_eq!(
            [(1, 100), (2, 199), (1, 99), (0, 0)].map(|(gone, here)| percent.is_exceeded(gone, here)),
            [false, true, true, false]
        );
        assert!(!MaxDeleted::Count(3).is_exceeded(3, 3) && MaxDeleted::Count(3).is_exceeded(4, 900));
        assert_eq!(
            [percent, MaxDeleted::Percent(0.5), MaxDeleted::Count(7)].map(|it| it.to_string()),
            ["1%", "0.5%", "7"]
        );
    }
}
