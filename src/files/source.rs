//! Fetches the bytes of a Parquet file from a blocking thread, close ranges at once.
//!
//! Guarantees: a file is reported as damaged only if it is still the one that the caller found, which [`unreadable`]
//! checks after a failure. Must not depend on: what the bytes mean.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectMeta, ObjectStore};
use parquet::DecodeResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataPushDecoder};
use tokio::runtime::Handle;

use super::conform::Misfit;
use super::found::{FoundFile, RESTORE, unreadable};
use crate::error::{Error, Result};
use crate::store::Store;

/// The least that is fetched of a larger file at a time.
const WINDOW_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 1 << 20 };

/// Fetches a file's bytes.
#[derive(Clone)]
pub(super) struct FileSource {
    store: Store,
    /// The file as the caller found it. If it has no ETag, its name is used once, so that nothing can replace it.
    object: ObjectMeta,
    runtime: Handle,
    /// A fetched part of the file, and where it begins.
    window: Bytes,
    window_start: u64,
}

impl FileSource {
    pub(super) fn open(store: &Store, file: &FoundFile, tail_bytes: u64, runtime: Handle) -> Result<Self> {
        let (object, window_start) = (file.object().clone(), file.object().size.saturating_sub(tail_bytes));
        let mut source = FileSource { store: store.clone(), object, runtime, window: Bytes::new(), window_start };
        if source.object.size == 0 {
            return Err(source.damaged(ParquetError::EOF("the file is empty".to_owned())));
        }
        (source.window_start, source.window) = match file.body() {
            Some(body) => (0, body.clone()),
            None => (window_start, source.fetch(window_start..source.object.size)?),
        };
        Ok(source)
    }

    /// The file's address.
    pub(super) fn url(&self) -> String {
        format!("{}/{}", self.store.url(), self.object.location)
    }

    /// Drops the fetched end of a file after its footer was parsed; a small file is kept as a whole.
    pub(super) fn drop_tail(&mut self) {
        if self.window_start > 0 {
            self.window = Bytes::new();
        }
    }

    fn fetch(&self, range: Range<u64>) -> Result<Bytes> {
        let mut found = self.fetch_all(&[range])?;
        found.pop().ok_or_else(|| self.damaged(ParquetError::EOF("a read returned nothing".to_owned())))
    }

    fn fetch_all(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = self.runtime.block_on(self.store.objects().get_ranges(&self.object.location, ranges));
        found.map_err(|error| self.unreadable(|_| self.store.failed("read", &self.object.location, error)))
    }

    /// The error of an unreadable file: the file has changed since it was found, or else `fault`.
    pub(super) fn unreadable(&self, fault: impl FnOnce(&str) -> Error) -> Error {
        self.runtime.block_on(unreadable(&self.store, &self.object, fault))
    }

    pub(super) fn damaged(&self, error: ParquetError) -> Error {
        self.unreadable(|file| Error::integrity(format!("{file} is damaged")).caused_by(error).with_hint(RESTORE))
    }

    pub(super) fn misfit(&self, Misfit { what, query }: Misfit) -> Error {
        self.unreadable(|file| {
            let query = query.replace("FILE", &format!("'{file}'"));
            Error::integrity(format!("{file} {what}: another program wrote it")).with_hint(format!(
                "rewrite it in DuckDB with COPY ({query}) TO '{file}' (FORMAT parquet), or restore it from a backup"
            ))
        })
    }

    /// Returns the bytes of each range. Ranges close together, as when all columns are read, are fetched at once,
    /// together with the bytes behind them.
    pub(super) fn ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let start = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        if end > self.object.size {
            return Err(self.damaged(ParquetError::EOF("a part is past the end of the file".to_owned())));
        }
        if !self.has(start..end) {
            let wanted = ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add);
            if wanted < end.saturating_sub(start) / 2 {
                return self.fetch_all(ranges);
            }
            // Frees the old window before the new one is fetched.
            self.window = Bytes::new();
            self.window = self.fetch(start..end.max(start.saturating_add(WINDOW_BYTES)).min(self.object.size))?;
            self.window_start = start;
        }
        ranges.iter().map(|range| self.in_window(range)).collect()
    }

    /// Whether the window has this part of the file.
    fn has(&self, part: Range<u64>) -> bool {
        let end = u64::try_from(self.window.len()).ok().and_then(|len| self.window_start.checked_add(len));
        part.start >= self.window_start && end.is_some_and(|end| part.end <= end)
    }

    fn in_window(&self, range: &Range<u64>) -> Result<Bytes> {
        let offset = |at: u64| at.checked_sub(self.window_start).and_then(|at| usize::try_from(at).ok());
        match (offset(range.start), offset(range.end)) {
            (Some(start), Some(end)) if start <= end && end <= self.window.len() => Ok(self.window.slice(start..end)),
            _ => Err(self.damaged(ParquetError::EOF("a part is missing".to_owned()))),
        }
    }

    pub(super) fn metadata(&mut self) -> Result<Arc<ParquetMetaData>> {
        let mut decoder = ParquetMetaDataPushDecoder::try_new(self.object.size).map_err(|error| self.damaged(error))?;
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
}
