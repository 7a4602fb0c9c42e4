//! Turns the conversations of a page into record batches of the four tables. Pure: no I/O, no clock.
//!
//! Promises: nothing is lost. A value that fits its column goes there; one that does not, and every field without a
//! column, goes into the row's `extra` as it came; what is no conversation at all is handed back with the reason.
//! One bad conversation costs none of the others. Must not know: where the rows go.

mod column;
mod conversation;
mod row;

pub use conversation::{Batch, Origin, Reject, flatten};
pub use row::UnreadableTimes;
