//! What can be typed: commands, flags and their environment variables.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::{DateTime, Utc};
use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{BoolishValueParser, PathBufValueParser, StringValueParser};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde_json::Value;
use url::Url;

use crate::api::DEFAULT_BASE_URL;
use crate::clock::Clock;
use crate::error::Result;
use crate::export::{OnBadRecord, OnIgnoredFilter};
use crate::lake::{Format, Lake};
use crate::model::{TimestampFilter, parse_user_time};

mod compact;
mod history;
mod metrics;
mod place;
mod simulate;
mod store;
mod views;

pub(super) use compact::{CompactArgs, RetainArgs};
pub(super) use history::HistoryArgs;
pub(super) use metrics::MetricsArgs;
use place::place;
pub(super) use simulate::{DemoArgs, SimulateArgs};
pub(super) use store::StoreArgs;
pub(super) use views::ViewsArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Try it without an account:
  decagon-lake demo

Export an account into a folder or bucket, then again every hour (cron, Airflow, …):
  export DECAGON_API_KEY=…  DECAGON_LAKE=s3://bucket/decagon
  decagon-lake check
  decagon-lake sync

Fetch a range of time again:
  decagon-lake backfill --from 2024-01-01 --to 2024-02-01
  decagon-lake compact

Exit codes:
  0 done                                        5 the store failed
  2 usage or configuration                      6 data was set aside, or an invariant does not hold
  3 the API refused or broke its contract       7 another run holds the lake
  4 the API could not be reached                70 a bug, 130 interrupted";

/// Exports the conversations of a Decagon account into a data lake of Parquet tables.
///
/// Pulls `GET /conversation/export` page by page and keeps four tables, partitioned by the date a conversation was
/// created: conversations, messages, tags and audit_logs. Each conversation is in them once, as its newest copy.
#[derive(Debug, Parser)]
#[command(name = "decagon-lake", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_override_self = true)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
    /// How log lines on stderr are written
    #[arg(long, global = true, env = "DECAGON_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
    /// Tell more
    #[arg(short, long, global = true, env = "DECAGON_VERBOSE", value_parser = BoolishValueParser::new())]
    pub(super) verbose: bool,
    /// Tell only warnings and errors; goes before --verbose
    #[arg(short, long, global = true, env = "DECAGON_QUIET", value_parser = BoolishValueParser::new())]
    pub(super) quiet: bool,
}

