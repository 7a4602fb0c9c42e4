//! Reads the Parquet files of a lake from a blocking thread, a row group at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use tokio::runtime::Handle;

use super::Lake;
use super::file_writer::newest_row_groups;
use crate::error::{Error, Result};
use crate::model::Table;

/// Of a file up to this size everything is fetched at once; of a larger one this much of its end.
const TAIL_BYTES: u64 = 256 << 10;
/// How much of a file's end holds its footer, most of the time; a second request gets the rest of a larger one.
const FOOTER_BYTES: u64 = 16 << 10;
/// How much of a larger file is fetched at a time, at least.
const WINDOW_BYTES: u64 = 1 << 20;
/// How much a batch may hold, about.
const BATCH_BYTES: u64 = 1 << 20;
/// What can be done about a file that is damaged or missing.
const MEND: &str = "restore it from a backup; where it lies in _landing, `verify --repair` gives it up, and \
    `backfill --timestamp-filter created_at` fetches its date again";
/// The most rows of a batch. A merge has batches of all its inputs in memory, and hands on what it gathered from them.
const BATCH_ROWS: u64 = 1_024;

/// One Parquet file of a table, or a part of one, being read.
pub struct FileReader {
    source: Source,
    decoder: ParquetPushDecoder,
}

/// A file whose footer was read.
struct File {
    source: Source,
    metadata: Arc<ParquetMetaData>,
    arrow: ArrowReaderMetadata,
}

/// Where a file's bytes come from.
#[derive(Clone)]
struct Source {
    lake: Lake,
    key: Path,
    runtime: Handle,
    size: u64,
    /// A part of the file that is at hand, and where it begins.
    window: Bytes,
    window_start: u64,
}

impl FileReader {
    /// Opens the file at `key`, which has `size` bytes.
    ///
    /// # Errors
    /// Kind `Integrity` where it is not a file of `table`; kind `Store` where it cannot be fetched.
    pub fn open(lake: &Lake, table: Table, key: Path, size: u64, runtime: Handle) -> Result<Self> {
        Self::open_columns(lake, table, key, size, None, runtime)
    }

    /// Opens the file at `key` for some of its columns, or all of them.
    ///
    /// # Errors
    /// As [`FileReader::open`].
    pub fn open_columns(
        lake: &Lake,
        table: Table,
        key: Path,
        size: u64,
        columns: Option<&[&str]>,
        runtime: Handle,
    ) -> Result<Self> {
        let file = File::open(lake, table, key, size, runtime)?;
        let groups = 0..file.metadata.num_row_groups();
        file.reader(columns, groups)
    }

    /// Opens a landing object: the newest copy of each conversation and, where there are any, the older ones.
    ///
    /// # Errors
    /// As [`FileReader::open`].
    pub fn open_landed(
        lake: &Lake,
        table: Table,
        key: Path,
        size: u64,
        runtime: Handle,
    ) -> Result<(Self, Option<Self>)> {
        let file = File::open(lake, table, key, size, runtime)?;
        let all = file.metadata.num_row_groups();
        let newest = newest_row_groups(&file.metadata).unwrap_or(all);
        let older = (newest < all).then(|| file.reader(None, newest..all)).transpose()?;
        Ok((file.reader(None, 0..newest)?, older))
    }

    /// How many rows the file at `key` has, going by its footer alone.
    ///
    /// # Errors
    /// As [`FileReader::open`].
    pub fn count_rows(lake: &Lake, key: Path, size: u64, runtime: Handle) -> Result<u64> {
        let mut source = Source::open(lake, key, size, FOOTER_BYTES, runtime)?;
        let rows = source.metadata(size)?.file_metadata().num_rows();
        u64::try_from(rows).map_err(|_| source.damaged(ParquetError::General(format!("it claims {rows} rows"))))
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// As [`FileReader::open`].
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.decoder.try_decode().map_err(|error| self.source.damaged(error))? {
                DecodeResult::Data(batch) => return Ok(Some(batch)),
                DecodeResult::Finished => return Ok(None),
                DecodeResult::NeedsData(ranges) => {
                    let data = self.source.ranges(&ranges)?;
                    self.decoder.push_ranges(ranges, data).map_err(|error| self.source.damaged(error))?;
                }
            }
        }
    }
}

impl File {
    fn open(lake: &Lake, table: Table, key: Path, size: u64, runtime: Handle) -> Result<Self> {
        let mut source = Source::open(lake, key, size, TAIL_BYTES, runtime)?;
        let metadata = source.metadata(size)?;
        let damaged = |error| source.damaged(error);
        // What another writer of a Delta table says of Arrow in the footer is its own affair.
        let plainly = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let found = ArrowReaderMetadata::try_new(Arc::clone(&metadata), plainly).map_err(damaged)?;
        if let Some(fault) = differs(&table.schema(), found.schema()) {
            return Err(damaged(ParquetError::ArrowError(fault)));
        }
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(table.schema());
        let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).map_err(damaged)?;
        source.forget_tail();
        Ok(File { source, metadata, arrow })
    }

    fn reader(&self, columns: Option<&[&str]>, groups: Range<usize>) -> Result<FileReader> {
        let wanted = match columns {
            None => ProjectionMask::all(),
            Some(columns) => ProjectionMask::columns(self.arrow.parquet_schema(), columns.iter().copied()),
        };
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(self.arrow.clone())
            .with_projection(wanted)
            .with_batch_size(batch_rows(&self.metadata))
            .with_row_groups(groups.collect())
            .build()
            .map_err(|error| self.source.damaged(error))?;
        Ok(FileReader { source: self.source.clone(), decoder })
    }
}

