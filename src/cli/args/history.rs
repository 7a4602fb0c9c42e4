//! What can be typed of how much a lake keeps of its past.

use std::time::Duration;

use clap::{Args, value_parser};

use crate::lake::History;

/// How much a lake keeps of its past.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// How many run reports to keep in _state/runs
    #[arg(long, env = "DECAGON_KEEP_REPORTS", value_name = "N", default_value_t = 1_000, hide_short_help = true,
        value_parser = value_parser!(u32).range(1..))]
    pub(in crate::cli) keep_reports: u32,
    /// How long to keep files in _state/quarantine, after a run has ended with exit code 6 for them
    #[arg(long, env = "DECAGON_KEEP_QUARANTINE", value_name = "DURATION", default_value = "90d", hide_short_help = true,
        value_parser = humantime::parse_duration)]
    pub(in crate::cli) keep_quarantine: Duration,
}

impl HistoryArgs {
    /// The same as settings.
    pub(in crate::cli) fn history(&self) -> History {
        History { reports: usize::try_from(self.keep_reports).unwrap_or(usize::MAX), quarantine: self.keep_quarantine }
    }
}
