//! Reads Parquet files from a blocking thread, one row group at a time.
//!
//! Guarantees: a file is reported as damaged only if it is still the one that the caller found, which [`FileSource`]
//! checks after a failure. A file that was replaced meanwhile is an error of kind `Held`. Must not depend on: what is
//! done with rows.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use object_store::ObjectMeta;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::runtime::Handle;

use super::conform;
use super::footer::Footer;
use super::found::{FoundFile, RESTORE};
use super::source::FileSource;
use super::writer::{is_own, latest_row_groups, row_policy};
use crate::error::{Error, Kind, Result};
use crate::flatten::fill;
use crate::model::{RowPolicy, TableColumns};
use crate::policy::{Masker, PolicyChain};
use crate::store::Store;

/// How many bytes from a file's end are fetched first; a smaller file is fetched as a whole.
const TAIL_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 256 << 10 };
/// The size of most footers; a second request fetches the rest of a larger one.
const FOOTER_BYTES: u64 = 16 << 10;
/// The approximate size of a batch.
const BATCH_BYTES: u64 = 1 << 20;
/// The most rows of a batch, because a merge has batches of all its inputs in memory.
const BATCH_ROWS: u64 = 1_024;
/// How often a footer is read if runs keep replacing the file.
const TRIES: usize = 10;

/// Reads a Parquet file, or some row groups of one.
pub struct FileReader {
    source: FileSource,
    decoder: ParquetPushDecoder,
    /// How the rows are converted, if the file does not have the table's columns, or another program wrote it.
    converts: Option<RowConversion>,
    /// What is done with rows that do not follow the lake's policy yet.
    masks: Option<RowMasking>,
}

/// How rows are brought to the lake's policy.
struct RowMasking {
    table: Arc<TableColumns>,
    masker: Arc<Masker>,
}

/// How rows are converted to the columns of a table.
struct RowConversion {
    table: Arc<TableColumns>,
    /// Whether all columns are read, so that those that the file lacks are filled.
    fills: bool,
}

/// A file whose footer was read.
pub(super) struct OpenFile {
    source: FileSource,
    metadata: Arc<ParquetMetaData>,
    arrow: ArrowReaderMetadata,
    table: Arc<TableColumns>,
    /// Whether its rows must be converted to the table's columns.
    converts: bool,
    /// What must be done with its rows so that they follow the lake's policy.
    masker: Option<Arc<Masker>>,
}

impl FileReader {
    /// Opens some columns of a file that was found.
    ///
    /// # Errors
    /// Kind `Integrity` if it is damaged or not a file of `table`, `Held` if it was replaced meanwhile,
    /// `Store` if it cannot be fetched.
    pub fn open_columns(
        store: &Store,
        table: &Arc<TableColumns>,
        file: &FoundFile,
        columns: &[&str],
        runtime: Handle,
    ) -> Result<Self> {
        OpenFile::open(store, table, file, None, runtime)?.all(Some(columns))
    }

