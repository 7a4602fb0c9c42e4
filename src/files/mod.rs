//! Parquet files: written, read a row group at a time, and promoted without decoding.
//!
//! Guarantees: files of a table have its columns, in its order; memory is bounded by the largest row group. Must not depend
//! on: which files a lake has.

mod conform;
mod promote;
mod reader;
#[cfg(test)]
mod samples;
mod sorted;
mod writer;

pub use promote::{Promoted, promote};
pub use reader::FileReader;
pub use sorted::SortedReader;
#[cfg(feature = "delta")]
pub(crate) use writer::CREATED_BY;
pub use writer::{TableWriter, WrittenFor, encode};
