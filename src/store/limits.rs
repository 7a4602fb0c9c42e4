//! A store whose every call ends in time, whatever the disk or the network does, and which gets no more than so many at
//! a time.
//!
//! Must not know: what is stored.

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

/// How many calls that go ahead of the others may be under way.
const APART: usize = 4;

/// A store that gives up a call, or the wait for the next item of a stream, after a time.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    inner: S,
    limit: Limit,
}

/// How long a call may take and how many may be under way, and how many there were.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    each: Duration,
    at_once: Arc<Semaphore>,
    calls: Arc<Counter>,
    clock: Clock,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, limit: Limit) -> Self {
        Bounded { inner, limit }
    }
}

impl Limit {
    pub(super) fn new(each: Duration, at_once: usize, clock: Clock) -> Self {
        let at_once = Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Limit { each, at_once, calls: Arc::default(), clock }
    }

    /// The same limit, but its calls wait for each other alone.
    pub(super) fn apart(&self) -> Self {
        Limit { at_once: Arc::new(Semaphore::new(APART)), ..self.clone() }
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
    pub(super) fn each(&self) -> Duration {
        self.each
    }

    pub(super) fn calls(&self) -> &Counter {
        &self.calls
    }

    /// Makes `call` when it is its turn, but waits no longer than it may take.
    pub(super) async fn on<T>(&self, kind: Call, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.add(kind);
        self.in_turn(call).await
    }

    async fn in_turn<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        // It is never closed; every holder lets go in time.
        let _turn = self.at_once.acquire().await;
        self.clock.within(self.each, call).await.unwrap_or_else(|| {
            let source = format!("no answer within {} s (see --store-timeout)", self.each.as_secs_f32()).into();
            Err(Error::Generic { store: "lake", source })
        })
    }

    fn on_each<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
        note: impl Fn(&Self, u64) + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let limit = self.clone();
        // Not asked again after the wait for an item was given up, unless the caller wants to.
        stream::unfold((limit, note, items, 0_u64), |(limit, note, mut items, number)| async move {
            let item = limit.in_turn(async { items.next().await.transpose() }).await.transpose()?;
            note(&limit, number);
            Some((item, (limit, note, items, number.saturating_add(1))))
        })
        // There are callers that ask once more after the end.
        .fuse()
        .boxed()
    }

    fn listing<T: Send + 'static>(&self, entries: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        self.calls.add(Call::List);
        self.on_each(entries, |limit, entry| limit.calls.add_listed(entry))
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
        self.limit.on(Call::Put, self.inner.put_opts(key, body, options)).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.limit.on(Call::Multipart, self.inner.put_multipart_opts(key, options)).await?;
        Ok(Box::new(BoundedUpload { inner: upload, limit: self.limit.clone() }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { Call::Head } else { Call::Get };
        let found = self.limit.on(kind, self.inner.get_opts(key, options)).await?;
        // A file on this machine's disks is read chunk by chunk too: whatever hangs there hangs for a time only.
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let extensions = found.extensions.clone();
        let payload = GetResultPayload::Stream(self.limit.on_each(found.into_stream(), |_, _| {}));
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.limit.on(Call::Get, self.inner.get_ranges(key, ranges)).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.limit.on_each(self.inner.delete_stream(keys), |limit, _| limit.calls.add(Call::Delete))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.listing(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.limit.listing(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.limit.on(Call::List, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.limit.on(Call::Copy, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.limit.on(Call::Copy, self.inner.rename_opts(from, to, options)).await
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
        Box::pin(async move { limit.on(Call::Part, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.limit.on(Call::Multipart, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.limit.on(Call::Multipart, self.inner.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn no_more_calls_are_under_way_than_may_be_and_each_is_counted() {
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
        join_all((0..20).map(|_| limit.on(Call::Get, call()))).await.into_iter().collect::<Result<Vec<_>>>().unwrap();
        assert_eq!((most.into_inner(), limit.calls().so_far().get), (3, 20));
    }

    #[tokio::test]
    async fn a_listing_is_counted_by_its_pages() {
        let limit = Limit::new(Duration::from_secs(60), 1, Clock::system());
        let entries = |count: u64| limit.listing(stream::iter((0..count).map(Ok)).boxed()).count();
        assert_eq!((entries(0).await, limit.calls().so_far().list), (0, 1));
        assert_eq!((entries(1_000).await, limit.calls().so_far().list), (1_000, 2));
        assert_eq!((entries(1_001).await, limit.calls().so_far().list), (1_001, 4));
    }
}
