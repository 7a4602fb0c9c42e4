//! The export API: its requests, pages, pace and refusals.
//!
//! Facts about the API come from the vendor's page "Exporting Conversations via API" (*doc*) and from what public
//! programs exchange with live accounts (*live*). If they disagree, every form is accepted. Must not depend on: the
//! lake.

mod address;
mod attempt;
mod client;
mod http;
mod key;
mod pacer;
mod page;
mod retry;
mod salvage;

pub(crate) use address::endpoint;
pub use client::{Client, DEFAULT_BASE_URL, Options, Tally};
pub use key::ApiKey;
pub use pacer::Pacer;
pub use page::{Fetched, Page, PageError, Quotes, Sign, excerpt};
pub use retry::RetryPolicy;
pub use salvage::Broken;
