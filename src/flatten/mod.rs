//! Turns the conversations of a page into record batches of the four tables.
//!
//! Guarantees: nothing is lost. A value that does not fit its column, and every field without a column, goes into the
//! row's `extra` as it came; a malformed entry is returned with the reason and does not affect the others. Must not
//! depend on: I/O, the current time.

mod column;
mod conversation;
mod fill;
mod metadata;
mod row;
mod scalar;

pub use conversation::{Batch, Origin, Reject, flatten, flatten_except};
pub use fill::{Filled, fill};
pub use row::{Counts, UnreadableTimes};