/// How a file's columns differ from those that it has to have: names, types and order.
fn differs(wanted: &Schema, found: &Schema) -> Option<String> {
    let told = |schema: &Schema| -> Vec<String> {
        let text = |field: &arrow_schema::FieldRef| {
            format!("{} {}{}", field.name(), field.data_type(), if field.is_nullable() { "" } else { " not null" })
        };
        schema.fields().iter().map(text).collect()
    };
    let (wanted, found) = (told(wanted), told(found));
    let place = (0..wanted.len().max(found.len())).find(|place| wanted.get(*place) != found.get(*place))?;
    let name = |columns: &[String]| columns.get(place).cloned().unwrap_or_else(|| "nothing".to_owned());
    Some(format!("its column {place} is {}, not {}", name(&found), name(&wanted)))
}

/// How many rows make a batch of a bounded size, going by the file's largest row group.
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let row_bytes = |bytes: i64, rows: i64| u64::try_from(bytes / rows.max(1)).unwrap_or(0).max(1);
    let widest = metadata.row_groups().iter().map(|group| row_bytes(group.total_byte_size(), group.num_rows())).max();
    usize::try_from((BATCH_BYTES / widest.unwrap_or(1)).clamp(1, BATCH_ROWS)).unwrap_or(1)
}

impl Source {
    fn open(lake: &Lake, key: Path, size: u64, tail_bytes: u64, runtime: Handle) -> Result<Self> {
        let window_start = size.saturating_sub(tail_bytes);
        let mut source = Source { lake: lake.clone(), key, runtime, size, window: Bytes::new(), window_start };
        source.window = source.fetch(window_start..size)?;
        Ok(source)
    }

    /// Lets go of the end of a file, which was needed for its footer; all of a small one stays.
    fn forget_tail(&mut self) {
        if self.window_start > 0 {
            self.window = Bytes::new();
        }
    }

    fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        let mut found = self.fetch_all(&[range])?;
        found.pop().ok_or_else(|| self.damaged(ParquetError::EOF("nothing was read".to_owned())))
    }

    fn fetch_all(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let error = match self.runtime.block_on(self.lake.store.get_ranges(&self.key, ranges)) {
            Ok(data) => return Ok(data),
            Err(error) => error,
        };
        // Who opens a file knows that it was there, and how large it was.
        let file = format!("{}/{}", self.lake.url(), self.key);
        match self.runtime.block_on(self.lake.head(&self.key))? {
            None => Err(Error::integrity(format!("{file} is not there any more")).with_hint(MEND)),
            Some(now) if now.size != self.size => {
                Err(Error::integrity(format!("{file} has {} bytes, not {}", now.size, self.size)).with_hint(MEND))
            }
            Some(_) => Err(self.lake.failed("read", &self.key, error)),
        }
    }

    /// The bytes of each range. Where they lie together, which they do where all columns are read, they are fetched at
    /// once, and what comes next in the file with them.
    fn ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        if end > self.size {
            return Err(self.damaged(ParquetError::EOF("a part lies past the end of the file".to_owned())));
        }
        if !self.has(start..end) {
            let wanted = ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add);
            if wanted < end.saturating_sub(start) / 2 {
                return self.fetch_all(ranges);
            }
            // The one before it goes first.
            self.window = Bytes::new();
            self.window = self.fetch(start..end.max(start.saturating_add(WINDOW_BYTES)).min(self.size))?;
            self.window_start = start;
        }
        ranges.iter().map(|range| self.in_window(range)).collect()
    }

    /// Whether this part of the file is at hand.
    fn has(&self, part: Range<u64>) -> bool {
        let end = u64::try_from(self.window.len()).ok().and_then(|len| self.window_start.checked_add(len));
        part.start >= self.window_start && end.is_some_and(|end| part.end <= end)
    }

    fn in_window(&self, range: &Range<u64>) -> Result<Bytes> {
        let place = |at: u64| at.checked_sub(self.window_start).and_then(|at| usize::try_from(at).ok());
        match (place(range.start), place(range.end)) {
            (Some(start), Some(end)) if start <= end && end <= self.window.len() => Ok(self.window.slice(start..end)),
            _ => Err(self.damaged(ParquetError::EOF("a part is not there".to_owned()))),
        }
    }

    fn metadata(&mut self, size: u64) -> Result<Arc<ParquetMetaData>> {
        let mut decoder = ParquetMetaDataPushDecoder::try_new(size).map_err(|error| self.damaged(error))?;
        loop {
            match decoder.try_decode().map_err(|error| self.damaged(error))? {
                DecodeResult::Data(metadata) => return Ok(Arc::new(metadata)),
                DecodeResult::Finished => return Err(self.damaged(ParquetError::EOF("no footer".to_owned()))),
                DecodeResult::NeedsData(ranges) => {
                    let data = self.ranges(&ranges)?;
                    decoder.push_ranges(ranges, data).map_err(|error| self.damaged(error))?;
                }
            }
        }
    }

    fn damaged(&self, error: ParquetError) -> Error {
        Error::integrity(format!("{}/{} is not a file that this program wrote", self.lake.url(), self.key))
            .caused_by(error)
            .with_hint(MEND)
    }
}
