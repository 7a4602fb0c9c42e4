//! The export API on loopback, for trying things out and for tests.
//!
//! A [`World`] decides, from a seed alone, which conversations there are at any moment and what they hold; the server
//! answers as the vendor's page says, with switches for what is disputed. Must not know: anything of the lake.

mod export;
mod render;
mod server;
mod world;

pub use export::{CursorName, Disputed};
pub use server::{Settings, SimulatedTime, Simulator};
pub use world::{World, WorldSettings};
