//! The common parts of the statements of all engines: quoting, comments about the views, and which files there are.

use super::place::LakeAddress;
use crate::model::PartitionBy;

/// The files of a lake's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFiles {
    /// There are none before the first compaction.
    None,
    /// Some lack newer columns.
    Mixed,
    /// All have the same columns.
    Alike,
}

/// Quotes text for a dialect without backslash escapes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes text for a dialect with backslash escapes: Spark, BigQuery, Snowflake.
pub(super) fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Formats lines as a comment.
pub(super) fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("-- {line}").trim_end().to_owned() + "\n").collect()
}

/// The first line of every engine's statements.
pub(super) fn about(place: &LakeAddress, engine: &str) -> String {
    // A line break in the address must not end the comment.
    let url = place.url().replace(['\n', '\r'], " ");
    format!("-- The tables of the lake {url} in {engine}, by `decagon-lake views`.\n")
}

/// The comment of engines whose statements no test runs.
pub(super) const UNTRIED: &str =
    "These statements follow the engine's documentation and were never run: the tests cannot reach the engine.";

/// What the views of the latest versions guarantee.
pub(super) const LATEST: &[&str] = &[
    "",
    "…_latest: the tables as the next `compact` will leave them, from table files and staged files. A conversation",
    "occurs exactly once even during a compaction, which replaces the table files before it removes the staged files.",
    "If a file is replaced or deleted during a query, the engine may report an error: run the query again.",
    "conversations_current: conversations_latest without those that `reconcile --on-deleted mark` has marked in",
    "deleted_at, because the API no longer has them. All other tables and views have them too.",
];

/// For engines that are known to pass a filter by date to the files.
pub(super) fn pruned(by: PartitionBy) -> String {
    format!("Filter by {} if you can: the engine then reads only those partitions.", by.column())
}

/// For a lake without tables.
pub(super) const NO_TABLES: &[&str] = &[
    "The lake has no tables yet: print these statements again after the first `compact` to get the views of the",
    "tables. Before the first export these views cannot be created either, because no file has the columns.",
];
