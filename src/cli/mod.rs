//! The command line: what was typed becomes settings, the work is done by the other modules, and what came of it is
//! told. The only module that prints, knows exit codes and handles signals.

mod args;
mod commands;
mod demo;
mod entry;
mod examples;
mod generate;
mod logging;
mod metrics;
mod output;
mod progress;
mod runs;
mod settings;
mod shutdown;

pub use entry::main;
