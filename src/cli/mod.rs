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
mod generate;
mod logging;
mod metrics;
mod output;
mod policy;
mod progress;
mod receipts;
mod runs;
mod settings;
mod shutdown;

pub use entry::main;
