//! A store in memory for tests, whose objects are as old as a clock says that tests move, and which can lose what was
//! not synced.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::group_sync::SyncLater;
use crate::clock::Clock;

/// When objects were written.
type Times = Arc<Mutex<HashMap<Path, DateTime<Utc>>>>;

/// Objects as they were before they were put.
type Unsynced = Arc<Mutex<HashMap<Path, Option<Bytes>>>>;

/// A store in memory and its clock. A clone is the same store.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    objects: Arc<InMemory>,
    written: Times,
    /// What the objects were that will be synced with a later put.
    unsynced: Unsynced,
    clock: Clock,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let clock = Clock::starting_at(DateTime::from_timestamp(1_767_225_600, 0).unwrap());
        Shelf { objects: Arc::default(), written: Times::default(), unsynced: Arc::default(), clock }
    }

    /// The same objects in another store, whose clock shows the same and goes on by itself.
    pub(crate) fn fork(&self) -> Self {
        let written = Arc::new(Mutex::new(self.written.lock().unwrap().clone()));
        let (unsynced, clock) = (Arc::default(), Clock::starting_at(self.clock.now()));
        Shelf { objects: Arc::new(self.objects.fork()), written, unsynced, clock }
    }

    /// Loses two in three of the objects that are not synced, as a disk may whose machine loses its power; `seed` decides
    /// which. Returns how many that were.
    pub(crate) async fn lose_power(&self, seed: usize) -> usize {
        let unsynced: BTreeMap<_, _> = std::mem::take(&mut *self.unsynced.lock().unwrap()).into_iter().collect();
        let lost: Vec<_> = unsynced.into_iter().zip(seed..).filter(|(_, number)| number % 3 > 0).collect();
        for ((key, before), _) in &lost {
            match before {
                Some(before) => drop(self.objects.put(key, before.clone().into()).await.unwrap()),
                None => drop(self.objects.delete(key).await),
            }
        }
        lost.len()
    }

    async fn bytes(&self, key: &Path) -> Option<Bytes> {
        self.objects.get(key).await.ok()?.bytes().await.ok()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    fn wrote(&self, key: &Path) {
        self.written.lock().unwrap().insert(key.clone(), self.clock.now());
    }
}

fn dated(mut object: ObjectMeta, times: &Times) -> ObjectMeta {
    if let Some(time) = times.lock().unwrap().get(&object.location) {
        object.last_modified = *time;
    }
    object
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.objects, f)
    }
}

#[async_trait]
impl ObjectStore for Shelf {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> Result<PutResult> {
        let later = options.extensions.get::<SyncLater>().copied();
        if later != Some(SyncLater::Everything) {
            self.unsynced.lock().unwrap().clear();
        }
        let before = if later.is_some() { self.bytes(key).await } else { None };
        let put = self.objects.put_opts(key, body, options).await?;
        if later.is_some() {
            self.unsynced.lock().unwrap().entry(key.clone()).or_insert(before);
        }
        self.wrote(key);
        Ok(put)
    }

    async fn put_multipart_opts(&self, key: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.objects.put_multipart_opts(key, options).await?;
        let (written, unsynced) = (Arc::clone(&self.written), Arc::clone(&self.unsynced));
        Ok(Box::new(ShelfUpload { inner, key: key.clone(), written, unsynced, clock: self.clock }))
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.objects.get_opts(key, options).await?;
        found.meta = dated(found.meta, &self.written);
        Ok(found)
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(key, ranges).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let written = Arc::clone(&self.written);
        self.objects.list(prefix).map_ok(move |object| dated(object, &written)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.objects.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(|object| dated(object, &self.written)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await?;
        self.wrote(to);
        Ok(())
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.objects.rename_opts(from, to, options).await?;
        self.wrote(to);
        Ok(())
    }
}

#[async_trait]
impl MultipartStore for Shelf {
    async fn create_multipart(&self, key: &Path) -> Result<MultipartId> {
        self.objects.create_multipart(key).await
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, number: usize, data: PutPayload) -> Result<PartId> {
        self.objects.put_part(key, id, number, data).await
    }

    async fn complete_multipart(&self, key: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let put = self.objects.complete_multipart(key, id, parts).await?;
        self.wrote(key);
        Ok(put)
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> Result<()> {
        self.objects.abort_multipart(key, id).await
    }
}

#[derive(Debug)]
struct ShelfUpload {
    inner: Box<dyn MultipartUpload>,
    key: Path,
    written: Times,
    unsynced: Unsynced,
    clock: Clock,
}

#[async_trait]
impl MultipartUpload for ShelfUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.unsynced.lock().unwrap().clear();
        let put = self.inner.complete().await?;
        self.written.lock().unwrap().insert(self.key.clone(), self.clock.now());
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
