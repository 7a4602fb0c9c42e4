//! Splits and repairs JSON without interpreting it. Must not depend on: what fields mean.

mod lenient;
mod objects;
mod scan;

pub use lenient::{Fault, Repaired, repair, skip_space};
pub use objects::{Array, Elements, Object, Objects, elements};
pub use scan::{string_end, value_end};
