//! The definition of the command line: commands, flags, their environment variables and help texts.
//!
//! One file per group of commands, above the flags and parsers that groups share. Nothing outside of `cli` uses clap:
//! `choice` parses the enums of other modules. Must not depend on: what the commands do.

mod api;
mod choice;
mod cli;
mod compact;
mod export;
mod forget;
mod heading;
mod inspect;
mod lake;
mod place;
mod policy;
mod reconcile;
mod report;
mod retention;
#[cfg(feature = "simulate")]
mod simulate;
mod store;
mod value;

pub(super) use api::ApiArgs;
pub(super) use cli::{Cli, Command, LogFormat};
pub(super) use compact::{CompactArgs, UpgradeArgs};
pub(super) use export::{BackfillArgs, ExportArgs, FetchArgs, FlushArgs, SyncArgs};
pub(super) use forget::ForgetArgs;
pub(super) use inspect::{CheckArgs, VerifyArgs, ViewsArgs};
pub(super) use lake::{LakeArgs, MetricsArgs};
pub(super) use policy::{PolicyCommand, PolicyKeyArgs, PolicyTestArgs};
pub(super) use reconcile::ReconcileArgs;
pub(super) use report::{ReportArgs, StatusArgs};
#[cfg(feature = "simulate")]
pub(super) use simulate::{DemoArgs, SimulateArgs};