impl Cli {
    /// What was typed, and what the environment adds. A variable that is empty is as good as unset: schedulers and Compose
    /// files pass on what they do not have.
    pub(super) fn from_process() -> Self {
        let filled = |flag: Arg| {
            let is_empty = flag.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if is_empty { flag.env(None::<&str>) } else { flag }
        };
        let mut command = Self::command().mut_args(filled).mut_subcommands(|command| command.mut_args(filled));
        let matches = command.get_matches_mut();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Export what changed, then compact: what a schedule runs
    Sync(SyncArgs),
    /// Fetch what changed since the last export (the first time: everything) and land it
    Export(ExportArgs),
    /// Fetch a range of time and land it, leaving the incremental export alone
    Backfill(BackfillArgs),
    /// Bring what is landed into the tables, one row per conversation
    Compact(CompactArgs),
    /// Tell what the lake holds and how far it has come
    Status(LakeArgs),
    /// Check what the lake promises, and mend what can be mended
    Verify(VerifyArgs),
    /// Print the statements that make the tables visible in a query engine
    Views(ViewsArgs),
    /// Try whatever a run needs of the lake's store and of the API: what one runs first
    Check(CheckArgs),
    /// Serve a simulated export API on this machine
    Simulate(SimulateArgs),
    /// See all of it work, on simulated conversations
    Demo(DemoArgs),
    /// Print what a shell needs to complete commands and flags
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page: decagon-lake man | man -l -
    Man,
}

/// Where the lake is, and how the result is told: all that most commands need.
#[derive(Debug, Clone, Args)]
pub(super) struct LakeArgs {
    /// The lake: a path or a URL (s3://bucket/prefix, gs://bucket/prefix, az://container/prefix)
    #[arg(long, env = "DECAGON_LAKE", value_name = "URL", value_parser = place(StringValueParser::new()))]
    pub(super) lake: String,
    /// Print the result as JSON on stdout
    #[arg(long, env = "DECAGON_JSON", value_parser = BoolishValueParser::new())]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

impl LakeArgs {
    /// Opens the lake.
    ///
    /// # Errors
    /// Where the address is not one of a store.
    pub(super) fn open(&self, clock: Clock) -> Result<Lake> {
        Lake::open(&self.lake, &self.store.options(), clock)
    }
}

/// How to reach the API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub(super) struct ApiArgs {
    /// The API's address; accounts in the EU have https://eu.api.decagon.ai
    #[arg(long, env = "DECAGON_BASE_URL", value_name = "URL", default_value = DEFAULT_BASE_URL,
        value_parser = place(Url::parse))]
    pub(super) base_url: Url,
    /// A file with the API key; without it the key is taken from DECAGON_API_KEY
    #[arg(long, env = "DECAGON_API_KEY_FILE", value_name = "FILE",
        value_parser = place(PathBufValueParser::new()))]
    pub(super) api_key_file: Option<PathBuf>,
    /// How many requests may start in a second, retries included; 0 is unlimited (the API bans whom it catches)
    #[arg(long, env = "DECAGON_REQUESTS_PER_SECOND", value_name = "N", default_value_t = 1.0, value_parser = rate,
        allow_negative_numbers = true)]
    pub(super) requests_per_second: f64,
    /// How many conversations to ask for at once; by default the API decides
    #[arg(long, env = "DECAGON_PAGE_SIZE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) page_size: Option<u32>,
    /// Export only these users' conversations: a JSON object, as in {"metadata_filter": {"plan": "pro"}}
    #[arg(long, env = "DECAGON_USER_FILTERS", value_name = "JSON", value_parser = json_object)]
    pub(super) user_filters: Option<Value>,
    /// How often one request is tried
    #[arg(long, env = "DECAGON_MAX_TRIES", value_name = "N", default_value_t = 10, hide_short_help = true)]
    pub(super) max_tries: u32,
    /// How long one request is tried for
    #[arg(long, env = "DECAGON_MAX_RETRY_TIME", value_name = "DURATION", default_value = "15m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(super) max_retry_time: Duration,
    /// How long one try may take
    #[arg(long, env = "DECAGON_TIMEOUT", value_name = "DURATION", default_value = "2m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(super) timeout: Duration,
    /// The largest response that is read
    #[arg(
        long,
        env = "DECAGON_MAX_RESPONSE_BYTES",
        value_name = "SIZE",
        default_value = "256MiB",
        value_parser = response_bytes,
        hide_short_help = true
    )]
    pub(super) max_response_bytes: ByteSize,
    /// Allow plain http to other machines, which shows them the key
    #[arg(long, env = "DECAGON_ALLOW_HTTP", value_parser = BoolishValueParser::new(), hide_short_help = true)]
    pub(super) allow_http: bool,
}

/// When fetched rows are landed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Landing")]
pub(super) struct FlushArgs {
    /// Land after this many conversations
    #[arg(
        long,
        env = "DECAGON_FLUSH_CONVERSATIONS",
        value_name = "N",
        default_value_t = 16_000,
        hide_short_help = true
    )]
    pub(super) flush_conversations: u64,
    /// Land after this much JSON, which is about what it takes in memory
    #[arg(long, env = "DECAGON_FLUSH_BYTES", value_name = "SIZE", default_value = "32MiB", hide_short_help = true)]
    pub(super) flush_bytes: ByteSize,
    /// Land after this much time
    #[arg(long, env = "DECAGON_FLUSH_INTERVAL", value_name = "DURATION", default_value = "5m",
        value_parser = humantime::parse_duration, hide_short_help = true)]
    pub(super) flush_interval: Duration,
}

