//! What a lake is and how it changes: its identity, its state with the manifest, the ledger of its checkpoints, the
//! lease, the leftovers of dead runs, and run reports.
//!
//! Guarantees: a checkpoint, written conditionally, is the only commit. The lease admits one run at a time, and a run
//! that lost it is fenced.
//! Must not depend on: the API, the content of files, and the format of tables.

pub mod history;
mod identity;
mod kept;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod lake;
mod lease;
mod ledger;
mod manifest;
mod past_runs;
mod reconciliation;
mod report;
mod series;
mod shards;
mod state;
mod suppression;
pub mod sweep;
mod walk;
mod write_intent;

pub use history::History;
pub use identity::{Format, Governed, Identity, Wanted};
pub use kept::KeptFiles;
pub use lake::{Described, Lake};
pub use lease::{Before, Ended, Holder, Lease, Occupancy, Upkeep};
pub use ledger::Ledger;
pub use manifest::{Entries, FileEntry, FormCount, Manifest, PartitionEntry, ShardMonth, TableTotals, bare_etag};
pub use past_runs::{PastRun, past_runs};
pub use reconciliation::{Asked, Compared, FlushNotes, Reconciliation};
pub use report::{PolicyReport, Reconciled, RunOutcome, RunReport};
pub use shards::Shards;
pub use state::{Canary, FilterSupport, Incremental, Overlap, StagedFile, StagedFlush, State, Support};
pub use suppression::{Suppression, is_sign, words};
pub use sweep::Leftovers;
pub use walk::{Purpose, Walk};
pub use write_intent::{Extent, Replacement, WriteIntent};
