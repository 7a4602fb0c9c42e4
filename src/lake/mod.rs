//! What a lake is and how it changes: its identity, its state and the ledger of its commits, who may write, what dead runs
//! leave, and the reports of runs.
//!
//! Guarantees: a checkpoint is the only commit; of two runs at once one is refused, and one that lost the lake is fenced.
//! Must not depend on: the API, what files hold, and how tables are kept.

pub mod history;
mod identity;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod lake;
mod lease;
mod ledger;
mod report;
mod series;
mod state;
pub mod sweep;
mod write_intent;

pub use history::History;
pub use identity::{Format, Identity, Wanted};
pub use lake::Lake;
pub use lease::{Before, Ended, Holder, Lease, Occupancy};
pub use ledger::Ledger;
pub use report::{RunOutcome, RunReport};
pub use state::{Canary, FilterSupport, Incremental, Overlap, Purpose, StagedFile, StagedFlush, State, Support, Walk};
pub use sweep::Leftovers;
pub use write_intent::{Extent, Replacement, WriteIntent};
