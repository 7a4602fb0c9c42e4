//! Runs of the commands that write to a lake, for programs that embed this crate: see [`sync`].
//!
//! Guarantees: a run holds the lake's lease while it writes. However it ends, its report is saved and the lease
//! released. If a program drops the future, that counts as a killed process: the next run continues. Must not depend
//! on: the command line, how results are printed.

mod cover;
mod fetch;
mod forget;
mod prune;
mod reconcile;
mod repair;
mod session;
mod settings;
mod upgrade;

#[cfg(test)]
#[cfg(all(feature = "simulate", feature = "delta"))]
mod tests;

pub(crate) use fetch::check_range;
pub use fetch::{backfill, export, sync};
pub use forget::forget;
pub use reconcile::reconcile;
pub use repair::repair;
pub use session::{RunFailure, compact};
pub use settings::{
    BackfillSettings, CompactSettings, Control, ExportSettings, FetchSettings, ForgetSettings, MaxDeleted, OnDeleted,
    ReconcileSettings, SyncSettings, UpgradeSettings,
};
pub use upgrade::upgrade;
