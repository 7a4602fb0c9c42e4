//! Flags of `reconcile`.

use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::BoolishValueParser;

use super::api::ApiArgs;
use super::choice::choice;
use super::compact::RetainArgs;
use super::export::FlushArgs;
use super::lake::{LakeArgs, MetricsArgs};
use super::policy::PolicyKeyArgs;
use super::retention::HistoryArgs;
use super::value::max_deleted;
use crate::model::parse_user_time;
use crate::run::{MaxDeleted, OnDeleted};

/// `reconcile`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ReconcileArgs {
    #[command(flatten)]
    pub(in crate::cli) api: ApiArgs,
    #[command(flatten)]
    pub(in crate::cli) of: LakeArgs,
    /// Begin the range of created_at at this time: RFC 3339, YYYY-MM-DD (midnight UTC) or epoch seconds
    /// [default: the beginning of the history]
    #[arg(long, display_order = 3, env = "DECAGON_FROM", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) from: Option<DateTime<Utc>>,
    /// End the range before this time [default: 10 minutes ago]
    #[arg(long, display_order = 4, env = "DECAGON_TO", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) to: Option<DateTime<Utc>>,
    /// Choose what to do about conversations that the API no longer has
    #[arg(long, display_order = 5, env = "DECAGON_ON_DELETED", value_name = "ACTION", default_value = "report",
        value_parser = choice([
            (OnDeleted::Report, OnDeleted::Report.name(), "Count them in the report"),
            (OnDeleted::Mark, OnDeleted::Mark.name(), "Set deleted_at in their rows of `conversations`"),
            (OnDeleted::Remove, OnDeleted::Remove.name(), "Remove their rows from all four tables"),
        ]))]
    pub(in crate::cli) on_deleted: OnDeleted,
    /// Stop with exit code 6 if more are gone: a number, or a part of those in the lake, as in 1%
    #[arg(long, display_order = 6, env = "DECAGON_MAX_DELETED", value_name = "N|N%", default_value = "1%",
        value_parser = max_deleted)]
    pub(in crate::cli) max_deleted: MaxDeleted,
    /// Discard the interrupted reconciliation and start over
    #[arg(long, env = "DECAGON_RESTART", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) restart: bool,
    #[command(flatten)]
    pub(in crate::cli) policy_key: PolicyKeyArgs,
    #[command(flatten)]
    pub(in crate::cli) flush: FlushArgs,
    #[command(flatten)]
    pub(in crate::cli) keep: RetainArgs,
    #[command(flatten)]
    pub(in crate::cli) history: HistoryArgs,
    #[command(flatten)]
    pub(in crate::cli) metrics: MetricsArgs,
}
