//! Runs of the commands that write to a lake: what a program calls that embeds this crate.
//!
//! ```no_run
//! # use decagon_lake::{api, clock::Clock, error::Result, lake::Lake, run, store::StoreOptions};
//! # async fn hourly() -> Result<()> {
//! let clock = Clock::system();
//! let lake = Lake::open("s3://bucket/decagon", &StoreOptions::default(), clock)?;
//! let key = api::ApiKey::new("the-api-key", "the program")?;
//! let mut client = api::Client::new(api::Options::new(key)?, clock)?;
//! let report = run::sync(&lake, &mut client, &run::SyncSettings::default()).await?;
//! println!("{} pages, watermark {:?}", report.pages, report.watermark);
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees: a run holds the lake while it writes, and is ended however it goes: its report is saved, and the lake let go.
//! A future that is dropped in between counts as a killed process: the next run continues. Must not depend on: how commands
//! are typed and how results are shown.

mod fetch;
mod prune;
mod session;
mod settings;
#[cfg(test)]
#[cfg(all(feature = "simulate", feature = "delta"))]
mod tests;

pub(crate) use fetch::check_range;
pub use fetch::{backfill, export, sync};
pub use session::{RunFailure, compact, repair};
pub use settings::{BackfillSettings, CompactSettings, Control, ExportSettings, FetchSettings, SyncSettings};
