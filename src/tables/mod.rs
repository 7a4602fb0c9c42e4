//! The tables of a lake, in either format: which file a partition has, and how a new one becomes visible.
//!
//! Must not depend on: the content of the files.

mod change;
#[cfg(feature = "delta")]
mod delta;
#[cfg(not(feature = "delta"))]
#[path = "no_delta.rs"]
mod delta;
mod open;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod tables;

pub use change::Change;
pub use open::OpenPartition;
pub use tables::Tables;
