//! One table as a Delta table: its log, the commits to it, and the files that it has no use for any more.
//!
//! Must not depend on: when and why a table changes.

mod commit;
mod create;
mod log;
mod vacuum;

pub(super) use commit::Standing;
pub(super) use log::DeltaTable;
