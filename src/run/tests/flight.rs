//! How many calls runs keep under way, in which order they put the files of a partition, and what they stream.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result as StoreResult,
};
use tokio::sync::watch;

use super::*;

/// How many calls may be under way.
const CONCURRENCY: usize = 24;
/// How many calls the test waits for: fewer than may be under way, because some wait for others.
const TOGETHER: usize = 20;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    Get,
    Put,
}

/// Which calls return only when [`TOGETHER`] of them have been made.
type Gate = fn(Kinds, &str) -> bool;

/// A store that notes its calls.
#[derive(Clone)]
struct Noted {
    inner: Arc<Shelf>,
    gate: Gate,
    arrived: watch::Sender<usize>,
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    under_way: AtomicUsize,
    most: AtomicUsize,
    /// The beginnings (true) and ends of puts.
    puts: Mutex<Vec<(bool, String)>>,
    gets: Mutex<Vec<String>>,
}

impl Noted {
    fn new(inner: &Arc<Shelf>, gate: Gate) -> Self {
        Noted { inner: inner.clone(), gate, arrived: watch::Sender::new(0), notes: Arc::default() }
    }

    /// The lake in it.
    fn lake(&self) -> Lake {
        Lake::on(Store::on_narrow(self.clone(), "memory", Duration::from_secs(30), CONCURRENCY))
    }

