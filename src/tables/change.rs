//! The result of a change of the tables.
//!
//! Must not depend on: the format of tables.

/// The result of publishing a write intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The tables have applied it.
    Made,
    /// Another writer committed first to the named table and partition.
    Conflict(String),
}
