//! Writes the Parquet files of a lake: landing objects and table objects, which look the same.
//!
//! A landing object has each conversation's newest copy first and the older ones behind it, in row groups of their own,
//! each part sorted as tables are. So the first part can become a table's object as it is: see `promote`.

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
use crate::model::{Column, ColumnKind, ColumnSource, Table};

/// The most rows of a row group. A lookup of one conversation by id reads one row group of each table. In a date of
/// 100,000 conversations and 1,000,000 messages, DuckDB finds one's messages in 7 ms (0.8 MB read), with groups of 64 Ki
/// rows in 11 ms (2.2 MB), of 256 Ki in 33 ms (6.9 MB). Smaller ones bring 1 ms more for 1 % of the bytes.
const MAX_ROW_GROUP_ROWS: usize = 16 << 10;
/// The most bytes of a row group, which is what a reader and the writer hold in memory at a time.
const MAX_ROW_GROUP_BYTES: usize = 32 << 20;
/// The same of what is merged soon: a merge has a row group of each of its inputs in memory.
const PASSING_ROW_GROUP_BYTES: usize = 512 << 10;
/// How many rows are written at a time before a row group of that size may end.
const PASSING_ROWS_AT_ONCE: usize = 1 << 10;
/// What every file says of its writer, in the form that parquet-java takes apart: without it, that ignores statistics of
/// text. The build names the library that encodes.
pub(crate) const CREATED_BY: &str =
    concat!("decagon-lake version ", env!("CARGO_PKG_VERSION"), " (build parquet-rs 60)");
/// How that begins in the files of every version.
const OWN: &str = "decagon-lake ";
/// Columns whose text hardly ever repeats: a dictionary would cost time, and 7 % of the bytes of a lake.
const FREE_TEXT: [&str; 5] = ["text", "summary", "resolution", "customer_feedback", "notes"];

/// The key under which a landing object's footer says how many row groups, from the first, hold the newest copies.
const NEWEST_ROW_GROUPS: &str = "decagon_lake.newest_row_groups";

/// How long a file is meant to stay, which decides how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenFor {
    /// It is queried, or may become a table's object as it is.
    Table,
    /// It is merged with others soon. Snappy is quick, and reading it takes hardly any memory, where zstd keeps some
    /// 150 kB for each column of each file of a merge.
    Staging,
}

/// A Parquet file of a table, being written.
pub struct TableWriter<W: Write + Send> {
    writer: ArrowWriter<W>,
    most_rows_at_once: usize,
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a file of `table` onto `target`.
    ///
    /// # Errors
    /// Where the schema cannot be written, which is a bug.
    pub fn begin(table: Table, lifetime: WrittenFor, target: W) -> Result<Self> {
        let mut file = Self::with_properties(table, properties(table, lifetime)?, target)?;
        if lifetime == WrittenFor::Staging {
            file.most_rows_at_once = PASSING_ROWS_AT_ONCE;
        }
        Ok(file)
    }

    pub(super) fn with_properties(table: Table, properties: WriterProperties, target: W) -> Result<Self> {
        // Without the Arrow schema, which says nothing that Parquet's own does not: 1.5 kB of each file.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(target, table.schema(), options)
            .map_err(|error| Error::bug("cannot set up a Parquet file").caused_by(error))?;
        Ok(TableWriter { writer, most_rows_at_once: usize::MAX })
    }

    /// Ends the rows of the newest copies.
    pub(super) fn ends_newest(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()?;
        let newest_row_groups = self.writer.flushed_row_groups().len().to_string();
        self.writer.append_key_value_metadata(KeyValue::new(NEWEST_ROW_GROUPS.to_owned(), newest_row_groups));
        Ok(())
    }

