//! Flags that most commands share: the lake, the form of the result, and the metrics file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{BoolishValueParser, PathBufValueParser, StringValueParser};

use super::heading::OUTPUT;
use super::place::place;
use super::store::StoreArgs;
use crate::clock::Clock;
use crate::error::Result;
use crate::lake::Lake;

/// The lake, and the form of the result. All that `status` has.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct LakeArgs {
    /// Use this lake: a path or a URL (s3://bucket/prefix, gs://bucket/prefix, az://container/prefix)
    #[arg(long, display_order = 0, env = "DECAGON_LAKE", value_name = "URL",
        value_parser = place(StringValueParser::new()))]
    pub(in crate::cli) lake: String,
    /// Print the result as JSON on stdout
    #[arg(long, env = "DECAGON_JSON", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) store: StoreArgs,
}

impl LakeArgs {
    /// Opens the lake.
    ///
    /// # Errors
    /// If no store has such an address.
    pub(in crate::cli) fn open(&self, clock: Clock) -> Result<Lake> {
        Lake::open(&self.lake, &self.store.options(), clock)
    }
}

/// Where a run writes its metrics.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct MetricsArgs {
    /// Write the run's metrics to this file, also if the run fails
    ///
    /// The text-file collector of Prometheus reads files named *.prom. Other commands and lakes may share the file.
    #[arg(long, help_heading = OUTPUT, env = "DECAGON_METRICS_FILE", value_name = "FILE",
        value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) metrics_file: Option<PathBuf>,
}
