//! The statements that make a lake's tables visible in a query engine: what `views` prints.
//!
//! For each table there is one name for what is compacted (`messages`) and one for what is compacted and landed together
//! (`messages_latest`), which is right before a compaction, while one runs, and after it. The latter rest on three more:
//! `landed_files`, what the newest checkpoint names; `…_copies`, every copy of a table's rows; and `newest_copies`, which of
//! them count. Nothing in them is fixed when they are made, neither dates nor files: they are worked out by each query.
//!
//! Pure: text from the lake's address, the columns, the engine and the format. Must not know: what the lake holds.

mod athena;
mod bigquery;
mod duckdb;
mod latest;
mod place;
mod snowflake;
mod spark;
#[cfg(test)]
mod tests;

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::lake::Format;
use place::Place;

/// A query engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// DuckDB.
    Duckdb,
    /// Apache Spark.
    Spark,
    /// Amazon Athena.
    Athena,
    /// Google BigQuery.
    Bigquery,
    /// Snowflake.
    Snowflake,
}

/// The statements for a lake at `url`. Before the first compaction there are no tables: `has_tables` is false.
///
/// # Errors
/// Where the engine cannot read a lake there, or not yet.
pub fn statements(url: &str, engine: Engine, format: Format, has_tables: bool) -> Result<String> {
    if format == Format::Delta && !has_tables {
        return Err(Error::usage(format!("the lake {url} has no tables yet"))
            .with_hint("run `compact` first: a Delta table begins with its first commit"));
    }
    let place = Place::parse(url)?;
    let written = match engine {
        Engine::Duckdb => duckdb::statements(&place, format, has_tables),
        Engine::Spark => spark::statements(&place, format, has_tables)?,
        Engine::Athena => athena::statements(&place, format)?,
        Engine::Bigquery => bigquery::statements(&place, format)?,
        Engine::Snowflake => snowflake::statements(&place, format)?,
    };
    Ok(written)
}

/// A piece of text as SQL has it in all dialects but those that know backslashes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The same where a backslash begins an escape: Spark, BigQuery, Snowflake.
fn escaped(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Lines of a comment.
fn comment(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("-- {line}").trim_end().to_owned() + "\n").collect()
}

/// What every engine's statements begin with.
fn about(place: &Place, engine: &str) -> String {
    // The address is the user's own text, which must not end the comment.
    let url = place.told().replace(['\n', '\r'], " ");
    format!("-- The tables of the lake {url} in {engine}, by `decagon-lake views`.\n")
}

/// What could not be tried.
const UNTRIED: &str =
    "These statements follow the engine's documentation and were not run: none could be had for tests.";

/// What the views of the newest copies promise.
const LATEST: &[&str] = &[
    "",
    "…_latest: the tables as the next `compact` will leave them, from the tables and from what is landed. A compaction may",
    "run meanwhile: it replaces the tables before it forgets what was landed, so a conversation is there once all along. A",
    "query whose files are replaced or removed under it ends with an error of its engine: ask again.",
];

/// Where a filter by date is known to get through to the files.
const PRUNED: &str = "Filter by created_date where you can: only those dates are read.";

/// Where there are no tables yet.
const NO_TABLES: &[&str] = &[
    "The lake has no tables yet: once `compact` has made them, print these statements again for the views of them. Before",
    "anything is landed there is no file to take the columns from, and none of these views can be made.",
];
