//! The command line: arguments become settings, other modules do the work, and its result becomes text.
//!
//! The only module with clap, and the only one that prints, knows exit codes and handles signals.

mod args;
mod commands;
#[cfg(feature = "simulate")]
mod demo;
mod entry;
#[cfg(feature = "simulate")]
mod examples;
mod following;
mod generate;
mod logging;
mod metrics;
mod output;
mod policy;
mod progress;
mod receipts;
mod report;
mod runs;
mod screen;
mod settings;
mod shutdown;
mod summary;

pub use entry::main;
