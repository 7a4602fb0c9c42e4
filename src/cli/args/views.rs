//! What `views` can be asked.

use clap::Args;
use clap::builder::StringValueParser;

use super::StoreArgs;
use super::place::place;
use crate::views::Engine;

/// `views`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ViewsArgs {
    /// The engine that is to read the lake
    #[arg(long, env = "DECAGON_ENGINE", value_enum)]
    pub(in crate::cli) engine: Engine,
    /// The lake: a path or a URL (s3://bucket/prefix, gs://bucket/prefix, az://container/prefix)
    #[arg(long, env = "DECAGON_LAKE", value_name = "URL", value_parser = place(StringValueParser::new()))]
    pub(in crate::cli) lake: String,
    #[command(flatten)]
    pub(in crate::cli) store: StoreArgs,
}
