//! What became of a change to a table. Must not depend on: how tables are kept.

/// What became of a write intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The tables have it now.
    Made,
    /// Another program has changed what it was made of: where.
    Conflict(String),
}
