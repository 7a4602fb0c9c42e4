//! The commands, and the flags of all commands.

use clap::builder::BoolishValueParser;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::choice::choice;
use super::compact::{CompactArgs, UpgradeArgs};
use super::export::{BackfillArgs, ExportArgs, SyncArgs};
use super::forget::ForgetArgs;
use super::heading::OUTPUT;
use super::inspect::{CheckArgs, VerifyArgs, ViewsArgs};
use super::policy::PolicyCommand;
use super::reconcile::ReconcileArgs;
use super::report::{ReportArgs, StatusArgs};
#[cfg(feature = "simulate")]
use super::simulate::{DemoArgs, SimulateArgs};

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

Compare the lake with the API once a week, and mark what was deleted there:
  decagon-lake reconcile --on-deleted mark

Exit codes:
  0 done                                    5 the store failed
  2 usage or configuration                  6 data was quarantined, or an invariant does not hold
  3 the API refused or broke its contract   7 another run holds the lake
  4 the API could not be reached            70 internal error, 130 interrupted";

/// Export the conversations of a Decagon account into a data lake of Parquet tables.
///
/// Fetches `GET /conversation/export` page by page and keeps four tables: conversations, messages, tags and audit_logs.
/// They are partitioned by the day or month in which a conversation was created, and hold its latest version.
///
/// Every flag has an environment variable; an empty variable counts as unset.
#[derive(Debug, Parser)]
#[command(name = "decagon-lake", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_override_self = true)]
pub(in crate::cli) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
    /// Choose the form of log lines on stderr
    #[arg(long, global = true, help_heading = OUTPUT, display_order = 900, env = "DECAGON_LOG_FORMAT",
        value_name = "FORMAT", default_value = "text", value_parser = choice([
            (LogFormat::Text, "text", "Lines for people"),
            (LogFormat::Json, "json", "One JSON object per line"),
        ]))]
    pub(in crate::cli) log_format: LogFormat,
    /// Log debug messages
    #[arg(short, long, global = true, help_heading = OUTPUT, display_order = 901, env = "DECAGON_VERBOSE",
        value_parser = BoolishValueParser::new())]
    pub(in crate::cli) verbose: bool,
    /// Log warnings and errors only; overrides --verbose
    #[arg(short, long, global = true, help_heading = OUTPUT, display_order = 902, env = "DECAGON_QUIET",
        value_parser = BoolishValueParser::new())]
    pub(in crate::cli) quiet: bool,
}

impl Cli {
    /// Reads the process's arguments and environment. An empty variable counts as unset, because schedulers and Compose
    /// files pass on variables without a value.
    pub(in crate::cli) fn from_process() -> Self {
        let filled = |flag: Arg| {
            let is_empty = flag.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if is_empty { flag.env(None::<&str>) } else { flag }
        };
        let inner =
            |command: clap::Command| command.mut_args(filled).mut_subcommands(|command| command.mut_args(filled));
        let mut command = Self::command().mut_args(filled).mut_subcommands(inner);
        let matches = command.get_matches_mut();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Export what changed, then compact; run this on a schedule
    ///
    /// The first run fetches the whole history. To continue an interrupted run, run the command again.
    Sync(SyncArgs),
    /// Fetch the changes since the last export (at first: the whole history) into staging
    ///
    /// Run `compact` to merge the staged files into the tables; `sync` does both.
    Export(ExportArgs),
    /// Fetch a range of time into staging; does not move the watermark
    ///
    /// Run `compact` to merge the staged files into the tables.
    Backfill(BackfillArgs),
    /// Merge staged files into the tables, one row per conversation
    Compact(CompactArgs),
    /// Bring an older lake to the form that this release writes; change what a lake keeps for good
    ///
    /// Compacts, then rewrites the partitions that lack newer columns or have older encodings, and fills the new
    /// columns from `extra` and `metadata`. Can be interrupted and run again. `status` says what there is to do.
    Upgrade(UpgradeArgs),
    /// Erase people from every place in the lake, and keep them out
    ///
    /// Removes their conversations from the tables, staged files, old versions of Delta tables, quarantined entries,
    /// reports and older checkpoints, and keeps later runs from fetching them again. Prints a receipt, which stays in
    /// _state/receipts. Can be interrupted and run again; without anybody named, it completes an interrupted run.
    Forget(ForgetArgs),
    /// Compare the lake with the API: fetch what is missing, and find what was deleted at the source
    ///
    /// Walks the API over created_at and compares ids and change times with the lake. A conversation counts as deleted
    /// only if a complete walk and a second request both lack it. To continue an interrupted run, run the command again.
    Reconcile(ReconcileArgs),
    /// Show on one screen whether the lake is healthy, how fresh it is, what it holds, and what to do next
    Status(StatusArgs),
    /// Write a page for the support team and the data team: one HTML file with charts
    ///
    /// Needs no network and no server to look at: open it from disk, mail it, or put it beside the lake. Shows ids of
    /// conversations and names of tags, but no texts and nothing about people.
    Report(ReportArgs),
    /// Read the whole lake and report every problem
    ///
    /// Exits with 6 if there is one. Writes nothing without --repair.
    Verify(VerifyArgs),
    /// Print the SQL that makes the tables visible in a query engine
    ///
    /// Views named …_latest include the staged rows that `compact` has not merged yet.
    Views(ViewsArgs),
    /// Check that the store and the API work; run this first
    ///
    /// Leaves nothing behind in the lake and keeps the account's rate limit.
    Check(CheckArgs),
    /// Show what a policy does to conversations
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Serve a simulated export API on this machine
    ///
    /// Prints its address on stdout.
    #[cfg(feature = "simulate")]
    Simulate(SimulateArgs),
    /// Show everything at work on simulated conversations
    #[cfg(feature = "simulate")]
    Demo(DemoArgs),
    /// Print a shell's completions for commands and flags
    Completions {
        /// Complete for this shell
        shell: Shell,
    },
    /// Print the manual page: decagon-lake man | man -l -
    Man,
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

    /// Every flag that takes a path or an address refuses stray characters, and names its variable.
    #[test]
    fn paths_and_addresses_in_quotes_are_refused() {
        let mut flags = 0;
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let names = flag.get_value_names().unwrap_or_default();
                if !names.iter().any(|name| ["URL", "FILE", "DIR", "PATH"].contains(&name.as_str())) {
                    continue;
                }
                flags += 1;
                for value in ["\"x\"", "x ", "~/x", "$HOME/x"] {
                    let typed = format!("--{}={value}", flag.get_long().unwrap());
                    let refused = Cli::command().try_get_matches_from(["decagon-lake", command.get_name(), &typed]);
                    let error = refused.unwrap_err();
                    let message = error.to_string();
                    let variable = flag.get_env().unwrap().to_string_lossy();
                    assert!(message.contains("hint: ") && message.contains(variable.as_ref()), "{typed}: {message}");
                    assert_eq!(error.exit_code(), 2);
                }
            }
        }
        assert!(flags > 20, "{flags} were found");
    }
}
