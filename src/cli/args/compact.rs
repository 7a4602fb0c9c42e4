//! What can be typed of a compaction.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::{HistoryArgs, LakeArgs, MetricsArgs};
use crate::error::{Error, Result};

/// The shortest time that is taken without `--force-short-retain`.
const SHORTEST: Duration = Duration::from_secs(3_600);

/// What a compaction leaves to others.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RetainArgs {
    /// For how long Delta tables keep what was replaced: for readers under way, and for time travel
    #[arg(long, env = "DECAGON_RETAIN", value_name = "DURATION", default_value = "7d",
        value_parser = humantime::parse_duration)]
    retain: Duration,
    /// Allow --retain below 1h: readers under way, and commits of other writers, then lose the files they work with
    #[arg(long, env = "DECAGON_FORCE_SHORT_RETAIN", value_parser = BoolishValueParser::new(), hide_short_help = true)]
    force_short_retain: bool,
}

impl RetainArgs {
    /// For how long Delta tables keep what was replaced.
    ///
    /// # Errors
    /// If that is less than an hour and was not forced.
    pub(in crate::cli) fn retain(&self) -> Result<Duration> {
        if self.retain >= SHORTEST || self.force_short_retain {
            return Ok(self.retain);
        }
        Err(Error::usage(format!("--retain {} is below 1h", humantime::format_duration(self.retain))).with_hint(
            "readers under way lose files that are removed this early; give --retain 1h or more, or \
             --force-short-retain if nothing else reads or writes these tables",
        ))
    }
}

/// `compact`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CompactArgs {
    #[command(flatten)]
    pub(in crate::cli) keep: RetainArgs,
    #[command(flatten)]
    pub(in crate::cli) history: HistoryArgs,
    #[command(flatten)]
    pub(in crate::cli) metrics: MetricsArgs,
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
}
