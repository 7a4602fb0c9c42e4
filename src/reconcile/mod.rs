//! Compares a lake with the API: what is missing or stale here, and what is gone at the source.
//!
//! A walk over `created_at` brings every conversation of a range. A [`Comparison`] stages those that the lake lacks or
//! has an older version of, and notes the hashes of all ids. Then a [`Survey`] finds the conversations of the lake that
//! did not come, and [`second_look`] asks for them again.
//! Guarantees: bounded memory. A conversation counts as gone only if two complete answers lack it, and if the API is
//! proven to bound `created_at`. Must not depend on: what becomes of the conversations that are gone.

mod hashes;
mod here;
mod second_look;
mod survey;

pub use hashes::IdHasher;
pub use here::Comparison;
pub use second_look::{Judgment, second_look};
pub use survey::{Missed, Scope, Survey, Witness};
