//! Flags of the API.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::{BoolishValueParser, PathBufValueParser};
use serde_json::Value;
use url::Url;

use super::heading::API;
use super::place::place;
use super::value::{json_object, page_size, rate, response_bytes};
use crate::api::DEFAULT_BASE_URL;
use crate::model::PageSizeChoice;

/// How to ask the API.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ApiArgs {
    /// Use this address of the API; EU accounts have https://eu.api.decagon.ai
    #[arg(long, display_order = 1, env = "DECAGON_BASE_URL", value_name = "URL", default_value = DEFAULT_BASE_URL,
        value_parser = place(Url::parse))]
    pub(in crate::cli) base_url: Url,
    /// Read the API key from this file instead of DECAGON_API_KEY
    #[arg(long, display_order = 2, env = "DECAGON_API_KEY_FILE", value_name = "FILE",
        value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) api_key_file: Option<PathBuf>,
    /// Export these users' conversations only: a JSON object, as in {"metadata_filter": {"plan": "pro"}}
    #[arg(long, help_heading = API, env = "DECAGON_USER_FILTERS", value_name = "JSON", value_parser = json_object)]
    pub(in crate::cli) user_filters: Option<Value>,
    /// Request this many conversations at a time: a number, auto or none
    ///
    /// auto asks for 1,000. If the API refuses page_size, the run goes on without it. If responses time out, fail
    /// with 5xx or exceed --max-response-bytes, it asks for half as many, down to 25, and for more again later. The
    /// lake keeps what worked. none never sends page_size, so the API decides.
    #[arg(long, help_heading = API, env = "DECAGON_PAGE_SIZE", value_name = "N", default_value = "auto",
        value_parser = page_size)]
    pub(in crate::cli) page_size: PageSizeChoice,
    /// Start at most this many requests per second, retries included; 0 removes the limit
    ///
    /// The API allows one request per second and bans callers that exceed it.
    #[arg(long, help_heading = API, env = "DECAGON_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 1.0,
        value_parser = rate, allow_negative_numbers = true)]
    pub(in crate::cli) requests_per_second: f64,
    /// Try one request at most this often
    #[arg(long, help_heading = API, env = "DECAGON_MAX_TRIES", value_name = "N", default_value_t = 10,
        hide_short_help = true)]
    pub(in crate::cli) max_tries: u32,
    /// Try one request for at most this long
    #[arg(long, help_heading = API, env = "DECAGON_MAX_RETRY_TIME", value_name = "DURATION", default_value = "15m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(in crate::cli) max_retry_time: Duration,
    /// Limit the time of one try
    #[arg(long, help_heading = API, env = "DECAGON_TIMEOUT", value_name = "DURATION", default_value = "2m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(in crate::cli) timeout: Duration,
    /// Refuse a response that is larger than this
    #[arg(long, help_heading = API, env = "DECAGON_MAX_RESPONSE_BYTES", value_name = "SIZE", default_value = "256MiB",
        value_parser = response_bytes, hide_short_help = true)]
    pub(in crate::cli) max_response_bytes: ByteSize,
    /// Allow plain HTTP to other machines, which exposes the API key
    #[arg(long, help_heading = API, env = "DECAGON_ALLOW_HTTP", value_parser = BoolishValueParser::new(),
        hide_short_help = true)]
    pub(in crate::cli) allow_http: bool,
}
