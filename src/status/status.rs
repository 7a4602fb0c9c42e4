//! The status of a lake: what it holds, and the progress of its exports.
//!
//! Guarantees: it only reads, and may run beside a writing run. In a lake with a manifest it makes three calls in two
//! round trips, whatever the lake's age.
//! Must not depend on: how a status is printed.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::error::Result;
use crate::files::{current_form, oldest_form_of_policy};
use crate::lake::{Extent, Format, Identity, Lake, Ledger, Manifest, Support, TableTotals, Walk};
use crate::model::{FieldCounts, PartitionBy, PerTable, Table, Window};
use crate::tables::{Scan, Tables, scan};

/// The status of a lake. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The lake's URL or path.
    pub lake: String,
    /// The API whose conversations it holds.
    pub base_url: String,
    /// The format of its tables.
    pub format: Format,
    /// How much time a partition covers.
    pub partition_by: PartitionBy,
    /// The newest change that is known to be in the lake; none before the first complete export.
    pub watermark: Option<DateTime<Utc>>,
    /// How long ago that was, in seconds.
    pub lag_secs: Option<i64>,
    /// When the last complete export began: every change before is in the lake.
    pub exported_at: Option<DateTime<Utc>>,
    /// Whether the API honors the filter that increments depend on, if that is known.
    pub timestamp_filter: Option<Support>,
    /// Unfinished walks, which the same command resumes.
    pub unfinished: Vec<Unfinished>,
    /// How often the API sent fields without a column, by name; they are in `extra`. Keys of `metadata` without one are
    /// named `metadata.…`.
    pub fields_without_column: FieldCounts,
    /// The staged files.
    #[serde(rename = "landing")]
    pub staging: Staging,
    /// Partitions whose files have older columns or encodings, which `upgrade` rewrites.
    pub older_partitions: u64,
    /// How many conversations were forgotten and must not come back.
    pub suppressed: u64,
    /// Whether a `forget` was interrupted; another one completes it.
    pub unfinished_forget: bool,
    /// The hash of the policy that says what may land; none if the lake has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Partitions with rows that may not follow that policy yet, to which `upgrade` applies it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier_policy_partitions: Option<u64>,
    /// Whether the lake has a manifest. If not, the tables were counted from their files, and the next compaction makes
    /// one.
    pub manifest: bool,
    /// The tables, as the last compaction left them.
    pub tables: PerTable<TableTotals>,
}

/// An unfinished walk.
#[derive(Debug, Clone, Serialize)]
pub struct Unfinished {
    /// The command that resumes it: `export`, `backfill` or `reconcile`.
    pub command: &'static str,
    /// Its window.
    pub window: Window,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// The newest change seen.
    pub newest_change: Option<DateTime<Utc>>,
    /// Pages staged.
    pub pages: u64,
    /// Versions of conversations staged.
    pub conversations: u64,
}

/// The files that wait for compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Staging {
    /// How many.
    #[serde(rename = "objects")]
    pub files: u64,
    /// Their partitions.
    pub dates: u64,
    /// Their rows and bytes.
    #[serde(flatten)]
    pub extent: Extent,
}

/// Reads the status of a lake.
///
/// # Errors
/// If there is no lake, or its store fails.
pub async fn status(lake: &Lake, now: DateTime<Utc>) -> Result<Status> {
    let (identity, ledger) = tokio::try_join!(lake.existing(), Ledger::load(lake.store()))?;
    let suppression = lake.suppression(&identity).await?;
    let state = ledger.state();
    let incremental = state.incremental.as_ref();
    let watermark = state.watermark();
    let export = incremental.and_then(|incremental| incremental.walk.as_ref());
    let mut unfinished: Vec<_> = export.map(|walk| unfinished_walk("export", walk)).into_iter().collect();
    unfinished.extend(state.backfills.iter().map(|walk| unfinished_walk("backfill", walk)));
    unfinished.extend(state.reconciliation.iter().map(|it| unfinished_walk("reconcile", &it.walk)));

    let by_date = state.staged_by_date();
    let mut staging = Staging { dates: by_date.len() as u64, ..Staging::default() };
    for (_, extent) in by_date.values().flatten() {
        staging.files += Table::ALL.len() as u64;
        staging.extent.add(extent);
    }
    let counted = match &state.manifest {
        Some(_) => None,
        None => Some(counted(lake, &identity).await?),
    };
    let manifest = state.manifest.as_ref().or(counted.as_ref());
    let tables = manifest.map(|manifest| manifest.tables).unwrap_or_default();
    let older_partitions = manifest.map_or(0, |manifest| manifest.older_than(current_form(&identity.columns())));
    let policy = identity.policy_hash().map(str::to_owned);
    let earlier = |manifest: &Manifest| manifest.older_than(oldest_form_of_policy(&identity.columns()));
    let earlier_policy_partitions = policy.as_ref().map(|_| manifest.map_or(0, earlier));
    Ok(Status {
        lake: lake.url().to_owned(),
        base_url: identity.base_url,
        format: identity.format,
        partition_by: identity.partition_by,
        watermark,
        exported_at: incremental.and_then(|incremental| incremental.exported_at),
        lag_secs: watermark.map(|watermark| (now - watermark).num_seconds()),
        timestamp_filter: state.filter_support.known,
        fields_without_column: state.fields_without_column.clone(),
        unfinished,
        staging,
        older_partitions,
        suppressed: suppression.len() as u64,
        unfinished_forget: suppression.is_unfinished(),
        policy,
        earlier_policy_partitions,
        manifest: state.manifest.is_some(),
        tables,
    })
}

impl Unfinished {
    /// The command line that resumes it, without the lake.
    pub fn resume(&self) -> String {
        let Window { filter, from, to } = self.window;
        let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let bound =
            |name, at: Option<DateTime<Utc>>| at.map_or_else(String::new, |at| format!(" --{name} {}", time(at)));
        let filter = match self.command {
            "backfill" => format!(" --timestamp-filter {}", filter.as_str()),
            _ => String::new(),
        };
        match self.command {
            "export" => "export".to_owned(),
            command => format!("{command}{}{}{filter}", bound("from", from), bound("to", to)),
        }
    }
}

fn unfinished_walk(command: &'static str, walk: &Walk) -> Unfinished {
    Unfinished {
        command,
        window: walk.request.window,
        started_at: walk.started_at,
        newest_change: walk.newest_change,
        pages: walk.pages,
        conversations: walk.conversations,
    }
}

/// Makes a manifest from the footers of all files, for a lake without one.
async fn counted(lake: &Lake, identity: &Identity) -> Result<Manifest> {
    let tables = Tables::of(lake.store(), identity)?;
    let Scan { entries, unreadable } = scan(lake, &tables, None).await?;
    match unreadable.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Manifest::of(entries)),
    }
}
