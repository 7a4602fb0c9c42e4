//! Flags of `report` and `status`.

use clap::Args;
use clap::builder::{BoolishValueParser, RangedU64ValueParser, StringValueParser};

use super::lake::LakeArgs;
use super::place::place;
use crate::report::ReportSettings;

/// The most days of a page: ten years.
const MOST_DAYS: u64 = 3_660;

/// `report`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ReportArgs {
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
    /// Write the page here: a file, a URL of a store, or - for stdout
    #[arg(long, env = "DECAGON_REPORT_OUT", value_name = "FILE", default_value = "report.html",
        value_parser = place(StringValueParser::new()))]
    pub(in crate::cli) out: String,
    /// Show this many days; they end with the day of the last complete export
    #[arg(long, env = "DECAGON_REPORT_DAYS", value_name = "N", default_value_t = 90,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..=MOST_DAYS))]
    days: u64,
    /// Show the summaries of the longest conversations, which may name people
    #[arg(long, env = "DECAGON_REPORT_WITH_SUMMARIES", value_parser = BoolishValueParser::new())]
    with_summaries: bool,
    /// Verify the whole lake first, and show the result
    #[arg(long, env = "DECAGON_REPORT_VERIFY", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) verify: bool,
}

impl ReportArgs {
    /// The same as settings.
    pub(in crate::cli) fn settings(&self) -> ReportSettings {
        ReportSettings { days: self.days, with_summaries: self.with_summaries }
    }
}

/// `status`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
    /// Follow the run in progress until it has ended; with --json, print a line at each change
    #[arg(long, env = "DECAGON_WATCH", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) watch: bool,
}
