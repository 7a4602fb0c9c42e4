//! The lake in its store: opening it, who may write to it, its commits, its tables in either format, its Parquet files and
//! its reports.
//!
//! This is the only module that talks to storage, and it does so through `object_store` (`delta_kernel` is given the same
//! store), but for what that does not know of local disks: locks, and files that were not in their place yet. Must not
//! know: the API.

mod address;
mod adopt;
mod answers;
mod bounded;
mod calls;
mod checkpoint;
mod cloud;
mod conditions;
mod conform;
mod delta;
mod diagnose;
mod disk;
mod environment;
mod evidence;
mod file_reader;
mod file_writer;
mod google;
mod history;
mod http;
mod identity;
mod lease;
mod ledger;
mod lock;
mod parts;
mod probe;
mod publication;
mod report;
#[cfg(test)]
mod samples;
mod series;
mod sorted_reader;
mod store;
mod sweep;
mod tables;
mod upload;

pub use adopt::{Adopted, adopt};
pub use calls::StoreCalls;
pub use checkpoint::{Checkpoint, Extent, Incremental, Landed, LandedObject, Overlap, Purpose, Walk};
pub use cloud::{S3Addressing, StoreOptions};
pub use evidence::{Evidence, Observed, Verdict, Witness};
pub use file_reader::FileReader;
pub use file_writer::{Lifetime, TableWriter, encode};
pub use history::History;
pub use identity::{Format, LakeFile, Wanted};
pub use lease::{Before, Ended, Holder, Lease, Seen};
pub use ledger::Ledger;
pub use probe::{Capability, Probe};
pub use publication::{Publication, Replacement};
pub use report::{Outcome, RunReport};
pub use sorted_reader::SortedReader;
pub use store::Lake;
pub use sweep::Leftovers;
pub use tables::{Change, Tables};
pub use upload::Upload;
