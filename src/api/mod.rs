//! The export API: its requests, its pages, its pace and its refusals.
//!
//! Facts about the API come from the vendor's page "Exporting Conversations via API" (called *doc* here) and from what
//! public programs send to live accounts (*live*). Where they disagree, every form is accepted. Must not know: the
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

pub use client::{Client, DEFAULT_BASE_URL, Options, Tally};
pub use key::ApiKey;
pub use pacer::Pacer;
pub use page::{Fetched, Page, Sign, excerpt};
pub use retry::RetryPolicy;
pub use salvage::Broken;
