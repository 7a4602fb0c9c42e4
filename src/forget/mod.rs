//! Erasing people: finds every trace of some conversations in a lake, removes it, and says what was done.
//!
//! The tables' files are rewritten by a compaction that leaves the suppressed conversations out; this module finds what
//! has to be rewritten, and erases the other traces.
//! Guarantees: each step can be repeated, because it looks for the conversations that the lake suppresses. Must not
//! depend on: the command line, and in which order a run does the steps.

mod mentions;
mod receipt;
mod search;
mod traces;

pub use mentions::Mentions;
pub use receipt::{OldFiles, Receipt, Traces};
pub use search::{Hit, Search, Where};
pub use traces::{erase_from_history, erase_from_state};
