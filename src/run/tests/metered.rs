//! A store that counts its calls, and the bytes that they read and write.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::{CALL_TIMEOUT, Faulty, Lake, Store};

/// A store and what was spent on it.
#[derive(Clone)]
pub(super) struct Metered {
    inner: Faulty,
    bytes: Arc<AtomicU64>,
}

impl Metered {
    pub(super) fn new(inner: Faulty) -> Self {
        Metered { inner, bytes: Arc::default() }
    }

    /// The lake in it.
    pub(super) fn lake(&self) -> Lake {
        Lake::on(Store::on(self.clone(), "memory", CALL_TIMEOUT).by(self.inner.clock()))
    }

    /// How many calls there were, and how many bytes they read and wrote.
    pub(super) fn spent(&self) -> (usize, u64) {
        (self.inner.calls(), self.bytes.load(Ordering::SeqCst))
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.add(body.content_length() as u64);
        self.inner.put_opts(key, body, options).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.inner.get_opts(key, options).await?;
        self.add(found.range.end - found.range.start);
        Ok(found)
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let found = self.inner.get_ranges(key, ranges).await?;
        self.add(found.iter().map(|part| part.len() as u64).sum());
        Ok(found)
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Metered {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(key).await
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, number: usize, data: PutPayload) -> Result<PartId> {
        self.inner.put_part(key, id, number, data).await
    }

    async fn complete_multipart(&self, key: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.inner.complete_multipart(key, id, parts).await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(key, id).await
    }
}
