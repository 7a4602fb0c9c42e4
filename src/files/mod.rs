//! Writes Parquet files, reads them one row group at a time, and promotes staged files without decoding them.
//!
//! Guarantees: a file of a table has the table's columns in the table's order; the largest row group bounds memory.
//! Must not depend on: which files a lake has.

mod conform;
mod footer;
mod found;
mod lanes;
mod promote;
mod reader;
#[cfg(test)]
mod samples;
mod sorted;
mod source;
mod writer;

pub use footer::{Footer, current_form, oldest_form_of_policy};
pub use found::FoundFile;
pub use lanes::{Lane, Lanes};
pub use promote::{Promoted, promote};
pub use reader::FileReader;
pub use sorted::SortedReader;
#[cfg(feature = "delta")]
pub(crate) use writer::{CREATED_BY, OWN};
pub use writer::{TableWriter, WrittenFor, encode};
