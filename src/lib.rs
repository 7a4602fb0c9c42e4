//! Exports the conversations of a Decagon account into a data lake of Parquet tables.

pub mod api;
pub mod check;
pub mod cli;
pub mod clock;
pub mod compact;
pub mod error;
pub mod export;
pub mod files;
pub mod flatten;
pub mod json;
pub mod lake;
pub mod layout;
pub mod merge;
pub mod model;
pub mod net;
pub mod run;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod status;
pub mod store;
pub mod stray;
pub mod tables;
pub mod verify;
pub mod views;
