//! Flags of the lake's store. Their defaults are those of `StoreOptions`.

use clap::Args;
use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use humantime::Duration;
use url::Url;

use super::choice::choice;
use super::heading::STORE;
use super::place::place;
use crate::store::{S3Addressing, StoreOptions};

/// The most that a count of a store may be.
const MOST: u64 = u16::MAX as u64;

/// How to reach the lake's store. Credentials come from the environment, as each cloud's own tools have them.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct StoreArgs {
    /// Use this address of the store instead of the cloud's own: MinIO, R2, SeaweedFS, Ceph, an emulator
    ///
    /// Without it, AWS_ENDPOINT_URL, GOOGLE_BASE_URL or AZURE_STORAGE_ENDPOINT applies.
    #[arg(long, help_heading = STORE, env = "DECAGON_STORE_ENDPOINT", value_name = "URL",
        value_parser = place(Url::parse))]
    store_endpoint: Option<Url>,
    /// Choose where requests to S3 name the bucket [default: path]
    #[arg(long, help_heading = STORE, env = "DECAGON_S3_ADDRESSING", value_name = "STYLE", hide_short_help = true,
        value_parser = choice([
            (S3Addressing::Path, "path", "First in the path, which every store understands"),
            (S3Addressing::Virtual, "virtual", "First in the host name"),
        ]))]
    s3_addressing: Option<S3Addressing>,
    /// Limit the number of calls to the store at a time
    ///
    /// More calls hide the latency of a distant store; fewer spare a slow one.
    #[arg(long, help_heading = STORE, env = "DECAGON_STORE_CONCURRENCY", value_name = "N", hide_short_help = true,
        default_value_t = StoreOptions::default().concurrency,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=MOST))]
    store_concurrency: usize,
    /// Retry a request that the store fails or throttles at most this often, with growing pauses
    ///
    /// Ten retries take about a minute.
    #[arg(long, help_heading = STORE, env = "DECAGON_STORE_RETRIES", value_name = "N", hide_short_help = true,
        default_value_t = StoreOptions::default().retries,
        value_parser = RangedU64ValueParser::<usize>::new().range(..=MOST))]
    store_retries: usize,
    /// Limit the time of one call to the store, retries included
    #[arg(long, help_heading = STORE, env = "DECAGON_STORE_TIMEOUT", value_name = "DURATION", hide_short_help = true,
        default_value_t = StoreOptions::default().call_timeout.into())]
    store_timeout: Duration,
    /// Limit the time of one request of such a call
    #[arg(long, help_heading = STORE, env = "DECAGON_STORE_REQUEST_TIMEOUT", value_name = "DURATION",
        hide_short_help = true, default_value_t = StoreOptions::default().request_timeout.into())]
    store_request_timeout: Duration,
    /// Write even if the store cannot keep two runs apart; make sure yourself that one runs at a time
    #[arg(long, help_heading = STORE, env = "DECAGON_UNSAFE_NO_LOCK", value_parser = BoolishValueParser::new(),
        hide_short_help = true)]
    unsafe_no_lock: bool,
}

impl StoreArgs {
    /// The same as settings.
    pub(in crate::cli) fn options(&self) -> StoreOptions {
        StoreOptions {
            endpoint: self.store_endpoint.clone(),
            s3_addressing: self.s3_addressing,
            call_timeout: self.store_timeout.into(),
            request_timeout: self.store_request_timeout.into(),
            retries: self.store_retries,
            concurrency: self.store_concurrency,
            needs_lock: !self.unsafe_no_lock,
        }
    }
}