    /// Writes the rows of `batch`.
    ///
    /// # Errors
    /// Where they are not of the table, or the target fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let rows = batch.num_rows();
        for start in (0..rows).step_by(self.most_rows_at_once) {
            self.writer.write(&batch.slice(start, self.most_rows_at_once.min(rows - start)))?;
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// Where the target fails.
    pub fn into_inner(self) -> Result<W, ParquetError> {
        self.writer.into_inner()
    }
}

/// A whole landing object of `table` in memory: the rows of each conversation's `newest` copy, and those of `older` ones.
///
/// # Errors
/// Where the batches do not fit the table, which is a bug.
pub fn encode(table: Table, lifetime: WrittenFor, newest: &[RecordBatch], older: &[RecordBatch]) -> Result<Vec<u8>> {
    let failed = |error: ParquetError| Error::bug(format!("cannot encode rows of {}", table.name())).caused_by(error);
    let mut file = TableWriter::begin(table, lifetime, Vec::new())?;
    newest.iter().try_for_each(|batch| file.write(batch)).map_err(failed)?;
    file.ends_newest().map_err(failed)?;
    older.iter().try_for_each(|batch| file.write(batch)).map_err(failed)?;
    file.into_inner().map_err(failed)
}

/// How many row groups of a landing object hold the newest copies; `None` where it does not say.
pub(super) fn newest_row_groups(metadata: &ParquetMetaData) -> Option<usize> {
    let told = metadata.file_metadata().key_value_metadata()?.iter().find(|told| told.key == NEWEST_ROW_GROUPS)?;
    let count = told.value.as_ref()?.parse().ok()?;
    (count <= metadata.num_row_groups()).then_some(count)
}

/// How the files of `table` are written.
///
/// Measured on the same pages: zstd 1 makes the tables 13 % larger than zstd 3 and a sync 9 % cheaper, zstd 4 makes them
/// 1 % smaller and it 10 % dearer. Without the least and greatest ids of row groups a lookup reads twice as
/// much; a Bloom filter on the ids, which are sorted, finds nothing sooner.
pub(super) fn properties(table: Table, lifetime: WrittenFor) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(3).map_err(|error| Error::bug("unknown zstd level").caused_by(error))?;
    let (compression, max_row_group_bytes) = match lifetime {
        WrittenFor::Table => (Compression::ZSTD(level), MAX_ROW_GROUP_BYTES),
        WrittenFor::Staging => (Compression::SNAPPY, PASSING_ROW_GROUP_BYTES),
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(compression)
        // A row group has hardly more than a page of a column: an index of pages tells nothing that its own does not.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(max_row_group_bytes));
    for column in table.columns() {
        if let Some(encoding) = plain_encoding(table, column) {
            let path = ColumnPath::from(column.name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), encoding);
            if is_never_compared(column) {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
    }
    Ok(properties.build())
}

/// Whether this program has written a file, in whatever version.
pub(super) fn is_own(metadata: &ParquetMetaData) -> bool {
    metadata.file_metadata().created_by().is_some_and(|writer| writer.starts_with(OWN))
}

/// Whether files of today have this encoding somewhere: Spark 3.3 reads all of those with its defaults. Before, texts were
/// encoded in a way that it cannot read (DELTA_LENGTH_BYTE_ARRAY).
pub(super) fn is_used(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN | Encoding::RLE | Encoding::RLE_DICTIONARY | Encoding::DELTA_BINARY_PACKED)
}

/// Whether no query can skip anything because of the column's least and greatest values: free text and JSON.
fn is_never_compared(column: &Column) -> bool {
    column.kind == ColumnKind::Json || FREE_TEXT.contains(&column.name)
}

/// The encoding of a column that a dictionary does not suit, one that Spark 3.3 reads with its defaults. Of 44 MB of
/// `benches/compare`'s pages, plain texts, JSON and ids make the tables 0.15 % larger than DELTA_LENGTH_BYTE_ARRAY, which it
/// cannot read; dictionaries make them 3 % larger, and a sync takes 40 % more CPU time.
fn plain_encoding(table: Table, column: &Column) -> Option<Encoding> {
    match (column.kind, column.source) {
        (ColumnKind::Time | ColumnKind::BigInt, _) | (_, ColumnSource::Index) => Some(Encoding::DELTA_BINARY_PACKED),
        (ColumnKind::Json, _) => Some(Encoding::PLAIN),
        (_, ColumnSource::ConversationId) if table == Table::Conversations => Some(Encoding::PLAIN),
        (ColumnKind::Text, _) if FREE_TEXT.contains(&column.name) => Some(Encoding::PLAIN),
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

    /// Every encoding of a file's columns.
    fn encodings(file: Vec<u8>) -> BTreeSet<String> {
        let file = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
        let groups = file.metadata().row_groups().iter();
        let columns = groups.flat_map(|group| group.columns().to_vec());
        columns.flat_map(|column| column.encodings().map(|it| it.to_string()).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn every_file_has_encodings_that_spark_3_3_reads() {
        for table in Table::ALL {
            for lifetime in [WrittenFor::Table, WrittenFor::Staging] {
                // So many rows that dictionaries are given up, and so few that they are not.
                for count in [3, 40_000] {
                    let batch = [samples::rows(table, 0..count)];
                    let found = encodings(encode(table, lifetime, &batch, &batch).unwrap());
                    let known = ["DELTA_BINARY_PACKED", "PLAIN", "RLE", "RLE_DICTIONARY"].map(str::to_owned);
                    assert!(found.is_subset(&known.into()), "{}: {found:?}", table.name());
                }
            }
        }
    }

    /// As parquet-java takes it apart: `(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?`.
    #[test]
    fn the_writer_is_named_in_the_form_of_the_format() {
        let (application, rest) = CREATED_BY.split_once(" version ").unwrap();
        let (version, build) = rest.split_once(" (build ").unwrap();
        assert_eq!((application, version), ("decagon-lake", env!("CARGO_PKG_VERSION")));
        let (library, major) = build.strip_suffix(')').unwrap().split_once(' ').unwrap();
        assert!(DEFAULT_CREATED_BY.starts_with(&format!("{library} version {major}.")), "{DEFAULT_CREATED_BY}");
        assert!(CREATED_BY.starts_with(OWN));
    }
}
