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
mod text;

use crate::error::{Error, Result};
use crate::lake::Format;
use place::LakeAddress;

/// A query engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    let place = LakeAddress::parse(url)?;
    let written = match engine {
        Engine::Duckdb => duckdb::statements(&place, format, has_tables),
        Engine::Spark => spark::statements(&place, format, has_tables)?,
        Engine::Athena => athena::statements(&place, format)?,
        Engine::Bigquery => bigquery::statements(&place, format)?,
        Engine::Snowflake => snowflake::statements(&place, format)?,
    };
    Ok(written)
}
