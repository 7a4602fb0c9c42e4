//! The scenarios of tests/e2e/test_stores.py in memory, which no two processes share. That file runs the binary on all
//! other stores.

use super::*;

/// A lake in memory, and the API.
struct Scene {
    api: Api,
    store: Arc<Shelf>,
}

impl Scene {
    fn new() -> Self {
        let api = Api::start();
        api.time.set(Duration::ZERO);
        Scene { api, store: Arc::new(Shelf::new()) }
    }

    /// One whose lake is partitioned by day, and one whose lake is by month.
    fn both() -> [Self; 2] {
        let Scene { api, store } = Self::new();
        [Self::new(), Scene { api: api.by_month(), store }]
    }

    fn settings(&self) -> SyncSettings {
        let mut settings = settings(5, 10);
        settings.export.fetch.partition_by = Some(self.api.partition_by);
        settings
    }

    fn lake(&self) -> Lake {
        lake(sound(&self.store), &Kept::ByLease)
    }

    async fn sync(&self) -> Result<RunReport> {
        super::super::sync(&self.lake(), &mut client(&self.api, self.store.clock()), &self.settings())
            .await
            .map_err(Error::from)
    }

    async fn export(&self) -> Result<RunReport> {
        super::super::export(&self.lake(), &mut client(&self.api, self.store.clock()), &self.settings().export)
            .await
            .map_err(Error::from)
    }

    async fn compact(&self) -> RunReport {
        compact_in(self.lake()).await.unwrap()
    }

    async fn tables(&self) -> std::collections::BTreeMap<String, bytes::Bytes> {
        let objects: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        let mut tables = std::collections::BTreeMap::new();
        for key in objects.into_iter().map(|object| object.location) {
            if !key.as_ref().starts_with('_') {
                let body = object_store::ObjectStoreExt::get(self.store.as_ref(), &key).await.unwrap();
                tables.insert(key.to_string(), body.bytes().await.unwrap());
            }
        }
        tables
    }

    async fn assert_exact(&self, later: usize) {
        assert_exact(&self.store, &self.api.truth[later], "in memory").await;
    }
}

#[tokio::test]
async fn fresh_sync_and_increments() {
    for place in Scene::both() {
        for (later, passed) in [(0, Duration::ZERO), (1, LATER), (1, LATER)] {
            place.api.time.set(passed);
            place.sync().await.unwrap();
            place.assert_exact(later).await;
        }
        let folders = place.tables().await.into_keys().map(|key| key.split('/').nth(1).unwrap().to_owned());
        let folders: std::collections::BTreeSet<_> = folders.collect();
        match place.api.partition_by {
            PartitionBy::Day => assert!(folders.len() > 2, "{folders:?}"),
            PartitionBy::Month => {
                let months = ["created_month=2024-02-01", "created_month=2024-03-01"].map(str::to_owned);
                assert_eq!(folders, months.into());
            }
        }
    }
}

#[tokio::test]
async fn backfill_then_sync() {
    for place in Scene::both() {
        let from = DateTime::from_timestamp(1_709_251_200 - 86_400, 0).unwrap();
        let fetch = place.settings().export.fetch;
        let range = BackfillSettings { from, to: from + LATER, timestamp_filter: TimestampFilter::UpdatedAt, fetch };
        backfill(&place.lake(), &mut client(&place.api, place.store.clock()), &range).await.unwrap();
        place.compact().await;
        let (from, to) = (from.timestamp_micros(), (from + LATER).timestamp_micros());
        let inside = place.api.truth[0].clone().into_iter().filter(|(_, (at, ..))| (from..to).contains(at));
        let inside: Conversations = inside.collect();
        assert!(!inside.is_empty() && inside.len() < place.api.truth[0].len());
        assert_exact(&place.store, &inside, "after the backfill").await;
        place.sync().await.unwrap();
        place.assert_exact(0).await;
    }
}

#[tokio::test]
async fn compaction_touches_only_partitions_with_staged_files() {
    for place in Scene::both() {
        place.export().await.unwrap();
        assert!(place.tables().await.is_empty());
        place.compact().await;
        place.assert_exact(0).await;
        let before = place.tables().await;
        place.compact().await;
        assert_eq!(place.tables().await, before);
        place.api.time.set(LATER);
        let compacted = place.sync().await.unwrap().compacted_dates;
        for (key, body) in place.tables().await {
            let touched = compacted.iter().any(|date| key.contains(&format!("={date}/")));
            let same = before.get(&key) == Some(&body);
            assert!(if key.starts_with("conversations/") { touched != same } else { touched || same }, "{key}");
        }
        place.assert_exact(1).await;
    }
}

#[tokio::test]
async fn crash_and_continue() {
    let place = Scene::new();
    let dying = Faulty::new(Arc::clone(&place.store), 40, Fate::EndsAfter);
    let lake = lake(dying, &Kept::ByLease);
    super::super::sync(&lake, &mut client(&place.api, place.store.clock()), &place.settings()).await.unwrap_err();
    sync(&place.api, Faulty::an_hour_later(Arc::clone(&place.store)), &Kept::ByLease).await.unwrap();
    place.assert_exact(0).await;
}

#[tokio::test]
async fn two_at_once() {
    let place = Scene::new();
    let slow = Faulty::new(Arc::clone(&place.store), 40, Fate::SleepsBefore);
    let first_lake = Lake::on(Store::on(slow.clone(), "memory", Duration::from_secs(60)).by(slow.clock()));
    let (settings, mut own) = (place.settings(), client(&place.api, place.store.clock()));
    let mut first = std::pin::pin!(super::super::sync(&first_lake, &mut own, &settings));
    tokio::select! {
        _ = &mut first => panic!("the run ended before it fell asleep"),
        () = slow.falls_asleep() => {}
    }
    // The holder does not renew its lease, but it keeps the lake until it expires.
    let watching = sound(&place.store);
    let second = async {
        let lake = lake(watching.clone(), &Kept::ByLease);
        super::super::sync(&lake, &mut client(&place.api, place.store.clock()), &place.settings()).await
    };
    let woken = async {
        // Reading the newest lease takes two calls, and its age four; then the second run waits.
        while watching.calls() < 6 {
            tokio::task::yield_now().await;
        }
        slow.wake();
        first.await
    };
    let (second, first) = tokio::join!(second, woken);
    assert_eq!(second.unwrap_err().error.kind(), Kind::Held);
    first.unwrap();
    place.assert_exact(0).await;
}

#[tokio::test]
async fn verify_finds_a_missing_table_file() {
    let place = Scene::new();
    place.sync().await.unwrap();
    let gone = place.tables().await.into_keys().find(|key| key.starts_with("messages/")).unwrap();
    object_store::ObjectStoreExt::delete(place.store.as_ref(), &gone.into()).await.unwrap();
    let found = verify::verify(&place.lake(), Clock::system()).await.unwrap();
    assert!(found.problems() > 0);
}
