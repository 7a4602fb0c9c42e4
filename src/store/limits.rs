//! A decorator for stores that limits and counts their calls.
//!
//! Guarantees: every call ends within a time limit, whatever the disk or network does; no more calls than a limit are
//! under way. Must not depend on: what is stored.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
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
use tokio::sync::Semaphore;

use super::calls::{Call, Counter};
use crate::clock::Clock;

/// How many priority calls may be under way.
const PRIORITY_CALLS: usize = 4;

/// A store that ends a call, or the wait for the next item of a stream, after a time.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    limit: Limit,
}

/// How long a call may take and how many may be under way; counts them.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    call_timeout: Duration,
    concurrency: usize,
    permits: Arc<Semaphore>,
    calls: Arc<Counter>,
    clock: Clock,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, limit: Limit) -> Self {
        Bounded { inner, limit }
    }
}

impl Limit {
    pub(super) fn new(call_timeout: Duration, concurrency: usize, clock: Clock) -> Self {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(concurrency));
        Limit { call_timeout, concurrency, permits, calls: Arc::default(), clock }
    }

    /// The same limit with permits of its own, so that its calls do not wait for others.
    pub(super) fn priority(&self) -> Self {
        Limit { permits: Arc::new(Semaphore::new(PRIORITY_CALLS)), ..self.clone() }
    }

    /// The same limit by another clock.
    #[cfg(test)]
    pub(super) fn by(self, clock: Clock) -> Self {
        Limit { clock, ..self }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// How long a call may take.
    pub(super) fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// How many calls may be under way.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    pub(super) fn calls(&self) -> &Counter {
        &self.calls
    }

    /// Counts `call` and makes it within the limits.
    pub(super) async fn run<T>(&self, kind: Call, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.add(kind);
        self.bounded(call).await
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        // The semaphore is never closed, and every permit is released in time.
        let _permit = self.permits.acquire().await;
        self.clock.within(self.call_timeout, call).await.unwrap_or_else(|| {
            let source = format!("no answer within {} s (see --store-timeout)", self.call_timeout.as_secs_f32()).into();
            Err(Error::Generic { store: "lake", source })
        })
    }

    /// Bounds the wait for each item of a stream, and calls `note` with each item's number.
    fn stream<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
        note: impl Fn(&Self, u64) + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let limit = self.clone();
        // After a timeout the next item is requested only if the caller polls again.
        stream::unfold((limit, note, items, 0_u64), |(limit, note, mut items, number)| async move {
            let item = limit.bounded(async { items.next().await.transpose() }).await.transpose()?;
            note(&limit, number);
            Some((item, (limit, note, items, number.saturating_add(1))))
        })
        // Some callers poll once more after the end.
        .fuse()
        .boxed()
    }

    fn listing<T: Send + 'static>(&self, entries: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        self.calls.add(Call::List);
        self.stream(entries, |limit, entry| limit.calls.add_listed(entry))
    }
}

impl<S: ObjectStore> fmt::Display for Bounded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods, reason = "a default method would make unbounded calls")]
impl<S: ObjectStore> ObjectStore for Bounded<S> {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.limit.run(Call::Put, self.inner.put_opts(key, body, options)).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.limit.run(Call::Multipart, self.inner.put_multipart_opts(key, options)).await?;
        Ok(Box::new(BoundedUpload { inner: upload, limit: self.limit.clone() }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Call::Head } else { Call::Get };
        let found = self.limit.run(kind, self.inner.get_opts(key, options)).await?;
        // A local file is streamed, too, so that each read has the time limit.
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let extensions = found.extensions.clone();
        let payload = GetResultPayload::Stream(self.limit.stream(found.into_stream(), |_, _| {}));
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.limit.run(Call::Get, self.inner.get_ranges(key, ranges)).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.limit.stream(self.inner.delete_stream(keys), |limit, _| limit.calls.add(Call::Delete))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.listing(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.limit.run(Call::List, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.limit.run(Call::Copy, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.limit.run(Call::Copy, self.inner.rename_opts(from, to, options)).await
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
        let (limit, part) = (self.limit.clone(), self.inner.put_part(data));
        Box::pin(async move { limit.run(Call::Part, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.limit.run(Call::Multipart, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.limit.run(Call::Multipart, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn concurrency_is_limited_and_each_call_is_counted() {
        let limit = Limit::new(Duration::from_secs(60), 3, Clock::system());
        let (under_way, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let call = || async {
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            under_way.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        join_all((0..20).map(|_| limit.run(Call::Get, call()))).await.into_iter().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!((most.into_inner(), limit.calls().so_far().get), (3, 20));
    }

    #[tokio::test]
    async fn listings_are_counted_by_page() {
        let limit = Limit::new(Duration::from_secs(60), 1, Clock::system());
        let entries = |count: u64| limit.listing(stream::iter((0..count).map(Ok)).boxed()).count();
        assert_eq!((entries(0).await, limit.calls().so_far().list), (0, 1));
        assert_eq!((entries(1_000).await, limit.calls().so_far().list), (1_000, 2));
        assert_eq!((entries(1_001).await, limit.calls().so_far().list), (1_001, 4));
    }
}
