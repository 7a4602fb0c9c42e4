//! Flags of `compact` and `upgrade`, and those that `sync` shares with them.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use url::Url;

use super::heading::RETENTION;
use super::lake::{LakeArgs, MetricsArgs};
use super::place::place;
use super::policy::{PolicyArgs, PolicyKeyArgs};
use super::retention::HistoryArgs;
use crate::error::{Error, Result};
use crate::model::MetadataColumn;

/// The shortest `--retain` without `--force-short-retain`.
const SHORTEST: Duration = Duration::from_secs(3_600);

/// How long a compaction keeps the files that it replaced.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RetainArgs {
    /// Keep replaced files of Delta tables for this long, for running queries and time travel
    #[arg(long, help_heading = RETENTION, env = "DECAGON_RETAIN", value_name = "DURATION", default_value = "7d",
        value_parser = humantime::parse_duration)]
    retain: Duration,
    /// Allow --retain below 1h, which takes files away from running queries and from commits of other writers
    #[arg(long, help_heading = RETENTION, env = "DECAGON_FORCE_SHORT_RETAIN", value_parser = BoolishValueParser::new(),
        hide_short_help = true)]
    force_short_retain: bool,
}

impl RetainArgs {
    /// The time for which Delta tables keep replaced files.
    ///
    /// # Errors
    /// If it is below an hour and not forced.
    pub(in crate::cli) fn retain(&self) -> Result<Duration> {
        if self.retain >= SHORTEST || self.force_short_retain {
            return Ok(self.retain);
        }
        Err(Error::usage(format!("--retain {} is below 1h", humantime::format_duration(self.retain))).with_hint(
            "running queries lose files that are removed this early; use --retain 1h or more, or \
             --force-short-retain if nothing else reads or writes these tables",
        ))
    }
}

/// `compact`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CompactArgs {
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
    #[command(flatten)]
    pub(in crate::cli) keep: RetainArgs,
    #[command(flatten)]
    pub(in crate::cli) policy_key: PolicyKeyArgs,
    #[command(flatten)]
    pub(in crate::cli) history: HistoryArgs,
    #[command(flatten)]
    pub(in crate::cli) metrics: MetricsArgs,
}

/// `upgrade`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct UpgradeArgs {
    /// Move the lake to this address of the API, to which its account has moved
    ///
    /// A lake belongs to one address; `sync` refuses another. DECAGON_BASE_URL does not count here, so that no run
    /// moves a lake by accident.
    #[arg(long, env = "DECAGON_UPGRADE_BASE_URL", value_name = "URL", value_parser = place(Url::parse))]
    pub(in crate::cli) base_url: Option<Url>,
    /// Give these keys of `metadata` a column each, as in plan,order_total:double,vip:boolean, also in existing rows
    ///
    /// The columns are named metadata_plan, metadata_order_total, …; their types are text (the default), bigint,
    /// double, boolean and timestamp. The lake keeps them.
    #[arg(long, env = "DECAGON_METADATA_COLUMNS", value_name = "KEY[:TYPE],…", value_delimiter = ',')]
    pub(in crate::cli) metadata_columns: Vec<MetadataColumn>,
    /// Give up the unfinished backfills; the conversations that they have fetched stay
    #[arg(long, env = "DECAGON_ABANDON_BACKFILL", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) abandon_backfill: bool,
    #[command(flatten)]
    pub(in crate::cli) policy: PolicyArgs,
    #[command(flatten)]
    pub(in crate::cli) compact: CompactArgs,
}
