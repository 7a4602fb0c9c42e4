//! Flags for how long a lake keeps its past.

use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;

use super::heading::RETENTION;
use crate::lake::History;

/// How many run reports, and how long quarantined entries, stay in a lake.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct HistoryArgs {
    /// Keep this many run reports in _state/runs
    #[arg(long, help_heading = RETENTION, env = "DECAGON_KEEP_REPORTS", value_name = "N", default_value_t = 1_000,
        hide_short_help = true, value_parser = RangedU64ValueParser::<usize>::new().range(1..=u32::MAX.into()))]
    keep_reports: usize,
    /// Keep files in _state/quarantine for this long after a run has ended with exit code 6 because of them
    #[arg(long, help_heading = RETENTION, env = "DECAGON_KEEP_QUARANTINE", value_name = "DURATION",
        default_value = "90d", hide_short_help = true, value_parser = humantime::parse_duration)]
    keep_quarantine: Duration,
}

impl HistoryArgs {
    /// The same as settings.
    pub(in crate::cli) fn history(&self) -> History {
        History { reports: self.keep_reports, quarantine: self.keep_quarantine }
    }
}
