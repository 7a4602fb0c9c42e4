//! Flags of `compact`, and those that `sync` shares with it.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::heading::RETENTION;
use super::lake::{LakeArgs, MetricsArgs};
use super::retention::HistoryArgs;
use crate::error::{Error, Result};

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
    pub(in crate::cli) history: HistoryArgs,
    #[command(flatten)]
    pub(in crate::cli) metrics: MetricsArgs,
}
