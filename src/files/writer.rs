//! Writes the Parquet files of a lake: staged files and table files.
//!
//! A staged file has first the latest version of each conversation, then the older versions in row groups of their own.
//! Both parts are sorted like a table file, so `promote` can copy the first part. Must not depend on: which files a
//! lake has.

use std::io::Write;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::{Error, Result};
use crate::model::{Column, ColumnKind, ColumnSource, RowPolicy, Table, TableColumns};

/// The most rows of a row group. A lookup of one conversation by id reads one row group of each table. In a date of
/// 100,000 conversations and 1,000,000 messages, DuckDB finds the messages of one in 7 ms (reading 0.8 MB); with groups
/// of 64 Ki rows in 11 ms (2.2 MB), of 256 Ki in 33 ms (6.9 MB). Smaller groups save 1 ms more and cost 1 % more bytes.
const MAX_ROW_GROUP_ROWS: usize = 16 << 10;
/// The most bytes of a row group, because a reader and the writer hold one in memory.
const MAX_ROW_GROUP_BYTES: usize = 32 << 20;
/// The same for files that are merged soon, because a merge has a row group of each input in memory.
const STAGING_ROW_GROUP_BYTES: usize = 512 << 10;
/// How many rows are written at a time, so that a row group of a staged file can end in between.
const STAGING_WRITE_ROWS: usize = 1 << 10;
/// The writer's name in every file, in the form that parquet-java parses, because without it that ignores statistics of
/// text columns. The build names the encoding library.
pub(crate) const CREATED_BY: &str =
    concat!("decagon-lake version ", env!("CARGO_PKG_VERSION"), " (build parquet-rs 60)");
/// The start of that name in the files of every release.
pub(crate) const OWN: &str = "decagon-lake ";
/// Columns whose text hardly ever repeats; a dictionary would cost time, and 7 % of the bytes of a lake.
const FREE_TEXT: [&str; 7] =
    ["text", "summary", "resolution", "customer_feedback", "notes", "conversation_url", "message_id"];

/// The key in a staged file's footer of the number of row groups, from the first, with the latest versions.
const LATEST_ROW_GROUPS: &str = "decagon_lake.newest_row_groups";
/// The key in a footer of the policy that the rows follow.
const POLICY: &str = "decagon_lake.policy";

/// The purpose of a file, which decides its compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenFor {
    /// Queries, now or after the file is promoted.
    Table,
    /// A merge soon. Snappy is fast and needs hardly any memory to read; zstd needs some 150 kB for each column of each
    /// file of a merge.
    Staging,
}

/// Writes a Parquet file of a table.
pub struct TableWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    write_rows: usize,
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a file of `table` that is written to `target`.
    ///
    /// # Errors
    /// Only on a bug.
    pub fn begin(table: &TableColumns, written_for: WrittenFor, target: W) -> Result<Self> {
        let mut file = Self::with_properties(table, properties(table, written_for)?, target)?;
        if written_for == WrittenFor::Staging {
            file.write_rows = STAGING_WRITE_ROWS;
        }
        Ok(file)
    }

    pub(super) fn with_properties(table: &TableColumns, properties: WriterProperties, target: W) -> Result<Self> {
        // The Arrow schema would repeat Parquet's own, and takes 1.5 kB in each file.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(target, table.schema(), options)
            .map_err(|error| Error::bug("cannot set up a Parquet file").caused_by(error))?;
        Ok(TableWriter { writer, write_rows: usize::MAX })
    }

    /// Ends the rows of the latest versions.
    pub(super) fn end_latest(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()?;
        let latest_row_groups = self.writer.flushed_row_groups().len().to_string();
        self.writer.append_key_value_metadata(KeyValue::new(LATEST_ROW_GROUPS.to_owned(), latest_row_groups));
        Ok(())
    }

    /// Writes the rows of `batch`.
    ///
    /// # Errors
    /// If they are not rows of the table, or the target fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let rows = batch.num_rows();
        for start in (0..rows).step_by(self.write_rows) {
            self.writer.write(&batch.slice(start, self.write_rows.min(rows - start)))?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If the target fails.
    pub fn into_inner(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}

/// Encodes a whole staged file of `table`: the rows of the `latest` version of each conversation, and of `older` ones.
///
/// # Errors
/// Only on a bug: the batches do not match the table.
pub fn encode(
    table: &TableColumns,
    written_for: WrittenFor,
    latest: &[RecordBatch],
    older: &[RecordBatch],
) -> Result<Vec<u8>> {
    let failed = |error: ParquetError| Error::bug(format!("cannot encode rows of {}", table.name())).caused_by(error);
    let mut file = TableWriter::begin(table, written_for, Vec::new())?;
    latest.iter().try_for_each(|batch| file.write(batch)).map_err(failed)?;
    file.end_latest().map_err(failed)?;
    older.iter().try_for_each(|batch| file.write(batch)).map_err(failed)?;
    file.into_inner().map_err(failed)
}

/// How many row groups of a staged file have the latest versions; `None` if its footer has no number.
pub(super) fn latest_row_groups(metadata: &ParquetMetaData) -> Option<usize> {
    let mut entries = metadata.file_metadata().key_value_metadata()?.iter();
    let count = entries.find(|entry| entry.key == LATEST_ROW_GROUPS)?.value.as_ref()?.parse().ok()?;
    (count <= metadata.num_row_groups()).then_some(count)
}

/// The policy that the rows of a file follow.
pub(super) fn row_policy(metadata: &ParquetMetaData) -> RowPolicy {
    if !is_own(metadata) {
        return RowPolicy::Unknown;
    }
    let mut entries = metadata.file_metadata().key_value_metadata().into_iter().flatten();
    RowPolicy::of_text(entries.find(|entry| entry.key == POLICY).and_then(|entry| entry.value.as_deref()))
}

/// The settings of a file of `table`.
///
/// Measured on the same pages, compared with zstd 3: zstd 1 makes tables 13 % larger and a sync 9 % cheaper; zstd 4
/// makes tables 1 % smaller and a sync 10 % dearer. Without the minimum and maximum ids of row groups a lookup reads
/// twice as much. A Bloom filter on the ids speeds up nothing, because they are sorted.
pub(super) fn properties(table: &TableColumns, written_for: WrittenFor) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(3).map_err(|error| Error::bug("unknown zstd level").caused_by(error))?;
    let (compression, max_row_group_bytes) = match written_for {
        WrittenFor::Table => (Compression::ZSTD(level), MAX_ROW_GROUP_BYTES),
        WrittenFor::Staging => (Compression::SNAPPY, STAGING_ROW_GROUP_BYTES),
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(compression)
        // A row group has hardly more than one page per column, so page statistics would repeat those of the group.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(max_row_group_bytes));
    if let Some(policy) = table.policy().text() {
        properties = properties.set_key_value_metadata(Some(vec![KeyValue::new(POLICY.to_owned(), policy.to_owned())]));
    }
    for column in table.columns() {
        if let Some(encoding) = plain_encoding(table.table(), column) {
            let path = ColumnPath::from(column.name.as_ref());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), encoding);
            if has_no_useful_statistics(column) {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
    }
    Ok(properties.build())
}

/// Whether this program, in any release, wrote a file.
pub(super) fn is_own(metadata: &ParquetMetaData) -> bool {
    metadata.file_metadata().created_by().is_some_and(|writer| writer.starts_with(OWN))
}

/// Whether this release writes this encoding. Spark 3.3 reads all of these with its defaults, but not the encoding of
/// texts in earlier releases (DELTA_LENGTH_BYTE_ARRAY).
pub(super) fn is_used(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::DELTA_BINARY_PACKED)
}

