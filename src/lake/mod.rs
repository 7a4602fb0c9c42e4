//! The lake in its store: opening it, its commits, its Parquet files and its reports.
//!
//! This is the only module that talks to storage, and it does so through `object_store` alone. Must not know: the API.

mod checkpoint;
mod file_reader;
mod file_writer;
mod report;
mod store;

pub use checkpoint::{Checkpoint, Extent, Incremental, Landed, Ledger, Purpose, Walk};
pub use file_reader::FileReader;
pub use file_writer::{Lifetime, Upload, encode, table_writer};
pub use report::{Outcome, RunReport};
pub use store::{Lake, LakeFile};
