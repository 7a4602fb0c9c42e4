//! Flags of the commands that fetch: `sync`, `export` and `backfill`.

use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use clap::builder::BoolishValueParser;
use clap::{Args, value_parser};

use super::api::ApiArgs;
use super::choice::{choice, partition_by, timestamp_filter};
use super::compact::RetainArgs;
use super::heading::TUNING;
use super::lake::{LakeArgs, MetricsArgs};
use super::policy::{PolicyArgs, PolicyKeyArgs};
use super::retention::HistoryArgs;
use crate::export::{OnBadRecord, OnIgnoredFilter};
use crate::lake::Format;
use crate::model::{MetadataColumn, PartitionBy, TimestampFilter, parse_user_time};

/// When fetched rows are written to staging.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FlushArgs {
    /// Write staged files after this many conversations
    #[arg(long, help_heading = TUNING, env = "DECAGON_FLUSH_CONVERSATIONS", value_name = "N", default_value_t = 16_000,
        hide_short_help = true)]
    pub(in crate::cli) flush_conversations: u64,
    /// Write staged files after this much JSON, which takes about as much memory
    #[arg(long, help_heading = TUNING, env = "DECAGON_FLUSH_BYTES", value_name = "SIZE", default_value = "32MiB",
        hide_short_help = true)]
    pub(in crate::cli) flush_bytes: ByteSize,
    /// Write staged files after this much time
    #[arg(long, help_heading = TUNING, env = "DECAGON_FLUSH_INTERVAL", value_name = "DURATION", default_value = "5m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(in crate::cli) flush_interval: Duration,
}

/// What `sync`, `export` and `backfill` have in common.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct FetchArgs {
    #[command(flatten)]
    pub(in crate::cli) api: ApiArgs,
    #[command(flatten)]
    pub(in crate::cli) to: LakeArgs,
    /// Choose the format of the tables when the lake is made; it never changes [default: parquet]
    #[arg(long, env = "DECAGON_FORMAT", value_parser = choice([
        (Format::Parquet, Format::Parquet.name(), "One Parquet file per partition, replaced by a single write"),
        (Format::Delta, Format::Delta.name(), "Delta Lake: snapshots, time travel, files that stay while they are read"),
    ]))]
    pub(in crate::cli) format: Option<Format>,
    /// Choose the partitions of the tables when the lake is made; they never change [default: day]
    #[arg(long, env = "DECAGON_PARTITION_BY", value_parser = partition_by())]
    pub(in crate::cli) partition_by: Option<PartitionBy>,
    /// Give these keys of `metadata` a column each, as in plan,order_total:double,vip:boolean
    ///
    /// The columns are named metadata_plan, metadata_order_total, …; their types are text (the default), bigint,
    /// double, boolean and timestamp. The lake keeps them, so later runs need not name them again, and may name more.
    #[arg(long, env = "DECAGON_METADATA_COLUMNS", value_name = "KEY[:TYPE],…", value_delimiter = ',')]
    pub(in crate::cli) metadata_columns: Vec<MetadataColumn>,
    /// Discard the interrupted walk and start over
    ///
    /// Without it, a run continues the walk that an earlier run of the same command left unfinished.
    #[arg(long, env = "DECAGON_RESTART", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) restart: bool,
    /// Choose what to do with malformed entries
    #[arg(long, env = "DECAGON_ON_BAD_RECORD", value_name = "ACTION", default_value = "quarantine",
        value_parser = choice([
            (OnBadRecord::Quarantine, "quarantine", "Keep them apart in _state/quarantine, and exit with 6 at the end"),
            (OnBadRecord::Fail, "fail", "Stop at the first one"),
        ]))]
    pub(in crate::cli) on_bad_record: OnBadRecord,
    #[command(flatten)]
    pub(in crate::cli) policy: PolicyArgs,
    #[command(flatten)]
    pub(in crate::cli) policy_key: PolicyKeyArgs,
    #[command(flatten)]
    pub(in crate::cli) flush: FlushArgs,
    #[command(flatten)]
    pub(in crate::cli) history: HistoryArgs,
    #[command(flatten)]
    pub(in crate::cli) metrics: MetricsArgs,
}

/// `export`, and the first half of `sync`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    pub(in crate::cli) fetch: FetchArgs,
    /// Re-fetch changes from this long before the watermark, in case the API published them late
    #[arg(long, env = "DECAGON_OVERLAP", value_name = "DURATION", default_value = "10m",
        value_parser = humantime::parse_duration)]
    pub(in crate::cli) overlap: Duration,
    /// Choose what to do if the API ignores timestamp_filter and so cannot return changes only
    #[arg(long, env = "DECAGON_ON_IGNORED_FILTER", value_name = "ACTION", default_value = "fail",
        value_parser = choice([
            (OnIgnoredFilter::Fail, "fail", "Exit with 3"),
            (OnIgnoredFilter::Full, "full", "Walk the whole history"),
        ]))]
    pub(in crate::cli) on_ignored_filter: OnIgnoredFilter,
}

/// `sync`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SyncArgs {
    #[command(flatten)]
    pub(in crate::cli) export: ExportArgs,
    /// Compact after this many pages of a long walk, so that the tables fill before its end
    #[arg(long, help_heading = TUNING, env = "DECAGON_COMPACT_EVERY", value_name = "PAGES", default_value_t = 2_000,
        hide_short_help = true, value_parser = value_parser!(u64).range(1..))]
    pub(in crate::cli) compact_every: u64,
    #[command(flatten)]
    pub(in crate::cli) keep: RetainArgs,
}

/// `backfill`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BackfillArgs {
    #[command(flatten)]
    pub(in crate::cli) fetch: FetchArgs,
    /// Begin the range at this time: RFC 3339, YYYY-MM-DD (midnight UTC) or epoch seconds
    #[arg(long, display_order = 3, env = "DECAGON_FROM", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) from: DateTime<Utc>,
    /// End the range before this time
    #[arg(long, display_order = 4, env = "DECAGON_TO", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) to: DateTime<Utc>,
    /// Choose the time of a conversation that the range applies to
    #[arg(long, display_order = 5, env = "DECAGON_TIMESTAMP_FILTER", value_name = "FIELD",
        default_value = TimestampFilter::UpdatedAt.as_str(), value_parser = timestamp_filter())]
    pub(in crate::cli) timestamp_filter: TimestampFilter,
}
