//! One table as a Delta table: its log, the commits to it, and the deletion of unused files.
//!
//! Must not depend on: when and why a table changes.

mod commit;
mod create;
mod cut;
mod log;
mod log_cache;
mod vacuum;

pub(super) use commit::Readiness;
pub(super) use log::DeltaTable;
