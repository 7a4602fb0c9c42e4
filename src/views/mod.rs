//! The SQL statements that make a lake's tables visible in a query engine.
//!
//! For each table there is a name for the compacted rows (`messages`) and one that includes staged rows
//! (`messages_latest`). The latter build on `landed_files`, the staged files that the newest checkpoint names;
//! `…_copies`, all versions of a table's rows; and `newest_copies`, the latest versions. `conversations_current` leaves
//! out the conversations that are marked as deleted.
//! Guarantees: `…_latest` is right before, during and after a compaction. New partitions and files are visible without
//! new statements, because each query finds them itself.
//! Must not depend on: the content of the lake. Everything here is pure.

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
use crate::lake::{Format, Identity};
use place::LakeAddress;
pub use text::TableFiles;

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

/// Builds the statements for the lake `identity` at `url`, whose tables have these `files`.
///
/// # Errors
/// If the engine cannot read a lake there, or cannot read it yet.
pub fn statements(url: &str, engine: Engine, identity: &Identity, files: TableFiles) -> Result<String> {
    let (format, by) = (identity.format, identity.partition_by);
    let columns = &identity.written_columns();
    let has_tables = files != TableFiles::None;
    if format == Format::Delta && !has_tables {
        return Err(Error::usage(format!("the lake {url} has no tables yet"))
            .with_hint("run `decagon-lake compact` first, which creates the Delta tables"));
    }
    let place = LakeAddress::parse(url)?;
    let written = match engine {
        Engine::Duckdb => duckdb::statements(&place, format, by, columns, files),
        Engine::Spark => spark::statements(&place, format, by, columns, has_tables)?,
        Engine::Athena => athena::statements(&place, format, by, columns)?,
        Engine::Bigquery => bigquery::statements(&place, format, by, columns)?,
        Engine::Snowflake => snowflake::statements(&place, format, by, columns)?,
    };
    Ok(written)
}
