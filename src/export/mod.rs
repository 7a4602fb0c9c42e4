//! Pulls a window of conversations out of the API and lands it: what `export` and `backfill` do.
//!
//! Three stages overlap, joined by bounded channels: `walk` fetches page after page, `collect` flattens them and
//! gathers rows until there are enough for landing objects, `land` encodes, uploads and commits. The checkpoint that
//! `land` writes is the only commit: it names the window, the next cursor and the objects landed so far.
//!
//! Must not know: how commands are typed and results are shown.

mod collect;
mod encode;
mod fetch;
mod filter_support;
mod inspect;
mod last_page;
mod plan;
mod progress;
mod stage;
mod walks;

pub use collect::{FlushPolicy, OnBadRecord};
pub use plan::{Begin, Planned};
pub use progress::Progress;
pub use walks::{Memory, OnIgnoredFilter, Reached, Run, run};
