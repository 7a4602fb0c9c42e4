//! Whatever changes and whenever entries move into shards: the manifest says of each partition what was recorded last,
//! and the totals are the sums.

use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::lake::Shards;
use crate::model::PartitionBy;
use crate::store::Store;

fn date(number: u32) -> CreatedDate {
    if number == 0 {
        return PartitionBy::Day.of(None);
    }
    format!("2024-{:02}-{:02}", number / 3 + 1, number % 3 + 1).parse().unwrap()
}

fn entry(run: u32, rows: u64, form: u32) -> PartitionEntry {
    let file = |table| {
        let bytes = rows * 10;
        // Another program may have taken a file away, and a file may be unreadable.
        let rows = (rows != 7 || table != Table::Tags).then_some(rows);
        (rows != Some(9) || table != Table::Messages).then_some(FileEntry { rows, bytes, etag: None, key: None })
    };
    let run = RunId::new(chrono::DateTime::UNIX_EPOCH, run);
    PartitionEntry { run: Some(run), form, files: PerTable::from_fn(file), ..PartitionEntry::default() }
}

fn totals(entries: &Entries, table: Table) -> TableTotals {
    let files = || entries.iter().filter_map(|(date, entry)| Some((*date, entry.files.get(table).as_ref()?)));
    let dates = || files().filter_map(|(date, _)| date.date());
    TableTotals {
        rows: files().map(|(_, file)| file.rows.unwrap_or(0)).sum(),
        bytes: files().map(|(_, file)| file.bytes).sum(),
        dates: files().count() as u64,
        first_date: dates().min(),
        last_date: dates().max(),
    }
}

/// Changes: of each, the partitions with their new rows and forms.
fn changes() -> impl Strategy<Value = Vec<Vec<(u32, u64, u32)>>> {
    let change = proptest::collection::vec((0..12_u32, 0..10_u64, 0..3_u32), 0..5);
    proptest::collection::vec(change, 0..12)
}

proptest! {
    #[test]
    fn the_manifest_says_what_was_recorded_last(changes in changes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = Store::on(object_store::memory::InMemory::new(), "memory", std::time::Duration::from_secs(60));
            let (mut manifest, mut expected) = (Manifest::default(), Entries::new());
            for (number, change) in (1..).zip(changes) {
                let new: Entries =
                    change.into_iter().map(|(at, rows, form)| (date(at), entry(number, rows, form))).collect();
                // A partition never loses a file for good: then it has the totals' first and last date as before.
                expected.extend(new.clone());
                // As a checkpoint keeps it.
                manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
                let obsolete = Shards::of(&store).record(&mut manifest, new, number.into()).await.unwrap();
                store.delete(obsolete).await.unwrap();
                prop_assert_eq!(&Shards::of(&store).entries(&manifest).await.unwrap(), &expected);
                prop_assert!(manifest.recent.len() <= MOST_RECENT);
                let named: BTreeSet<_> = manifest.shard_keys().collect();
                let listed: Vec<_> = store.list(layout::manifest_shards()).try_collect().await.unwrap();
                let there = listed.into_iter().map(|object| object.location).collect();
                prop_assert_eq!(named, there, "no shard is lost, and none is left");
            }
            for table in Table::ALL {
                let (found, wanted) = (*manifest.tables.get(table), totals(&expected, table));
                let of_all = |totals: TableTotals| (totals.rows, totals.bytes, totals.dates);
                prop_assert_eq!(of_all(found), of_all(wanted));
                if table != Table::Messages {
                    prop_assert_eq!(found, wanted);
                }
            }
            for of in &manifest.forms {
                let count = expected.values().filter(|entry| entry.form == of.form).count();
                prop_assert_eq!(count as u64, of.partitions);
            }
            let forms: BTreeSet<_> = expected.values().map(|entry| entry.form).collect();
            prop_assert_eq!(manifest.forms.iter().map(|of| of.form).collect::<Vec<_>>(), Vec::from_iter(forms));
            Ok(())
        })?;
    }
}

#[test]
fn the_months_that_changed_least_recently_leave_the_state() {
    let mut manifest = Manifest::default();
    for (run, at) in [(5, 1), (2, 4), (9, 7), (3, 8)] {
        manifest.record(date(at), entry(run, 1, 1), None);
    }
    let months = |manifest: &Manifest| manifest.overflow().into_iter().map(|month| month.0).collect::<Vec<_>>();
    assert_eq!(months(&manifest), ["2024-01", "2024-02", "2024-03"], "one entry is the most in tests");
    let mut one = Manifest::default();
    one.record(date(1), entry(5, 1, 1), None);
    assert!(one.overflow().is_empty());
}

#[test]
fn an_entry_of_a_replacement_names_its_files() {
    let file = FlushId { run: RunId::new(chrono::DateTime::UNIX_EPOCH, 1), number: 3 };
    let replacement = Replacement {
        file: file.clone(),
        written_at: chrono::DateTime::UNIX_EPOCH,
        extent: Default::default(),
        etags: PerTable::from_fn(|table| Some(table.name().to_owned())),
        form: 1,
        times: RowTimes::default(),
        replaces: PerTable::default(),
        flushes: Vec::new(),
    };
    for table in Table::ALL {
        let plain = PartitionEntry::of(&replacement, false);
        assert_eq!(plain.key(table, date(4)), Some(layout::table_file(table, date(4))));
        assert_eq!(plain.files.get(table).as_ref().unwrap().etag.as_deref(), Some(table.name()));
        let delta = PartitionEntry::of(&replacement, true);
        assert_eq!(delta.key(table, date(4)), Some(layout::delta_file(table, date(4), &file)));
        assert_eq!(delta.files.get(table).as_ref().unwrap().etag, None);
    }
}
