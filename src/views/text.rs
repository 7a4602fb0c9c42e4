//! What the statements of all engines have in common: quoting, comments, and what they say of the views.

use super::place::LakeAddress;

/// A piece of text as SQL has it in all dialects but those that know backslashes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The same where a backslash begins an escape: Spark, BigQuery, Snowflake.
pub(super) fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Lines of a comment.
pub(super) fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("-- {line}").trim_end().to_owned() + "\n").collect()
}

/// What every engine's statements begin with.
pub(super) fn about(place: &LakeAddress, engine: &str) -> String {
    // The address is the user's own text, which must not end the comment.
    let url = place.told().replace(['\n', '\r'], " ");
    format!("-- The tables of the lake {url} in {engine}, by `decagon-lake views`.\n")
}

/// What could not be tried.
pub(super) const UNTRIED: &str =
    "These statements follow the engine's documentation and were not run: none could be had for tests.";

/// What the views of the newest copies promise.
pub(super) const LATEST: &[&str] = &[
    "",
    "…_latest: the tables as the next `compact` will leave them, from the tables and from what is landed. A compaction may",
    "run meanwhile: it replaces the tables before it forgets what was landed, so a conversation is there once all along. A",
    "query whose files are replaced or removed under it ends with an error of its engine: ask again.",
];

/// Where a filter by date is known to get through to the files.
pub(super) const PRUNED: &str = "Filter by created_date where you can: only those dates are read.";

/// Where there are no tables yet.
pub(super) const NO_TABLES: &[&str] = &[
    "The lake has no tables yet: once `compact` has made them, print these statements again for the views of them. Before",
    "anything is landed there is no file to take the columns from, and none of these views can be made.",
];
