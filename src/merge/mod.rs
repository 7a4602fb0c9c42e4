//! Resolves the copies of each conversation to the newest one, its latest version. Pure: no I/O, no clock.
//!
//! The tables are merged together, so that a conversation and its messages, tags and audit logs always come from the
//! same copy. Must not know: where rows come from and go to.

mod gather;
mod kway;
mod version;

pub use gather::{Gather, Rows};
pub use kway::{Copies, Late, Merged, merge};
pub use version::{Version, changed_at, latest, other_time, time};
