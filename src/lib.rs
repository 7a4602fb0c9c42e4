//! Exports the conversations of a Decagon account into a data lake of Parquet tables.

pub mod clock;
pub mod error;
pub mod flatten;
pub mod model;
