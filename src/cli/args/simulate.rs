//! What can be typed of the simulated API, and of the demo that shows the others work on it.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::builder::{BoolishValueParser, PathBufValueParser};
use clap::{Args, value_parser};

use super::place::place;
use super::rate;
use crate::api::ApiKey;
use crate::model::{TimestampFilter, parse_user_time};
use crate::simulate::{CursorName, WorldSettings};

/// The simulated conversations.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct WorldArgs {
    /// Decides everything about the conversations, but for when the history ends
    #[arg(long, env = "DECAGON_SEED", value_name = "N", default_value_t = 1)]
    pub(in crate::cli) seed: u64,
    /// How many conversations the history has
    #[arg(long, env = "DECAGON_CONVERSATIONS", value_name = "N", default_value_t = 5_040)]
    pub(in crate::cli) conversations: u32,
    /// How many days the history spans
    #[arg(long, env = "DECAGON_DAYS", value_name = "N", default_value_t = 30, value_parser = value_parser!(u32).range(1..=36_500))]
    pub(in crate::cli) days: u32,
    /// How many messages a conversation has, on average
    #[arg(long, env = "DECAGON_MESSAGES", value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=1000))]
    pub(in crate::cli) messages: u32,
}

impl WorldArgs {
    /// The world that was asked for, its history ending at `now`.
    pub(in crate::cli) fn settings(&self, now: DateTime<Utc>) -> WorldSettings {
        let WorldArgs { seed, conversations, days, messages } = *self;
        WorldSettings { seed, conversations, days, messages, now }
    }
}

/// `simulate`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SimulateArgs {
    #[command(flatten)]
    pub(in crate::cli) world: WorldArgs,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, env = "DECAGON_PORT", value_name = "PORT", default_value_t = 8787)]
    pub(in crate::cli) port: u16,
    /// The API key that it accepts
    #[arg(long, env = "DECAGON_SIMULATED_KEY", value_name = "TEXT", default_value = "simulated-key", value_parser = api_key)]
    pub(in crate::cli) accept_key: String,
    /// How many requests it allows in a second; 0 is unlimited
    #[arg(long, env = "DECAGON_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 1.0, value_parser = rate,
        allow_negative_numbers = true)]
    pub(in crate::cli) requests_per_second: f64,
    /// When the history ends and the simulation starts [default: now]
    #[arg(long, env = "DECAGON_NOW", value_name = "TIME", value_parser = parse_user_time)]
    pub(in crate::cli) now: Option<DateTime<Utc>>,
    /// How many seconds pass in the simulation for each real one; 0 stops time
    #[arg(long, env = "DECAGON_SPEED", value_name = "N", default_value_t = 1.0, value_parser = rate,
        allow_negative_numbers = true)]
    pub(in crate::cli) speed: f64,
    /// What the next page's cursor is called; the API's own page has all three
    #[arg(long, env = "DECAGON_CURSOR_NAME", value_enum, default_value_t = CursorName::NextCursor)]
    pub(in crate::cli) cursor_name: CursorName,
    /// What the bounds mean where no timestamp_filter is sent
    #[arg(long, env = "DECAGON_DEFAULT_FILTER", value_enum, default_value_t = TimestampFilter::CreatedAt)]
    pub(in crate::cli) default_filter: TimestampFilter,
    /// Let every Nth response be one of the failures that the API has: 500 and 503 with HTML, 429 without Retry-After,
    /// a body cut short, an empty page with a cursor
    #[arg(long, env = "DECAGON_FAULT_EVERY", value_name = "N", default_value_t = 0)]
    pub(in crate::cli) fault_every: u32,
    /// Answer 403, as to an account without the entitlement
    #[arg(long, env = "DECAGON_NOT_ENTITLED", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) not_entitled: bool,
    /// Leave out updated_at and last_message_at, as the API's own example does
    #[arg(long, env = "DECAGON_NO_UPDATED_AT", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) no_updated_at: bool,
    /// Ignore timestamp_filter: the bounds always mean what they mean without it
    #[arg(long, env = "DECAGON_IGNORE_FILTER", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) ignore_filter: bool,
}

/// `demo`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct DemoArgs {
    /// Where the lake is made; what an earlier demo left there is replaced
    #[arg(long, env = "DECAGON_DEMO_LAKE", value_name = "DIR", default_value = "demo-lake",
        value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) lake: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) world: WorldArgs,
}

/// A key that a client would refuse is of no use to the server.
fn api_key(text: &str) -> Result<String, String> {
    match ApiKey::new(text, "--accept-key") {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
