//! Every key of a lake; [`folders`] shows them all.
//!
//! Guarantees: no key is built or parsed elsewhere, because the names of the folders and suffixes are private here.
//! Must not depend on: what the objects hold.

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::model::{CreatedDate, RunId, Table};

/// The folder of the lake's own objects.
const STATE: &str = "_state";
/// The folder of staged files.
const LANDING: &str = "_landing";
/// The suffix of upload records.
const UPLOAD: &str = ".upload";

/// Identifies a flush, and so its staged files of all partitions and tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlushId {
    /// The run.
    pub run: RunId,
    /// The flush's number in the run, from 0.
    pub number: u32,
}

impl std::fmt::Display for FlushId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:04}", self.run, self.number)
    }
}

/// The folders that together hold the whole lake. All its keys:
///
/// ```text
/// conversations/created_date=2024-01-01/part-0.parquet                  a table file (so messages/, tags/, audit_logs/)
/// conversations/created_month=2024-01-01/part-0.parquet                 the same in a lake by month
/// conversations/created_date=2024-01-01/part-<run>-<nnnn>.parquet       the same in a Delta table, whose log names it
/// conversations/_delta_log/…                                            the Delta log
/// _landing/conversations/created_date=2024-01-01/<run>-<nnnn>.parquet   a staged file, until it is compacted
/// _state/lake.json                                                      the lake's identity
/// _state/suppression.json                                               conversations that must not come back
/// _state/receipts/<run>.json                                            what a `forget` has erased
/// _state/demo.json                                                      marks the lake of a demo, which may remove it
/// _state/checkpoints/<20 digits>.json                                   checkpoints; the highest number counts
/// _state/manifest/2024-01-<number>-<checksum>.json                      the manifest's entries of a month
/// _state/reconcile/<run>-<nnnn>.seen                                    hashes of ids that a reconciliation has seen
/// _state/leases/<20 digits>.json                                        leases; the highest number counts
/// _state/leases/<run>.now                                               written to read the store's time, then deleted
/// _state/leases/<run>-<key>.upload                                      a multipart upload under way
/// _state/check/<run>-<name>                                             objects of a check under way
/// _state/lock                                                           locked by the holder, on local disks
/// _state/runs/<run>.json                                                run reports
/// _state/quarantine/<run>-<nnnn>.jsonl                                  quarantined entries
/// ```
pub fn folders() -> Vec<Path> {
    let own = [LANDING, STATE].map(Path::from);
    Table::ALL.map(table_folder).into_iter().chain(own).collect()
}

/// The file of one partition of a plain table.
pub fn table_file(table: Table, date: CreatedDate) -> Path {
    Path::from(format!("{}/{}/part-0.parquet", table.name(), date.folder()))
}

/// A file of one partition of a Delta table; every file has a new name.
pub fn delta_file(table: Table, date: CreatedDate, file: &FlushId) -> Path {
    Path::from(format!("{}/{}/part-{file}.parquet", table.name(), date.folder()))
}

/// The id in the name of a file that [`delta_file`] names; `None` for other keys.
pub fn delta_file_id(table: Table, date: CreatedDate, key: &Path) -> Option<FlushId> {
    let id = key.filename()?.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let (run, number) = id.rsplit_once('-')?;
    let file = FlushId { run: RunId::parse(run)?, number: number.parse().ok()? };
    (delta_file(table, date, &file) == *key).then_some(file)
}

/// The folder of a Delta table's log.
pub fn delta_log(table: Table) -> Path {
    Path::from(format!("{}/_delta_log", table.name()))
}

/// The partition of a plain table's file, from its key; `None` for other keys.
pub fn table_file_date(table: Table, key: &Path) -> Option<CreatedDate> {
    date_of(key).filter(|date| table_file(table, *date) == *key)
}

/// The folder of one table.
pub fn table_folder(table: Table) -> Path {
    Path::from(table.name())
}

/// The staged file of one flush, table and partition.
pub fn staged_file(table: Table, date: CreatedDate, flush: &FlushId) -> Path {
    Path::from(format!("{LANDING}/{}/{}/{flush}.parquet", table.name(), date.folder()))
}

/// Whether [`staged_file`] builds this key.
pub fn is_staged_file(key: &Path) -> bool {
    let parts: Vec<_> = key.parts().collect();
    let [landing, table, _, name] = parts.as_slice() else { return false };
    let flush = name.as_ref().strip_suffix(".parquet").and_then(|name| name.rsplit_once('-'));
    let is_flush =
        flush.is_some_and(|(run, number)| RunId::is_valid(run) && number.bytes().all(|b| b.is_ascii_digit()));
    let is_table = Table::ALL.iter().any(|known| known.name() == table.as_ref());
    landing.as_ref() == LANDING && is_table && date_of(key).is_some() && is_flush
}

