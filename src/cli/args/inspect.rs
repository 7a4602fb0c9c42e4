//! Flags of the commands that look at a lake: `verify`, `views` and `check`. `status` has only those of the lake.

use clap::Args;
use clap::builder::{BoolishValueParser, StringValueParser};

use super::api::ApiArgs;
use super::choice::choice;
use super::lake::LakeArgs;
use super::place::place;
use super::store::StoreArgs;
use crate::views::Engine;

/// `verify`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
    /// Remove older versions of conversations found in two partitions, and discard damaged or missing staged files
    ///
    /// If _state is older than the tables, as after a restore, the next commits are numbered after theirs.
    #[arg(long, env = "DECAGON_REPAIR", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) repair: bool,
}

/// `views`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ViewsArgs {
    /// Use this lake: a path or a URL (s3://bucket/prefix, gs://bucket/prefix, az://container/prefix)
    #[arg(long, env = "DECAGON_LAKE", value_name = "URL", value_parser = place(StringValueParser::new()))]
    pub(in crate::cli) lake: String,
    /// Choose the query engine
    #[arg(long, env = "DECAGON_ENGINE", value_parser = choice([
        (Engine::Duckdb, "duckdb", "DuckDB"),
        (Engine::Spark, "spark", "Apache Spark"),
        (Engine::Athena, "athena", "Amazon Athena"),
        (Engine::Bigquery, "bigquery", "Google BigQuery"),
        (Engine::Snowflake, "snowflake", "Snowflake"),
    ]))]
    pub(in crate::cli) engine: Engine,
    #[command(flatten)]
    pub(in crate::cli) store: StoreArgs,
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) api: ApiArgs,
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
}
