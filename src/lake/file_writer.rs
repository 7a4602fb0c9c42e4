//! Writes the Parquet files of a lake: landing objects and table objects, which look the same.

use std::io::Write;

use arrow_array::RecordBatch;
use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::Lake;
use crate::error::{Error, Result};
use crate::model::{Column, Kind, Source, Table};

/// The most rows of a row group. A lookup of one conversation by id reads one row group of each table.
const MAX_ROW_GROUP_ROWS: usize = 64 << 10;
/// The most bytes of a row group, which is what a reader and the writer hold in memory at a time.
const MAX_ROW_GROUP_BYTES: usize = 32 << 20;
/// How much is handed to the store at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Objects up to this size go up in one put, larger ones in parts of it.
const PART_BYTES: usize = 10 << 20;
/// How many parts of one object are on their way at a time.
const PARTS_IN_FLIGHT: usize = 2;
/// Columns whose text hardly ever repeats: a dictionary would cost time and space.
const FREE_TEXT: [&str; 5] = ["text", "summary", "resolution", "customer_feedback", "notes"];

/// How long a file is meant to stay, which decides how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It is queried, or may become a table's object as it is.
    Lasting,
    /// It is merged with others soon. Snappy is quick, and reading it takes hardly any memory, where zstd keeps some
    /// 150 kB for each column of each file of a merge.
    Passing,
}

/// A Parquet writer of `table` onto `target`.
///
/// # Errors
/// Where the schema cannot be written, which is a bug.
pub fn table_writer<W: Write + Send>(table: Table, lifetime: Lifetime, target: W) -> Result<ArrowWriter<W>> {
    ArrowWriter::try_new(target, table.schema(), Some(properties(table, lifetime)?))
        .map_err(|error| Error::bug("cannot set up a Parquet file").caused_by(error))
}

/// A whole Parquet file of `table` in memory.
///
/// # Errors
/// Where the batches do not fit the table, which is a bug.
pub fn encode<'a>(
    table: Table,
    lifetime: Lifetime,
    batches: impl IntoIterator<Item = &'a RecordBatch>,
) -> Result<Vec<u8>> {
    let failed = |error: ParquetError| Error::bug(format!("cannot encode rows of {}", table.name())).caused_by(error);
    let mut writer = table_writer(table, lifetime, Vec::new())?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn properties(table: Table, lifetime: Lifetime) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(3).map_err(|error| Error::bug("unknown zstd level").caused_by(error))?;
    let compression = match lifetime {
        Lifetime::Lasting => Compression::ZSTD(level),
        Lifetime::Passing => Compression::SNAPPY,
    };
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("decagon-lake ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(compression)
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(MAX_ROW_GROUP_BYTES));
    for column in table.columns() {
        if let Some(encoding) = plain_encoding(table, column) {
            let path = ColumnPath::from(column.name);
            properties =
                properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
        }
    }
    Ok(properties.build())
}

/// The encoding of a column that a dictionary does not suit.
fn plain_encoding(table: Table, column: &Column) -> Option<Encoding> {
    match (column.kind, column.source) {
        (Kind::Time | Kind::BigInt, _) | (_, Source::Index) => Some(Encoding::DELTA_BINARY_PACKED),
        (Kind::Json, _) => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        (_, Source::ConversationId) if table == Table::Conversations => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        (Kind::Text, _) if FREE_TEXT.contains(&column.name) => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        _ => None,
    }
}

/// An object being written from a blocking thread; it becomes visible, whole, when it is [finished](Upload::finish).
///
/// Holds a few parts at a time. Dropped without being finished, it leaves the object as it was. Must not be used on an
/// async thread.
pub struct Upload {
    lake: Lake,
    key: Path,
    runtime: Handle,
    /// None once it is finished.
    target: Option<BufWriter>,
    chunk: Vec<u8>,
    bytes: u64,
}

impl Upload {
    /// Begins an object; nothing is sent yet.
    pub fn begin(lake: &Lake, key: Path, runtime: Handle) -> Self {
        let target = BufWriter::with_capacity(lake.store().clone(), key.clone(), PART_BYTES)
            .with_max_concurrency(PARTS_IN_FLIGHT);
        Upload { lake: lake.clone(), key, runtime, target: Some(target), chunk: Vec::new(), bytes: 0 }
    }

    /// Ends the object and returns its size in bytes.
    ///
    /// # Errors
    /// Where the store fails; the object is then as it was before.
    pub fn finish(mut self) -> Result<u64> {
        let sent = self.send().and_then(|()| match self.target.take() {
            Some(mut target) => self.runtime.block_on(target.shutdown()),
            None => Ok(()),
        });
        sent.map(|()| self.bytes)
            .map_err(|error| Error::store(format!("cannot write {}/{}", self.lake.url(), self.key)).caused_by(error))
    }

    fn send(&mut self) -> std::io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.chunk));
        let Some(target) = &mut self.target else { return Err(std::io::ErrorKind::BrokenPipe.into()) };
        Ok(self.runtime.block_on(target.put(chunk))?)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut target) = self.target.take() else { return };
        if let Err(error) = self.runtime.block_on(target.abort()) {
            tracing::warn!("cannot take back the upload of {}/{}: {error}", self.lake.url(), self.key);
        }
    }
}

impl Write for Upload {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.chunk.extend_from_slice(buffer);
        self.bytes = self.bytes.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        if self.chunk.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
