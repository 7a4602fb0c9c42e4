//! A store with a fault in one call: the N-th fails, hangs, or is the last of its process.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::sync::watch;

use super::distance::Distance;
use crate::clock::Clock;
use crate::store::Shelf;

/// What happens to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It fails without effect.
    FailsBefore,
    /// It takes effect, but its answer is lost.
    FailsAfter,
    /// The process ends before it.
    EndsBefore,
    /// The process ends right after it.
    EndsAfter,
    /// It never returns.
    Hangs,
    /// It fails, and takes effect much later: [`Faulty::arrives`].
    ArrivesLate,
    /// The process sleeps before it, until it is woken.
    SleepsBefore,
    /// The process sleeps right after it.
    SleepsAfter,
}

/// A store as one process sees it.
#[derive(Clone)]
pub(super) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    parted: Arc<dyn MultipartStore>,
    plan: Arc<Plan>,
    clock: Clock,
}

#[derive(Debug)]
struct Plan {
    /// The number of the call, from 1.
    at: usize,
    fate: Fate,
    calls: AtomicUsize,
    /// Whether the process has ended, so that its calls no longer reach the store.
    ended: AtomicBool,
    asleep: watch::Sender<bool>,
    late: Mutex<Option<LateCalls>>,
    /// How far away the store is; `None` if it answers at once.
    distance: Option<Distance>,
}

/// A put that has not arrived yet.
type LateCalls = (Path, PutPayload, PutOptions);

impl Faulty {
    pub(super) fn new(inner: Arc<Shelf>, at: usize, fate: Fate) -> Self {
        Self::at(None, inner, at, fate)
    }

    /// A sound store so far away.
    pub(super) fn distant(inner: Arc<Shelf>, distance: Distance) -> Self {
        Self::at(Some(distance), inner, 0, Fate::Hangs)
    }

    fn at(distance: Option<Distance>, inner: Arc<Shelf>, at: usize, fate: Fate) -> Self {
        let (calls, ended, asleep) = (AtomicUsize::new(0), AtomicBool::new(false), watch::Sender::new(false));
        let plan = Plan { at, fate, calls, ended, asleep, late: Mutex::new(None), distance };
        let clock = inner.clock();
        Faulty { parted: inner.clone(), inner, plan: Arc::new(plan), clock }
    }

    /// A store without faults, an hour later, so that the lease of a process that ended or sleeps has expired.
    pub(super) fn an_hour_later(inner: Arc<Shelf>) -> Self {
        inner.clock().advance(chrono::TimeDelta::hours(1));
        Self::new(inner, 0, Fate::Hangs)
    }

    /// The clock of the store, and of every process that uses it.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Waits until the process has fallen asleep.
    pub(super) async fn falls_asleep(&self) {
        self.plan.asleep.subscribe().wait_for(|asleep| *asleep).await.unwrap();
    }

    /// Wakes the process up.
    pub(super) fn wake(&self) {
        self.plan.asleep.send_replace(false);
    }

    /// Lets the failed put arrive after all. Returns false if the failed call was not a put.
    pub(super) async fn arrives(&self) -> bool {
        let Some((key, body, options)) = self.plan.late.lock().unwrap().take() else { return false };
        // The store may refuse it; its process does not learn that.
        let _ = self.inner.put_opts(&key, body, options).await;
        true
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.plan.calls.load(Ordering::SeqCst)
    }
}

impl Plan {
    async fn on<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.distance {
            Some(distance) => distance.travel(self.near(call)).await,
            None => self.near(call).await,
        }
    }

    async fn near<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.ended.load(Ordering::SeqCst) {
            return Err(failure());
        }
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            // Calls that have started wait too while the process sleeps.
            self.is_awake().await;
            let done = call.await;
            self.is_awake().await;
            return done;
        }
        match self.fate {
            // `put_opts` has recorded the call if it is a put.
            Fate::FailsBefore | Fate::ArrivesLate => Err(failure()),
            Fate::FailsAfter => call.await.and(Err(failure())),
            Fate::EndsBefore => {
                self.ended.store(true, Ordering::SeqCst);
                Err(failure())
            }
            Fate::EndsAfter => {
                let done = call.await;
                self.ended.store(true, Ordering::SeqCst);
                done.and(Err(failure()))
            }
            Fate::Hangs => std::future::pending().await,
            Fate::SleepsBefore => {
                self.asleep.send_replace(true);
                self.is_awake().await;
                call.await
            }
            Fate::SleepsAfter => {
                let done = call.await;
                self.asleep.send_replace(true);
                self.is_awake().await;
                done
            }
        }
    }

    async fn is_awake(&self) {
        // The sender lives as long as the plan.
        let _ = self.asleep.subscribe().wait_for(|asleep| !*asleep).await;
    }
}

fn failure() -> Error {
    Error::Generic { store: "faulty", source: "a fault of the test".into() }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.plan.fate == Fate::ArrivesLate && self.calls() + 1 == self.plan.at {
            *self.plan.late.lock().unwrap() = Some((key.clone(), body.clone(), options.clone()));
        }
        self.plan.on(self.inner.put_opts(key, body, options)).await
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.plan.on(self.inner.put_multipart_opts(key, options)).await?;
        Ok(Box::new(FaultyUpload { inner: upload, plan: Arc::clone(&self.plan) }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        self.plan.on(self.inner.get_opts(key, options)).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.on(self.inner.get_ranges(key, ranges)).await
    }

    /// Deletes each key in a call of its own, because a process may end between two of them. At a distance, all are one
    /// call.
    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        if self.plan.distance.is_some() {
            let deleted = self.inner.delete_stream(keys);
            let deleted = async move { store.plan.on(deleted.try_collect::<Vec<_>>()).await };
            return stream::once(deleted).map_ok(|keys| stream::iter(keys).map(Ok)).try_flatten().boxed();
        }
        let delete = move |key: Path| {
            let store = store.clone();
            async move { store.plan.on(store.inner.delete(&key)).await.map(|()| key) }
        };
        keys.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, objects) = (self.clone(), self.inner.list(prefix));
        let listed = async move { store.plan.on(objects.try_collect::<Vec<_>>()).await };
        stream::once(listed).map_ok(|objects| stream::iter(objects).map(Ok)).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plan.on(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plan.on(self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.plan.on(self.inner.rename_opts(from, to, options)).await
    }
}

#[async_trait]
impl MultipartStore for Faulty {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        self.plan.on(self.parted.create_multipart(key)).await
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, number: usize, data: PutPayload) -> Result<PartId> {
        self.plan.on(self.parted.put_part(key, id, number, data)).await
    }

    async fn complete_multipart(&self, key: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.plan.on(self.parted.complete_multipart(key, id, parts)).await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        let aborted = self.plan.on(self.parted.abort_multipart(key, id)).await;
        aborted.map_err(|error| match error.to_string() {
            // Real stores return this error.
            message if message.contains("MultipartUpload not found") => {
                Error::NotFound { path: key.to_string(), source: message.into() }
            }
            _ => error,
        })
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (plan, part) = (Arc::clone(&self.plan), self.inner.put_part(data));
        Box::pin(async move { plan.on(part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.plan.on(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.on(self.inner.abort()).await
    }
}
