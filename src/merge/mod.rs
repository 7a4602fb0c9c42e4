//! Keeps the latest version of each conversation.
//!
//! Guarantees: a conversation and its messages, tags and audit logs come from the same version, because the four tables
//! are merged together. Must not depend on: I/O, the current time.

mod gather;
mod kway;
mod version;

pub use gather::{Gather, Rows};
pub use kway::{Late, MergeInput, Merged, merge};
pub use version::{Version, changed_at, latest, other_time, time};
