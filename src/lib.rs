//! Exports the conversations of a Decagon account into a data lake of Parquet or Delta tables.
//!
//! A run fetches pages, stages their rows as Parquet and commits them in a checkpoint; a compaction merges the staged
//! rows into table files. The modules, from the bottom up; each uses only those above it in this list:
//!
//! - [`error`], [`clock`], [`counted`], [`stray`], [`net`]: failures, time, numbers with nouns, stray characters, HTTP
//! - [`json`], [`model`]: raw JSON, and the tables with their columns
//! - [`api`], [`flatten`], [`layout`], [`merge`], [`policy`]: pages, rows, keys, the latest version, what may land
//! - [`store`], [`files`], [`lake`], [`tables`]: objects, Parquet, the lake's state, plain and Delta tables
//! - [`export`], [`compact`], [`verify`], [`forget`], [`reconcile`], [`status`], [`report`], [`check`], [`views`],
//!   [`simulate`]: one capability each
//! - [`cli`]: the `decagon-lake` command

pub mod api;
pub mod check;
pub mod cli;
pub mod clock;
pub mod compact;
pub mod counted;
pub mod error;
pub mod export;
pub mod files;
pub mod flatten;
pub mod forget;
pub mod json;
pub mod lake;
pub mod layout;
pub mod merge;
pub mod model;
pub mod net;
pub mod policy;
pub mod reconcile;
pub mod report;
pub mod run;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod status;
pub mod store;
pub mod stray;
pub mod tables;
pub mod verify;
pub mod views;
