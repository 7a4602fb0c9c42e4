//! What can be typed of a compaction.

use std::time::Duration;

use clap::Args;

use super::{HistoryArgs, LakeArgs, MetricsArgs};

/// What a compaction leaves to others.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct RetainArgs {
    /// For how long Delta tables keep what was replaced: for readers under way, and for time travel
    #[arg(long, env = "DECAGON_RETAIN", value_name = "DURATION", default_value = "7d",
        value_parser = humantime::parse_duration)]
    pub(in crate::cli) retain: Duration,
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