/// The lake's identity.
pub fn identity() -> Path {
    Path::from(format!("{STATE}/lake.json"))
}

/// The conversations that must not come back.
pub fn suppression() -> Path {
    Path::from(format!("{STATE}/suppression.json"))
}

/// The receipt of a run that erased conversations.
pub fn receipt(run: &RunId) -> Path {
    Path::from(format!("{STATE}/receipts/{run}.json"))
}

/// The mark of a lake that a demo made.
pub fn demo_mark() -> Path {
    Path::from(format!("{STATE}/demo.json"))
}

/// The folder of the checkpoints.
pub fn checkpoints() -> Path {
    Path::from(format!("{STATE}/checkpoints"))
}

/// The folder of the manifest's shards.
pub fn manifest_shards() -> Path {
    Path::from(format!("{STATE}/manifest"))
}

/// A shard of the manifest, by the name that a checkpoint has for it.
pub fn manifest_shard(name: &str) -> Path {
    Path::from(format!("{STATE}/manifest/{name}.json"))
}

/// Whether [`manifest_shard`] builds this key.
pub fn is_manifest_shard(key: &Path) -> bool {
    let name = key.filename().and_then(|name| name.strip_suffix(".json"));
    name.is_some_and(|name| manifest_shard(name) == *key)
}

/// The folder of what an unfinished reconciliation has seen.
pub fn reconciliations() -> Path {
    Path::from(format!("{STATE}/reconcile"))
}

/// The hashes of the ids that came in one flush of a reconciliation.
pub fn seen(flush: &FlushId) -> Path {
    Path::from(format!("{STATE}/reconcile/{flush}.seen"))
}

/// Whether [`seen`] builds this key.
pub fn is_seen(key: &Path) -> bool {
    let flush = key.filename().and_then(|name| name.strip_suffix(".seen")).and_then(|name| name.rsplit_once('-'));
    flush.is_some_and(|(run, number)| RunId::is_valid(run) && number.bytes().all(|b| b.is_ascii_digit()))
        && key.prefix_matches(&reconciliations())
}

/// The folder of the leases.
pub fn leases() -> Path {
    Path::from(format!("{STATE}/leases"))
}

/// One of the numbered objects of a folder.
pub fn numbered(folder: &Path, number: u64) -> Path {
    Path::from(format!("{folder}/{number:020}.json"))
}

/// The number of a numbered object, from its key; `None` for other keys.
pub fn number_of(key: &Path) -> Option<u64> {
    key.filename()?.strip_suffix(".json")?.parse().ok()
}

/// An object that a run writes to read the store's time.
pub fn store_time(run: &RunId) -> Path {
    Path::from(format!("{STATE}/leases/{run}.now"))
}

/// Whether [`store_time`] builds this key.
pub fn is_store_time(key: &Path) -> bool {
    key.filename().and_then(|name| name.strip_suffix(".now")).is_some_and(RunId::is_valid)
}

/// The folder of the objects that checks write.
pub fn probes() -> Path {
    Path::from(format!("{STATE}/check"))
}

/// The record of a run's multipart upload to `key`, while it is under way.
pub fn upload_record(run: &RunId, key: &Path) -> Path {
    let name = key.as_ref().replace('/', "-");
    Path::from(format!("{STATE}/leases/{run}-{name}{UPLOAD}"))
}

/// Whether [`upload_record`] builds this key.
pub fn is_upload_record(key: &Path) -> bool {
    key.as_ref().ends_with(UPLOAD)
}

/// The file that the holder locks, on local disks.
pub fn lock() -> Path {
    Path::from(format!("{STATE}/lock"))
}

/// The folder of the staged files.
pub fn landing() -> Path {
    Path::from(LANDING)
}

/// The folder of the lake's own objects.
pub fn state() -> Path {
    Path::from(STATE)
}

/// The report of one run.
pub fn run_report(run: &RunId) -> Path {
    Path::from(format!("{STATE}/runs/{run}.json"))
}

/// The folder of the run reports.
pub fn run_reports() -> Path {
    Path::from(format!("{STATE}/runs"))
}

/// When the run of the report under `key` started; `None` for other keys.
pub fn run_report_start(key: &Path) -> Option<DateTime<Utc>> {
    RunId::start_of(key.filename()?.strip_suffix(".json")?)
}

/// The quarantined entries of one flush.
pub fn quarantine(flush: &FlushId) -> Path {
    Path::from(format!("{STATE}/quarantine/{flush}.jsonl"))
}

/// The folder of quarantined entries.
pub fn quarantines() -> Path {
    Path::from(format!("{STATE}/quarantine"))
}

