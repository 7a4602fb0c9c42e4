//! Tests of replaced and damaged files.

use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;

use super::*;
use crate::files::samples::rows;
use crate::files::{SortedReader, WrittenFor, encode};
use crate::model::{LakeColumns, Table};

const TABLE: Table = Table::Messages;

fn columns() -> Arc<TableColumns> {
    Arc::clone(LakeColumns::default().of(TABLE))
}

async fn put(store: &Store, key: &Path, conversations: u32) -> ObjectMeta {
    store
        .put(key, encode(&columns(), WrittenFor::Staging, &[rows(TABLE, 0..conversations)], &[]).unwrap())
        .await
        .unwrap();
    store.head(key).await.unwrap().unwrap()
}

/// Reads all rows of a file that was found as `seen`.
fn read(store: &Store, seen: &ObjectMeta, runtime: &Handle, meanwhile: impl FnOnce()) -> Result<usize> {
    let mut reader = SortedReader::open(store, &columns(), &FoundFile::not_read(seen.clone()), None, runtime)?;
    let mut rows = reader.next_batch()?.map_or(0, |batch| batch.num_rows());
    meanwhile();
    while let Some(batch) = reader.next_batch()? {
        rows += batch.num_rows();
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_before_it_is_read_is_not_reported_as_damaged() {
    let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
    // Smaller and larger replacements, so that reads go past the end or hit the middle; some files are read in parts.
    for (before, after) in [(10, 900), (900, 10), (40_000, 39_000), (40_000, 39_999)] {
        let seen = put(&store, &key, before).await;
        put(&store, &key, after).await;
        let (own, runtime) = (store.clone(), Handle::current());
        let task = tokio::task::spawn_blocking(move || {
            let counted =
                FileReader::read_footer(&own, LakeColumns::default().of(Table::Messages), seen.clone(), &runtime)
                    .unwrap();
            assert_eq!(counted.0.rows, u64::from(after) * 2, "the new footer counts");
            read(&own, &seen, &runtime, || ()).unwrap_err()
        });
        let error = task.await.unwrap();
        assert_eq!(error.kind(), Kind::Held, "{before} {after}: {error:?}");
        assert!(error.to_string().contains("replaced"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_replaced_while_it_is_read_is_not_reported_as_damaged() {
    let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
    let seen = put(&store, &key, 40_000).await;
    let (own, runtime) = (store.clone(), Handle::current());
    let task = tokio::task::spawn_blocking(move || {
        assert_eq!(read(&own, &seen, &runtime, || ()).unwrap(), 80_000);
        let other = encode(&columns(), WrittenFor::Table, &[rows(TABLE, 0..41_000)], &[]).unwrap();
        read(&own, &seen, &runtime, || runtime.block_on(own.put(&key, other)).unwrap()).unwrap_err()
    });
    let error = task.await.unwrap();
    assert_eq!(error.kind(), Kind::Held, "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_that_was_not_replaced_is_damaged() {
    let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
    let whole = encode(&columns(), WrittenFor::Table, &[rows(TABLE, 0..900)], &[]).unwrap();
    let mut torn = whole.clone();
    torn.truncate(whole.len() - 9);
    let mut flipped = whole;
    flipped.iter_mut().skip(9).take(200).for_each(|byte| *byte = !*byte);
    for damaged in [Vec::new(), b"PAR1".to_vec(), torn, flipped] {
        store.put(&key, damaged).await.unwrap();
        let seen = store.head(&key).await.unwrap().unwrap();
        let (own, runtime) = (store.clone(), Handle::current());
        let task = tokio::task::spawn_blocking(move || read(&own, &seen, &runtime, || ()).unwrap_err());
        let error = task.await.unwrap();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Integrity, "memory/x is damaged"), "{error:?}");
        assert!(error.hint().unwrap().contains("backup"));
    }
    let seen = store.head(&key).await.unwrap().unwrap();
    store.delete(vec![key]).await.unwrap();
    let (own, runtime) = (store.clone(), Handle::current());
    let task = tokio::task::spawn_blocking(move || read(&own, &seen, &runtime, || ()).unwrap_err());
    assert!(task.await.unwrap().to_string().contains("no longer exists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_memory_is_read_without_the_store() {
    let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
    let seen = put(&store, &key, 40_000).await;
    let file = FoundFile::not_read(seen).load(&store).await.unwrap();
    store.delete(vec![key]).await.unwrap();
    let (calls, own, runtime) = (store.calls(), store.clone(), Handle::current());
    let task = tokio::task::spawn_blocking(move || {
        let mut reader = SortedReader::open(&own, &columns(), &file, None, &runtime).unwrap();
        std::iter::from_fn(|| reader.next_batch().unwrap()).map(|batch| batch.num_rows()).sum::<usize>()
    });
    assert_eq!(task.await.unwrap(), 80_000);
    assert_eq!(store.calls(), calls);
}

/// The reader then says what is wrong with it, as with a file that is not loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_or_has_another_size_is_not_loaded() {
    let (store, key) = (Store::on(InMemory::new(), "memory", Duration::from_secs(60)), Path::from("x"));
    store.put(&key, "four".as_bytes().to_vec()).await.unwrap();
    for (key, size) in [(key, 5), (Path::from("gone"), 4)] {
        let file = FoundFile::named_once(key.clone(), size).load(&store).await.unwrap();
        assert_eq!(file.body(), None, "{key}");
        let (own, runtime) = (store.clone(), Handle::current());
        let task =
            tokio::task::spawn_blocking(move || SortedReader::open(&own, &columns(), &file, None, &runtime).map(drop));
        assert_eq!(task.await.unwrap().unwrap_err().kind(), Kind::Integrity, "{key}");
    }
}
