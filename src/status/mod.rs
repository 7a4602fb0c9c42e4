//! What a lake holds, how fresh it is, and what somebody should do about it.
//!
//! Guarantees: it only reads, and may run beside a writing run. Must not depend on: how it is printed.

mod health;
mod recent;
#[expect(clippy::module_inception, reason = "the type that the module is named after")]
mod status;
mod watch;

pub use health::{Advice, Health, Level, Situation, situation};
pub use recent::{RecentDay, recent_days};
pub use status::{Staging, Status, Unfinished, status};
pub use watch::follow;