/// When the run that quarantined the entries under `key` started; `None` for other keys.
pub fn quarantine_start(key: &Path) -> Option<DateTime<Utc>> {
    let (run, number) = key.filename()?.strip_suffix(".jsonl")?.rsplit_once('-')?;
    RunId::start_of(run).filter(|_| number.parse::<u32>().is_ok())
}

/// The partition of a table file or staged file, from its key; `None` for other keys.
pub fn date_of(key: &Path) -> Option<CreatedDate> {
    key.parts().find_map(|part| CreatedDate::of_folder(part.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PartitionBy;
    use chrono::DateTime;

    #[test]
    fn keys_of_months_round_trip() {
        let flush = FlushId { run: RunId::new(DateTime::UNIX_EPOCH, 10), number: 7 };
        for value in ["2024-02-01", "__HIVE_DEFAULT_PARTITION__"] {
            let month = PartitionBy::Month.parse(value).unwrap();
            let file = table_file(Table::Tags, month);
            assert_eq!(file.as_ref(), format!("tags/created_month={value}/part-0.parquet"));
            assert_eq!(table_file_date(Table::Tags, &file), Some(month));
            let staged = staged_file(Table::Tags, month, &flush);
            let folder = format!("_landing/tags/created_month={value}");
            assert_eq!(staged.as_ref(), format!("{folder}/19700101T000000Z-00000a-0007.parquet"));
            assert_eq!(date_of(&delta_file(Table::Tags, month, &flush)), Some(month));
            assert!(is_staged_file(&staged) && date_of(&staged) == Some(month));
        }
        for other in ["tags/created_month=2024-02-02/part-0.parquet", "tags/created_month=2024-2-1/part-0.parquet"] {
            assert_eq!(table_file_date(Table::Tags, &Path::from(other)), None, "{other}");
        }
    }

    #[test]
    fn keys_round_trip() {
        let date: CreatedDate = "2024-02-29".parse().unwrap();
        let flush = FlushId { run: RunId::new(DateTime::UNIX_EPOCH, 10), number: 7 };
        let staged = staged_file(Table::AuditLogs, date, &flush);
        assert_eq!(staged.as_ref(), "_landing/audit_logs/created_date=2024-02-29/19700101T000000Z-00000a-0007.parquet");
        assert_eq!(date_of(&staged), Some(date));
        assert!(is_staged_file(&staged) && is_store_time(&store_time(&flush.run)));
        assert!(is_upload_record(&upload_record(&flush.run, &staged)));
        for other in
            ["_landing/data.csv", "_landing/tags/created_date=2024-02-29/data-1.parquet", "_state/leases/x.now"]
        {
            assert!(!is_staged_file(&Path::from(other)) && !is_store_time(&Path::from(other)), "{other}");
        }
        let start = Some(DateTime::UNIX_EPOCH);
        assert_eq!((run_report_start(&run_report(&flush.run)), quarantine_start(&quarantine(&flush))), (start, start));
        for other in [run_report(&flush.run), Path::from("_state/quarantine/19700101T000000Z-00000a.jsonl")] {
            assert_eq!(quarantine_start(&other), None, "{other}");
        }
        let file = delta_file(Table::Tags, date, &flush);
        assert_eq!(delta_file_id(Table::Tags, date, &file), Some(flush.clone()));
        assert_eq!(delta_file_id(Table::Messages, date, &file), None);
        assert_eq!(delta_file_id(Table::Tags, date, &table_file(Table::Tags, date)), None);
        let shard = manifest_shard("2024-02-17-0a1b2c3d");
        assert_eq!(shard.as_ref(), "_state/manifest/2024-02-17-0a1b2c3d.json");
        assert!(is_manifest_shard(&shard) && !is_manifest_shard(&Path::from("_state/lake.json")));
        assert_eq!(seen(&flush).as_ref(), "_state/reconcile/19700101T000000Z-00000a-0007.seen");
        assert!(is_seen(&seen(&flush)) && !is_seen(&run_report(&flush.run)));
        let unknown = table_file(Table::Conversations, PartitionBy::Day.unknown());
        assert_eq!(unknown.as_ref(), "conversations/created_date=__HIVE_DEFAULT_PARTITION__/part-0.parquet");
        assert_eq!(date_of(&unknown), Some(PartitionBy::Day.unknown()));
        let checkpoint = numbered(&checkpoints(), 12);
        assert_eq!(checkpoint.as_ref(), "_state/checkpoints/00000000000000000012.json");
        assert_eq!(number_of(&checkpoint), Some(12));
        assert_eq!(number_of(&identity()), None);
        assert_eq!(date_of(&identity()), None);
    }
}
