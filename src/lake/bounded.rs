//! A store whose every call ends in time, whatever the disk or the network does.
//!
//! Must not know: what is stored.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::clock::Clock;

/// A store that gives up a call, or the wait for the next item of a stream, after a time.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    limit: Limit,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) each: Duration,
    pub(super) clock: Clock,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, limit: Limit) -> Self {
        Bounded { inner, limit }
    }
}

impl Limit {
    /// Waits for `call`, but no longer than it may take.
    pub(super) async fn on<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.clock.within(self.each, call).await.unwrap_or_else(|| {
            let source = format!("no answer within {} s (see --store-timeout)", self.each.as_secs_f32()).into();
            Err(Error::Generic { store: "lake", source })
        })
    }

    fn on_each<T: Send + 'static>(self, items: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        let next = move |mut items: BoxStream<'static, Result<T>>| async move {
            let item = self.on(async { items.next().await.transpose() }).await.transpose()?;
            Some((item, items))
        };
        // Not asked again after the wait for an item was given up, unless the caller wants to.
        stream::unfold(items, next).boxed()
    }
}

impl<S: ObjectStore> fmt::Display for Bounded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods, reason = "a call that is not bounded would be missed")]
impl<S: ObjectStore> ObjectStore for Bounded<S> {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.limit.on(self.inner.put_opts(key, body, options)).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.limit.on(self.inner.put_multipart_opts(key, options)).await?;
        Ok(Box::new(BoundedUpload { inner: upload, limit: self.limit }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.limit.on(self.inner.get_opts(key, options)).await?;
        // A file on this machine's disks is read chunk by chunk too: whatever hangs there hangs for a time only.
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let extensions = found.extensions.clone();
        let payload = GetResultPayload::Stream(self.limit.on_each(found.into_stream()));
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.limit.on(self.inner.get_ranges(key, ranges)).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.limit.on_each(self.inner.delete_stream(keys))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.on_each(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.on_each(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.limit.on(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.limit.on(self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.limit.on(self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct BoundedUpload {
    inner: Box<dyn MultipartUpload>,
    limit: Limit,
}

#[async_trait]
impl MultipartUpload for BoundedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        Box::pin(self.limit.on(self.inner.put_part(data)))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.limit.on(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.limit.on(self.inner.abort()).await
    }
}
