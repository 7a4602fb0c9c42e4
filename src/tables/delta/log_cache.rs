//! A store that keeps the parts of Delta logs in memory once they were read, because the engine reads each of them
//! several times, and a checkpoint in a dozen ranges.
//!
//! Guarantees: only commits and checkpoints are kept, which the protocol never lets change; it holds at most
//! [`KEPT_BYTES`]. Must not depend on: what a log says.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result,
};

use crate::layout;

/// The most bytes that are kept. A commit of 128 partitions takes 60 kB, a checkpoint of 3,000 partitions 100 kB.
const KEPT_BYTES: u64 = 32 << 20;
/// The largest object that is kept.
const MOST_BYTES: u64 = 8 << 20;

/// A store of Delta logs.
#[derive(Debug)]
pub(super) struct LogCache {
    inner: Arc<dyn ObjectStore>,
    kept: Mutex<LogParts>,
}

#[derive(Debug, Default)]
struct LogParts {
    parts: HashMap<Path, (ObjectMeta, Bytes)>,
    bytes: u64,
}

impl LogCache {
    pub(super) fn of(inner: Arc<dyn ObjectStore>) -> Self {
        LogCache { inner, kept: Mutex::default() }
    }

    /// A part of a log as it is kept, or is from now on; `None` if it is too large.
    async fn part(&self, key: &Path) -> Result<Option<(ObjectMeta, Bytes)>> {
        if let Some(part) = self.kept().parts.get(key) {
            return Ok(Some(part.clone()));
        }
        let found = self.inner.get(key).await?;
        if found.meta.size > MOST_BYTES {
            return Ok(None);
        }
        let part = (found.meta.clone(), found.bytes().await?);
        let mut kept = self.kept();
        let bytes = kept.bytes.saturating_add(part.0.size);
        if bytes <= KEPT_BYTES && kept.parts.insert(key.clone(), part.clone()).is_none() {
            kept.bytes = bytes;
        }
        Ok(Some(part))
    }

    fn kept(&self) -> MutexGuard<'_, LogParts> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `key` is that of a commit or of a checkpoint in one file.
fn is_part(key: &Path) -> bool {
    let is_checkpoint = |name: &str| name.ends_with(".checkpoint.parquet");
    layout::number_of(key).is_some() || key.filename().is_some_and(is_checkpoint)
}

/// The bytes of `body` in this range.
fn slice(key: &Path, body: &Bytes, range: &Range<u64>) -> Result<Bytes> {
    let within = |at: u64| usize::try_from(at).ok().filter(|at| *at <= body.len());
    match (within(range.start), within(range.end)) {
        (Some(start), Some(end)) if start <= end => Ok(body.slice(start..end)),
        _ => Err(Error::Generic { store: "log", source: format!("{key} has no bytes {range:?}").into() }),
    }
}

impl fmt::Display for LogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LogCache {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(key, body, options).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        // The engine sets no conditions.
        let part = if is_part(key) { self.part(key).await? } else { None };
        let Some((meta, body)) = part else { return self.inner.get_opts(key, options).await };
        let invalid = |error| Error::Generic { store: "log", source: Box::new(error) };
        let range = options.range.map_or(Ok(0..meta.size), |range| range.as_range(meta.size).map_err(invalid))?;
        let body = slice(key, &body, &range)?;
        let payload = GetResultPayload::Stream(async move { Ok(body) }.into_stream().boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default(), extensions: Extensions::default() })
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match if is_part(key) { self.part(key).await? } else { None } {
            Some((meta, body)) => {
                ranges.iter().map(|range| slice(key, &body, &(range.start..range.end.min(meta.size)))).collect()
            }
            None => self.inner.get_ranges(key, ranges).await,
        }
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
