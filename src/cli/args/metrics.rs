//! Where a run leaves its figures, as it can be typed.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PathBufValueParser;

use super::place::place;

/// Where a run leaves its figures.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct MetricsArgs {
    /// Leave the figures of the run in this file, for the text-file collector of Prometheus (which wants *.prom)
    #[arg(long, env = "DECAGON_METRICS_FILE", value_name = "FILE", value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) metrics_file: Option<PathBuf>,
}
