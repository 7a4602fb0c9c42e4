//! Simulates the export API on loopback, for tests and for trying the program out.
//!
//! A [`World`] derives all conversations and their contents at any moment from a seed. The server follows the vendor's
//! page, with a setting for each point on which sources disagree. Must not depend on: the lake.

mod edits;
mod export;
mod render;
mod server;
mod settings;
mod world;

pub use export::{CursorName, Disputed, LARGEST_PAGE, OnPageSize, PageSizeRule};
pub use server::{SimulatedTime, Simulator};
pub use settings::Settings;
pub use world::{World, WorldSettings};
