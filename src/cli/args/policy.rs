//! Flags of the policy, and the command `policy`.

use std::path::PathBuf;

use clap::builder::PathBufValueParser;
use clap::{Args, Subcommand};

use super::place::place;

/// The key of the policy's hashes.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PolicyKeyArgs {
    /// Read the key of the policy's hashes from this file instead of DECAGON_POLICY_KEY
    #[arg(long, env = "DECAGON_POLICY_KEY_FILE", value_name = "FILE", hide_short_help = true,
        value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) policy_key_file: Option<PathBuf>,
}

/// The policy of a lake.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PolicyArgs {
    /// Mask what this policy covers before it lands: a TOML file, see docs/privacy.md
    ///
    /// The lake keeps it, so later runs need not name it again. A weaker policy is refused. A stricter one covers what
    /// is fetched from then on; `upgrade` applies it to what the lake holds. Rules that hash need DECAGON_POLICY_KEY.
    #[arg(long, env = "DECAGON_POLICY", value_name = "FILE", value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) policy: Option<PathBuf>,
}

/// The commands below `policy`.
#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    /// Show what would land: reads a page of the API, a list of conversations or one conversation on stdin
    ///
    /// Prints the masked JSON on stdout, and on stderr how often each rule applied. Needs no lake and no account.
    Test(PolicyTestArgs),
}

/// `policy test`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PolicyTestArgs {
    /// Test this policy
    #[arg(long, env = "DECAGON_POLICY", value_name = "FILE", value_parser = place(PathBufValueParser::new()))]
    pub(in crate::cli) policy: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) key: PolicyKeyArgs,
}
