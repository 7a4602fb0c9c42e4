//! How the lake's store is reached, as it can be typed.

use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use url::Url;

use super::place::place;
use crate::store::{S3Addressing, StoreOptions};

/// How to reach the lake's store. Credentials come from the environment, as each cloud's users have them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub(in crate::cli) struct StoreArgs {
    /// The store's address, where it is not the cloud's own: MinIO, R2, SeaweedFS, Ceph, an emulator. Without it that of
    /// AWS_ENDPOINT_URL, GOOGLE_BASE_URL or AZURE_STORAGE_ENDPOINT
    #[arg(long, env = "DECAGON_STORE_ENDPOINT", value_name = "URL", value_parser = place(Url::parse))]
    pub(in crate::cli) store_endpoint: Option<Url>,
    /// How a bucket of S3 is addressed [default: path]
    #[arg(long, env = "DECAGON_S3_ADDRESSING", value_name = "STYLE", value_enum, hide_short_help = true)]
    pub(in crate::cli) s3_addressing: Option<S3Addressing>,
    /// How long one call to the store may take, its retries included
    #[arg(long, env = "DECAGON_STORE_TIMEOUT", value_name = "DURATION", default_value = "5m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(in crate::cli) store_timeout: Duration,
    /// How long one request of such a call may take
    #[arg(long, env = "DECAGON_STORE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "1m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(in crate::cli) store_request_timeout: Duration,
    /// How often a request that the store fails or throttles is sent again, with longer and longer pauses: ten take about
    /// a minute
    #[arg(long, env = "DECAGON_STORE_RETRIES", value_name = "N", hide_short_help = true, default_value_t = 10,
        value_parser = clap::value_parser!(u16))]
    pub(in crate::cli) store_retries: u16,
    /// How many calls to the store may be under way
    #[arg(long, env = "DECAGON_STORE_CONCURRENCY", value_name = "N", hide_short_help = true, default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(in crate::cli) store_concurrency: u16,
    /// Write although the store cannot keep two runs apart. Only where you see to it yourself that one runs at a time
    #[arg(long, env = "DECAGON_UNSAFE_NO_LOCK", value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub(in crate::cli) unsafe_no_lock: bool,
}

impl StoreArgs {
    /// The same as settings.
    pub(in crate::cli) fn options(&self) -> StoreOptions {
        StoreOptions {
            endpoint: self.store_endpoint.clone(),
            s3_addressing: self.s3_addressing,
            call_timeout: self.store_timeout,
            request_timeout: self.store_request_timeout,
            retries: self.store_retries.into(),
            concurrency: self.store_concurrency.into(),
            needs_lock: !self.unsafe_no_lock,
        }
    }
}
