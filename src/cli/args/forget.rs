//! Flags of `forget`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{BoolishValueParser, NonEmptyStringValueParser, PathBufValueParser};

use super::compact::CompactArgs;
use super::place::place;
use crate::error::{Error, Result};
use crate::model::Selector;

/// `forget`.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// Forget the conversations that ever belonged to this user, as far as the lake knows; may be repeated
    #[arg(long, display_order = 1, env = "DECAGON_USER_ID", value_name = "ID", hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new())]
    user_id: Vec<String>,
    /// Forget this conversation, also if the lake does not have it yet; may be repeated
    #[arg(long, display_order = 2, env = "DECAGON_CONVERSATION_ID", value_name = "ID", hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new())]
    conversation_id: Vec<String>,
    /// Forget the conversations with this value, as in metadata.email=jane@example.com; may be repeated
    ///
    /// FIELD is a column of `conversations`, or a path below metadata, extra or another column of JSON. The value must
    /// be equal, as text.
    #[arg(
        long = "match",
        display_order = 3,
        env = "DECAGON_MATCH",
        value_name = "FIELD=VALUE",
        hide_env_values = true
    )]
    matching: Vec<Selector>,
    /// Read what to forget from a file (- means stdin): a line for each, as conversation_id=ID, user_id=ID or
    /// metadata.KEY=VALUE
    ///
    /// A line without = is the id of a conversation. Empty lines, and lines that begin with #, do not count.
    #[arg(long, display_order = 4, env = "DECAGON_FROM_FILE", value_name = "FILE",
        value_parser = place(PathBufValueParser::new()))]
    from_file: Option<PathBuf>,
    /// Change nothing; print what would be erased
    #[arg(long, display_order = 5, env = "DECAGON_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub(in crate::cli) dry_run: bool,
    /// Let the conversations named by --conversation-id or --from-file come back, instead of erasing them
    ///
    /// Fetch them again with `backfill`.
    #[arg(long, display_order = 6, env = "DECAGON_LIFT", value_parser = BoolishValueParser::new(),
        conflicts_with_all = ["user_id", "matching"])]
    pub(in crate::cli) lift: bool,
    /// Put this text into the receipt: who asked for the erasure, and why; name no person
    #[arg(long, display_order = 7, env = "DECAGON_REASON", value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) compact: CompactArgs,
}

impl ForgetArgs {
    /// What to forget. Reads the file, if there is one.
    ///
    /// # Errors
    /// Kind `Usage` if it cannot be read, or has a line that names nothing.
    pub(in crate::cli) fn selectors(&self) -> Result<Vec<Selector>> {
        let mut selectors: Vec<_> = self.user_id.iter().map(|id| Selector::user(id)).collect();
        selectors.extend(self.conversation_id.iter().map(|id| Selector::conversation(id)));
        selectors.extend(self.matching.iter().cloned());
        if let Some(file) = &self.from_file {
            let failed = |error| Error::usage(format!("cannot read {}", file.display())).caused_by(error);
            let text = match file.to_str() {
                Some("-") => std::io::read_to_string(std::io::stdin()).map_err(failed)?,
                _ => std::fs::read_to_string(file).map_err(failed)?,
            };
            selectors.extend(listed(&text).map_err(|(line, fault)| {
                Error::usage(format!("cannot read line {line} of {}: {fault}", file.display()))
                    .with_hint("write conversation_id=ID, user_id=ID or metadata.KEY=VALUE, one in a line")
            })?);
        }
        Ok(selectors)
    }
}

/// What the lines of a file name; else the number of the first line that names nothing, and why.
fn listed(text: &str) -> Result<Vec<Selector>, (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.contains('=') {
            true => line.parse().map_err(|fault| (number, fault)),
            false => Ok(Selector::conversation(line)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_one_thing_in_a_line() {
        let text = "\u{feff}# of ticket 7\nc-1\r\n\n  user_id=u=5\nmetadata.email=j@x.com\n";
        let expected = ["conversation_id=c-1", "user_id=u=5", "metadata.email=j@x.com"];
        assert_eq!(listed(text).unwrap(), expected.map(|typed| typed.parse::<Selector>().unwrap()));
        assert_eq!(listed("c-1\n\nuser_id=").unwrap_err().0, 3);
    }
}