    /// Opens a staged file: the latest versions, and the older ones if it has any. Their rows follow `policies`.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub fn open_staged(
        store: &Store,
        table: &Arc<TableColumns>,
        file: &FoundFile,
        policies: Option<&PolicyChain>,
        runtime: Handle,
    ) -> Result<(Self, Option<Self>)> {
        let file = OpenFile::open(store, table, file, policies, runtime)?;
        let all = file.metadata.num_row_groups();
        let latest = latest_row_groups(&file.metadata).unwrap_or(all);
        let older = (latest < all).then(|| file.reader(None, latest..all)).transpose()?;
        Ok((file.reader(None, 0..latest)?, older))
    }

    /// Reads only the footer of the file that was found as `object`. If the file was replaced meanwhile, the new one
    /// counts, so the file that was read is returned too.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub fn read_footer(
        store: &Store,
        table: &TableColumns,
        mut object: ObjectMeta,
        runtime: &Handle,
    ) -> Result<(Footer, ObjectMeta)> {
        let mut tries = 1;
        loop {
            let file = FoundFile::not_read(object.clone());
            let footer = FileSource::open(store, &file, FOOTER_BYTES, runtime.clone()).and_then(|mut source| {
                let metadata = source.metadata()?;
                let impossible = || source.damaged(ParquetError::General("it claims a negative row count".to_owned()));
                Footer::of(table, &metadata).ok_or_else(impossible)
            });
            match footer {
                Ok(footer) => return Ok((footer, object)),
                Err(error) if error.kind() == Kind::Held && tries < TRIES => {
                    tries += 1;
                    object = runtime.block_on(store.head(&object.location))?.unwrap_or(object);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            match self.decoder.try_decode().map_err(|error| self.source.damaged(error))? {
                DecodeResult::Data(batch) => {
                    let (mut rows, mut filled_as) = (batch, None);
                    if let Some(RowConversion { table, fills }) = &self.converts {
                        rows = conform::apply(table, &rows).map_err(|misfit| self.source.misfit(misfit))?;
                        filled_as = fills.then_some(table);
                    }
                    if let Some(RowMasking { table, masker }) = &self.masks {
                        rows = masker.rows(table, &rows)?;
                        filled_as = Some(table);
                    }
                    let Some(table) = filled_as else { return Ok(Some(rows)) };
                    let damaged = |file: &str| Error::integrity(format!("{file} is damaged")).with_hint(RESTORE);
                    let filled = fill(table, &rows);
                    let filled =
                        filled.map_err(|error| self.source.unreadable(|file| damaged(file).caused_by(error)))?;
                    return Ok(Some(filled.rows));
                }
                DecodeResult::Finished => return Ok(None),
                DecodeResult::NeedsData(ranges) => {
                    let data = self.source.ranges(&ranges)?;
                    self.decoder.push_ranges(ranges, data).map_err(|error| self.source.damaged(error))?;
                }
            }
        }
    }
}

impl OpenFile {
    /// Opens a file that was found.
    ///
    /// # Errors
    /// As [`FileReader::open_columns`].
    pub(super) fn open(
        store: &Store,
        table: &Arc<TableColumns>,
        file: &FoundFile,
        policies: Option<&PolicyChain>,
        runtime: Handle,
    ) -> Result<Self> {
        let mut source = FileSource::open(store, file, TAIL_BYTES, runtime)?;
        let metadata = source.metadata()?;
        let damaged = |error| source.damaged(error);
        // The Arrow schema that another writer puts into the footer does not count.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let found = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options.clone()).map_err(damaged)?;
        let is_same = found.schema().fields() == table.schema().fields();
        let arrow = if is_same {
            let options = options.with_schema(table.schema());
            ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).map_err(damaged)?
        } else {
            conform::check(table, found.schema()).map_err(|misfit| source.misfit(misfit))?;
            match without_int96(&metadata, found.schema()) {
                None => found,
                Some(schema) => {
                    let options = options.with_schema(Arc::new(schema));
                    ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).map_err(damaged)?
                }
            }
        };
        source.drop_tail();
        let converts = !is_same || !is_own(&metadata);
        let masker = policies.map(|policies| policies.after(&row_policy(&metadata))).transpose()?.flatten();
        Ok(OpenFile { source, metadata, arrow, table: Arc::clone(table), converts, masker })
    }

    /// The policy that its rows follow, before they are read.
    pub(super) fn policy(&self) -> RowPolicy {
        row_policy(&self.metadata)
    }

    /// The file's address.
    pub(super) fn url(&self) -> String {
        self.source.url()
    }

    /// Whether this program wrote it.
    pub(super) fn is_own(&self) -> bool {
        is_own(&self.metadata)
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        usize::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(usize::MAX)
    }

    /// The approximate number of bytes before compression.
    pub(super) fn uncompressed_bytes(&self) -> u64 {
        let groups = self.metadata.row_groups().iter();
        groups.filter_map(|group| u64::try_from(group.total_byte_size()).ok()).fold(0, u64::saturating_add)
    }

    /// The number of rows that keeps a batch within its size.
    pub(super) fn batch_rows(&self) -> usize {
        batch_rows(&self.metadata)
    }

    /// Reads all rows, with some of their columns or all of them.
    pub(super) fn all(&self, columns: Option<&[&str]>) -> Result<FileReader> {
        self.reader(columns, 0..self.metadata.num_row_groups())
    }

    fn reader(&self, columns: Option<&[&str]>, groups: Range<usize>) -> Result<FileReader> {
        let conversion = || RowConversion { table: Arc::clone(&self.table), fills: columns.is_none() };
        let converts = self.converts.then(conversion);
        let all: Vec<_> = self.table.columns().iter().map(|column| column.name.as_ref()).collect();
        let wanted = match (columns, &converts) {
            (None, None) => ProjectionMask::all(),
            // Another program's file may have more columns.
            (columns, _) => {
                let columns = columns.unwrap_or(&all).iter().copied();
                ProjectionMask::columns(self.arrow.parquet_schema(), columns)
            }
        };
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(self.arrow.clone())
            .with_projection(wanted)
            .with_batch_size(self.batch_rows())
            .with_row_groups(groups.collect())
            .build()
            .map_err(|error| self.source.damaged(error))?;
        let masking = |masker: &Arc<Masker>| RowMasking { table: Arc::clone(&self.table), masker: Arc::clone(masker) };
        let masks = self.masker.as_ref().filter(|_| columns.is_none()).map(masking);
        Ok(FileReader { source: self.source.clone(), decoder, converts, masks })
    }
}

/// The schema `found` in a file, with its 96-bit timestamps read as microseconds, because nanoseconds would overflow;
/// `None` if it has no such columns.
fn without_int96(metadata: &ParquetMetaData, found: &Schema) -> Option<Schema> {
    let parquet = metadata.file_metadata().schema_descr();
    let is_int96 = |name: &str| {
        parquet.columns().iter().any(|column| column.name() == name && column.physical_type() == Type::INT96)
    };
    if !found.fields().iter().any(|field| is_int96(field.name())) {
        return None;
    }
    let fields = found.fields().iter().map(|field| match is_int96(field.name()) {
        true => Field::new(field.name(), conform::int96_type(), field.is_nullable()),
        false => field.as_ref().clone(),
    });
    Some(Schema::new(fields.collect::<Vec<_>>()))
}

/// The number of rows that keeps a batch within its size, by the row group with the widest rows.
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let row_bytes = |bytes: i64, rows: i64| u64::try_from(bytes / rows.max(1)).unwrap_or(0).max(1);
    let widest = metadata.row_groups().iter().map(|group| row_bytes(group.total_byte_size(), group.num_rows())).max();
    usize::try_from((BATCH_BYTES / widest.unwrap_or(1)).clamp(1, BATCH_ROWS)).unwrap_or(1)
}

#[cfg(test)]
mod tests;