/// Whether no query can skip rows by the column's minimum and maximum: free text and JSON.
fn has_no_useful_statistics(column: &Column) -> bool {
    column.kind == ColumnKind::Json || FREE_TEXT.contains(&column.name.as_ref())
}

/// The encoding of a column that has no dictionary; Spark 3.3 reads it with its defaults. Measured on 44 MB of
/// `benches/compare`'s pages, compared with DELTA_LENGTH_BYTE_ARRAY, which Spark 3.3 cannot read: plain texts, JSON and
/// ids make tables 0.15 % larger; dictionaries make them 3 % larger and a sync takes 40 % more CPU time.
fn plain_encoding(table: Table, column: &Column) -> Option<Encoding> {
    match (column.kind, &column.source) {
        (ColumnKind::Time | ColumnKind::BigInt, _) | (_, ColumnSource::Index) => Some(Encoding::DELTA_BINARY_PACKED),
        (ColumnKind::Json, _) => Some(Encoding::PLAIN),
        (_, ColumnSource::ConversationId) if table == Table::Conversations => Some(Encoding::PLAIN),
        (ColumnKind::Text | ColumnKind::Id, _) if FREE_TEXT.contains(&column.name.as_ref()) => Some(Encoding::PLAIN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::DEFAULT_CREATED_BY;

    use super::*;
    use crate::files::samples;
    use crate::model::LakeColumns;

    /// All encodings of a file's columns.
    fn encodings(file: Vec<u8>) -> BTreeSet<String> {
        let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
        let groups = file.metadata().row_groups().iter();
        let columns = groups.flat_map(|group| group.columns().to_vec());
        columns.flat_map(|column| column.encodings().map(|it| it.to_string()).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn every_file_has_encodings_that_spark_3_3_reads() {
        for table in Table::ALL {
            for written_for in [WrittenFor::Table, WrittenFor::Staging] {
                // Many rows make the writer abandon dictionaries, few do not.
                for count in [3, 40_000] {
                    let batch = [samples::rows(table, 0..count)];
                    let columns = LakeColumns::default();
                    let found = encodings(encode(columns.of(table), written_for, &batch, &batch).unwrap());
                    let known = ["DELTA_BINARY_PACKED", "PLAIN", "RLE", "RLE_DICTIONARY"].map(str::to_owned);
                    assert!(found.is_subset(&known.into()), "{}: {found:?}", table.name());
                }
            }
        }
    }

    /// As parquet-java parses it: `(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?`.
    #[test]
    fn parquet_java_can_parse_the_name_of_the_writer() {
        let (application, rest) = CREATED_BY.split_once(" version ").unwrap();
        let (version, build) = rest.split_once(" (build ").unwrap();
        assert_eq!((application, version), ("decagon-lake", env!("CARGO_PKG_VERSION")));
        let (library, major) = build.strip_suffix(')').unwrap().split_once(' ').unwrap();
        assert!(DEFAULT_CREATED_BY.starts_with(&format!("{library} version {major}.")), "{DEFAULT_CREATED_BY}");
        assert!(CREATED_BY.starts_with(OWN));
    }
}
