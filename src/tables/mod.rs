//! The tables of a lake, in either format: which file a partition has, how a new one becomes visible, and what
//! footers say.
//!
//! Must not depend on: the rows in the files.

mod change;
#[cfg(feature = "delta")]
mod delta;
#[cfg(not(feature = "delta"))]
#[path = "no_delta.rs"]
mod delta;
mod open;
mod scan;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod tables;

pub use change::Change;
pub use open::OpenPartition;
pub use scan::{Scan, scan};
pub use tables::Tables;
