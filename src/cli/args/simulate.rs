//! Flags of the simulated API, and of the demo on it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::builder::{BoolishValueParser, PathBufValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, value_parser};

use super::choice::{choice, partition_by, timestamp_filter};
use super::place::place;
use super::value::rate;
use crate::api::ApiKey;
use crate::model::{PartitionBy, TimestampFilter, parse_user_time};
use crate::simulate::{CursorName, LARGEST_PAGE, OnPageSize, WorldSettings};

/// The simulated conversations.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct WorldArgs {
    /// Draw the conversations from this seed
    #[arg(long, env = "DECAGON_SEED", value_name = "N", default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// Simulate a history of this many conversations
    #[arg(long, env = "DECAGON_CONVERSATIONS", value_name = "N", default_value_t = 5_040)]
    pub(in crate::cli) conversations: u32,
    /// Spread the history over this many days
    #[arg(long, env = "DECAGON_DAYS", value_name = "N", default_value_t = 30,
        value_parser = value_parser!(u32).range(1..=36_500))]
    pub(in crate::cli) days: u32,
    /// Give a conversation this many messages on average
    #[arg(long, env = "DECAGON_MESSAGES", value_name = "N", default_value_t = 10,
        value_parser = value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) messages: u32,
}

impl WorldArgs {
    /// The same as settings, for a history that ends at `now`.
    pub(in crate::cli) fn settings(&self, now: DateTime<Utc>) -> WorldSettings {
        let WorldArgs { seed, conversations, days, messages } = *self;
        WorldSettings { seed, conversations, days, messages, now }
    }
}

/// `simulate`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SimulateArgs {
    /// Listen on this port of 127.0.0.1; 0 takes a free one
    #[arg(long, env = "DECAGON_PORT", value_name = "PORT", default_value_t = 8787)]
    pub(in crate::cli) port: u16,
    /// Accept this API key
    #[arg(long, env = "DECAGON_SIMULATED_KEY", value_name = "TEXT", default_value = "simulated-key",
        value_parser = api_key)]
    pub(in crate::cli) accept_key: String,
    /// Allow this many requests per second; 0 removes the limit
    #[arg(long, env = "DECAGON_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 1.0, value_parser = rate,
        allow_negative_numbers = true)]
    pub(in crate::cli) requests_per_second: f64,
    #[command(flatten)]
    pub(in crate::cli) world: WorldArgs,
    /// End the history and start the simulation at this time [default: now]
    #[arg(long, env = "DECAGON_NOW", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) now: Option<DateTime<Utc>>,
    /// Let this many simulated seconds pass in a real one; 0 stops time
    #[arg(long, env = "DECAGON_SPEED", value_name = "N", default_value_t = 1.0, value_parser = rate,
        allow_negative_numbers = true)]
    pub(in crate::cli) speed: f64,
    /// Choose the name of the next page's cursor; the API's own documentation uses all three
    #[arg(long, env = "DECAGON_CURSOR_NAME", value_name = "NAME", default_value = "next_cursor", value_parser = choice([
        (CursorName::NextCursor, "next_cursor", "As in the vendor's example program and on live accounts"),
        (CursorName::NextPageCursor, "next_page_cursor", "As in the vendor's text"),
        (CursorName::NextPageUpdatedAfter, "next_page_updated_after",
            "As in the vendor's example response: an integer, the second in which the next page begins"),
    ]))]
    pub(in crate::cli) cursor_name: CursorName,
    /// Apply the bounds to this time if a request has no timestamp_filter
    #[arg(long, env = "DECAGON_DEFAULT_FILTER", value_name = "FIELD",
        default_value = TimestampFilter::CreatedAt.as_str(), value_parser = timestamp_filter())]
    pub(in crate::cli) default_filter: TimestampFilter,
    /// Fail every Nth response as the API does; 0 fails none
    ///
    /// 500 and 503 with HTML, 429 without Retry-After, a body cut short, and an empty page with a cursor take turns.
    #[arg(long, env = "DECAGON_FAULT_EVERY", value_name = "N", default_value_t = 0)]
    pub(in crate::cli) fault_every: u32,
    /// Choose what to do with page_size
    #[arg(long, env = "DECAGON_ON_PAGE_SIZE", value_name = "ACTION", default_value = "honor",
        value_parser = on_page_size())]
    pub(in crate::cli) on_page_size: OnPageSize,
    /// Change to this, after --then-after requests
    #[arg(long, env = "DECAGON_THEN_ON_PAGE_SIZE", value_name = "ACTION", value_parser = on_page_size(),
        requires = "then_after")]
    pub(in crate::cli) then_on_page_size: Option<OnPageSize>,
    /// Answer this many requests before --then-on-page-size applies
    #[arg(long, env = "DECAGON_THEN_AFTER", value_name = "N", requires = "then_on_page_size")]
    pub(in crate::cli) then_after: Option<u32>,
    /// Return at most this many conversations per page
    #[arg(long, env = "DECAGON_LARGEST_PAGE", value_name = "N", default_value_t = LARGEST_PAGE,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(in crate::cli) largest_page: usize,
    /// Take this many milliseconds for each conversation of a page
    #[arg(long, env = "DECAGON_MILLIS_PER_CONVERSATION", value_name = "N", default_value_t = 0)]
    pub(in crate::cli) millis_per_conversation: u64,
    /// Answer 403, as the API does to an account without the entitlement
    #[arg(long, env = "DECAGON_NOT_ENTITLED", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) not_entitled: bool,
    /// Leave out updated_at and last_message_at, as the API's own example does
    #[arg(long, env = "DECAGON_NO_UPDATED_AT", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) no_updated_at: bool,
    /// Ignore timestamp_filter: treat every request as one without it
    #[arg(long, env = "DECAGON_IGNORE_FILTER", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) ignore_filter: bool,
}

fn on_page_size() -> impl TypedValueParser<Value = OnPageSize> {
    choice([
        (OnPageSize::Honor, "honor", "Return this many; refuse more than --largest-page with 422"),
        (OnPageSize::Cap, "cap", "Return this many, but at most --largest-page"),
        (OnPageSize::Refuse400, "refuse-400", "Refuse the parameter with 400"),
        (OnPageSize::Refuse422, "refuse-422", "Refuse the parameter with 422"),
        (OnPageSize::Ignore, "ignore", "Return 100, whatever it says"),
    ])
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Make the lake in this folder, in place of an earlier demo's lake
    #[arg(long, env = "DECAGON_DEMO_LAKE", value_name = "DIR", default_value = "demo-lake",
        value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) lake: PathBuf,
    /// Choose the partitions of the tables
    #[arg(long, env = "DECAGON_PARTITION_BY", default_value = PartitionBy::Day.name(), value_parser = partition_by())]
    pub(in crate::cli) partition_by: PartitionBy,
    #[command(flatten)]
    pub(in crate::cli) world: WorldArgs,
}

/// A key that the client accepts, because the server could not be asked with any other.
fn api_key(text: &str) -> Result<String, String> {
    match ApiKey::new(text, "--accept-key") {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