    async fn on<T>(&self, kind: Kinds, key: &Path, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let Notes { under_way, most, .. } = &*self.notes;
        most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        if (self.gate)(kind, key.as_ref()) {
            self.arrived.send_modify(|arrived| *arrived += 1);
            // The sender lives as long as the store.
            let _ = self.arrived.subscribe().wait_for(|arrived| *arrived >= TOGETHER).await;
        }
        let done = call.await;
        under_way.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// A put, or the end of an upload in parts, which is when the object becomes visible.
    async fn put<T>(&self, key: &Path, call: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        let note = |begins| self.notes.puts.lock().unwrap().push((begins, key.to_string()));
        note(true);
        let done = self.on(Kinds::Put, key, call).await;
        note(false);
        done
    }

    fn assert_together(&self) {
        assert!(*self.arrived.borrow() >= TOGETHER);
        let most = self.notes.most.load(Ordering::SeqCst);
        // Those of the lease have a limit of their own.
        assert!((TOGETHER..=CONCURRENCY + 4).contains(&most), "{most} calls were under way");
    }
}

impl fmt::Debug for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Noted({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Noted {
    async fn put_opts(&self, key: &Path, body: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.put(key, self.inner.put_opts(key, body, options)).await
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.notes.gets.lock().unwrap().push(key.to_string());
        self.on(Kinds::Get, key, self.inner.get_opts(key, options)).await
    }

    async fn get_ranges(&self, key: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.notes.gets.lock().unwrap().push(key.to_string());
        self.on(Kinds::Get, key, self.inner.get_ranges(key, ranges)).await
    }

    fn delete_stream(&self, keys: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Noted {
    async fn create_multipart(&self, key: &Path) -> StoreResult<MultipartId> {
        self.inner.create_multipart(key).await
    }

    async fn put_part(&self, key: &Path, id: &MultipartId, number: usize, data: PutPayload) -> StoreResult<PartId> {
        self.inner.put_part(key, id, number, data).await
    }

    async fn complete_multipart(&self, key: &Path, id: &MultipartId, parts: Vec<PartId>) -> StoreResult<PutResult> {
        self.put(key, self.inner.complete_multipart(key, id, parts)).await
    }

    async fn abort_multipart(&self, key: &Path, id: &MultipartId) -> StoreResult<()> {
        self.inner.abort_multipart(key, id).await
    }
}

/// An API with `conversations` over `days`.
fn api(conversations: u32, days: u32, messages: u32) -> Api {
    let now = DateTime::from_timestamp(1_709_251_200, 0).unwrap();
    let api = Api::of(WorldSettings { seed: SEED, conversations, days, messages, now }, false);
    api.time.set(Duration::ZERO);
    api
}

/// Exports to `lake` in one flush.
async fn export(api: &Api, lake: &Lake) {
    let settings = settings(100, 1_000).export;
    super::super::export(lake, &mut client(api, Clock::system()), &settings).await.unwrap();
}

fn is_staged(key: &str) -> bool {
    key.starts_with("_landing/")
}

fn is_of_table(key: &str) -> bool {
    key.ends_with("/part-0.parquet")
}

#[tokio::test]
async fn staged_files_are_uploaded_many_at_a_time() {
    let (api, store) = (api(60, 30, 1), Arc::new(Shelf::new()));
    let noted = Noted::new(&store, |kind, key| kind == Kinds::Put && is_staged(key));
    export(&api, &noted.lake()).await;
    noted.assert_together();
}

#[tokio::test]
async fn many_partitions_are_compacted_at_a_time_and_the_conversations_are_put_last() {
    let (api, store) = (api(60, 30, 1), Arc::new(Shelf::new()));
    export(&api, &lake(sound(&store), &Kept::ByLease)).await;
    for gate in [
        (|kind, key| kind == Kinds::Get && is_staged(key)) as Gate,
        |kind, key| kind == Kinds::Get && is_of_table(key),
        |kind, key| kind == Kinds::Put && is_of_table(key),
    ] {
        let store = Arc::new(store.fork());
        let noted = Noted::new(&store, gate);
        compact_in(noted.lake()).await.unwrap();
        noted.assert_together();
        assert_tables(&store, &api.truth[0], "compacted together").await;

        let puts = noted.notes.puts.lock().unwrap();
        let at =
            |begins: bool, key: &str| puts.iter().position(|put| (put.0, put.1.as_str()) == (begins, key)).unwrap();
        let conversations: Vec<_> = puts.iter().filter(|(begins, key)| *begins && key.starts_with("conv")).collect();
        assert!(conversations.len() >= 20, "{}", conversations.len());
        for (_, key) in conversations {
            for child in Table::CHILDREN {
                let child = key.replace("conversations", child.name());
                assert!(at(false, &child) < at(true, key), "{child} is put before {key}");
            }
        }
    }
}

#[tokio::test]
async fn many_partitions_are_verified_at_a_time() {
    let (api, store) = (api(60, 30, 1), Arc::new(Shelf::new()));
    sync(&api, sound(&store), &Kept::ByLease).await.unwrap();
    let noted = Noted::new(&store, |kind, key| kind == Kinds::Get && is_of_table(key));
    let found = verify::verify(&noted.lake(), Clock::system()).await.unwrap();
    assert_eq!((found.problems(), found.dates), (0, 30));
    noted.assert_together();
}

#[tokio::test]
async fn what_a_sync_has_just_staged_is_not_fetched() {
    let (api, store) = (api(60, 30, 1), Arc::new(Shelf::new()));
    let noted = Noted::new(&store, |_, _| false);
    super::super::sync(&noted.lake(), &mut client(&api, Clock::system()), &settings(100, 1_000)).await.unwrap();
    assert_exact(&store, &api.truth[0], "a sync").await;
    let gets = noted.notes.gets.lock().unwrap();
    assert_eq!(gets.iter().filter(|key| is_staged(key)).count(), 0, "{gets:?}");
}

/// Its files are more than are read into memory together, and more than a reader fetches at a time.
#[tokio::test]
async fn a_large_partition_is_streamed() {
    let (api, store) = (api(400, 1, 20), Arc::new(Shelf::new()));
    for truth in &api.truth {
        export(&api, &lake(sound(&store), &Kept::ByLease)).await;
        let noted = Noted::new(&store, |_, _| false);
        compact_in(noted.lake()).await.unwrap();
        assert_tables(&store, truth, "a large partition").await;
        if truth == &api.truth[1] {
            let gets = noted.notes.gets.lock().unwrap();
            let of_messages = gets.iter().filter(|key| key.starts_with("messages/") && is_of_table(key)).count();
            assert!(of_messages > 3, "{of_messages} reads of the largest table file");
        }
        api.time.set(LATER);
    }
}