/// What `export`, `sync` and `backfill` have in common.
#[derive(Debug, Clone, Args)]
pub(super) struct FetchArgs {
    /// Do not go on where an earlier run of this command was interrupted, but begin anew
    #[arg(long, env = "DECAGON_RESTART", value_parser = BoolishValueParser::new())]
    pub(super) restart: bool,
    /// What to do with an entry of the export that is no conversation
    #[arg(long, env = "DECAGON_ON_BAD_RECORD", value_enum, default_value_t = OnBadRecord::Quarantine)]
    pub(super) on_bad_record: OnBadRecord,
    /// How the tables are kept, which is decided when a lake is made [default: parquet]
    #[arg(long, env = "DECAGON_FORMAT", value_enum)]
    pub(super) format: Option<Format>,
    #[command(flatten)]
    pub(super) history: HistoryArgs,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
    // What follows has headings of its own, which last.
    #[command(flatten)]
    pub(super) to: LakeArgs,
    #[command(flatten)]
    pub(super) api: ApiArgs,
    #[command(flatten)]
    pub(super) flush: FlushArgs,
}

/// `sync`.
#[derive(Debug, Clone, Args)]
pub(super) struct SyncArgs {
    /// Compact what is there so far after this many pages of a long walk, so that there are tables before its end
    #[arg(long, env = "DECAGON_COMPACT_EVERY", value_name = "PAGES", default_value_t = 2_000, hide_short_help = true,
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) compact_every: u64,
    #[command(flatten)]
    pub(super) keep: RetainArgs,
    #[command(flatten)]
    pub(super) export: ExportArgs,
}

/// `export`, and what `sync` does first.
#[derive(Debug, Clone, Args)]
pub(super) struct ExportArgs {
    /// Fetch what changed up to this long before the newest known change again, in case the API was late
    #[arg(long, env = "DECAGON_OVERLAP", value_name = "DURATION", default_value = "10m",
        value_parser = humantime::parse_duration)]
    pub(super) overlap: Duration,
    /// What to do where the API turns out to ignore timestamp_filter, so that what changed cannot be asked for
    #[arg(long, env = "DECAGON_ON_IGNORED_FILTER", value_enum, default_value_t = OnIgnoredFilter::Fail)]
    pub(super) on_ignored_filter: OnIgnoredFilter,
    #[command(flatten)]
    pub(super) fetch: FetchArgs,
}

/// `backfill`.
#[derive(Debug, Clone, Args)]
pub(super) struct BackfillArgs {
    /// The first moment: RFC 3339, YYYY-MM-DD (midnight UTC) or epoch seconds
    #[arg(long, env = "DECAGON_FROM", value_name = "TIME", value_parser = parse_user_time)]
    pub(super) from: DateTime<Utc>,
    /// The first moment that is not included any more
    #[arg(long, env = "DECAGON_TO", value_name = "TIME", value_parser = parse_user_time)]
    pub(super) to: DateTime<Utc>,
    /// Which time of a conversation the range means
    #[arg(long, env = "DECAGON_TIMESTAMP_FILTER", value_enum, default_value_t = TimestampFilter::UpdatedAt)]
    pub(super) timestamp_filter: TimestampFilter,
    #[command(flatten)]
    pub(super) fetch: FetchArgs,
}

/// `verify`.
#[derive(Debug, Clone, Args)]
pub(super) struct VerifyArgs {
    /// Where a conversation is under two dates, keep the newest copy alone
    #[arg(long, env = "DECAGON_REPAIR", value_parser = BoolishValueParser::new())]
    pub(super) repair: bool,
    #[command(flatten)]
    pub(super) of: LakeArgs,
}

/// `check`.
#[derive(Debug, Clone, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) of: LakeArgs,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.000_1..=1e9).contains(&rate) => Ok(rate),
        _ => Err("expected 0, or a number from 0.0001 to a billion".to_owned()),
    }
}

/// A page is held in memory, several times over, and a column of it must not reach 2 GiB.
fn response_bytes(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>()? {
        size if size <= ByteSize::gib(1) => Ok(size),
        _ => Err("expected 1GiB at most".to_owned()),
    }
}

fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err("expected a JSON object, as in {\"deflected_filter\": true}".to_owned()),
        Err(error) => Err(format!("expected a JSON object: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every flag can be set from the environment; the API key only from there or from a file.
    #[test]
    fn every_flag_has_an_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let (id, name) = (flag.get_id().as_str(), flag.get_env());
                let named = name.is_some_and(|name| name.to_string_lossy().starts_with("DECAGON_"));
                assert!(named || id == "help" || flag.is_positional(), "{} --{id}", command.get_name());
                assert_ne!(id, "api_key");
            }
        }
    }
}
