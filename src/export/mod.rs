//! Fetches a window of conversations from the API and stages it: the work of `export`, `backfill` and `reconcile`.
//!
//! Three stages overlap, joined by bounded channels. `fetch` fetches page after page; `collect` flattens them and
//! gathers rows into flushes; `stage` encodes, uploads and commits each flush.
//!
//! Guarantees: the checkpoint that `stage` writes is the only commit. It names the window, the next cursor and the
//! staged files. Must not depend on: command lines, or how results are shown.

mod bad_record;
mod collect;
mod encode;
mod fetch;
mod filter_support;
mod govern;
mod inspect;
mod last_page;
mod look;
mod plan;
mod progress;
mod sieve;
mod stage;
mod walks;

pub use collect::{FlushPolicy, OnBadRecord};
pub use govern::without_covered_names;
pub use look::{Looked, look};
pub use plan::{Begin, Planned};
pub use progress::Progress;
pub use sieve::Sieve;
pub use stage::{Flushed, Lent, Meanwhile};
pub use walks::{OnIgnoredFilter, Run, run};
