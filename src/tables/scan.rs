//! Reads what each table file holds from its footer: what the manifest says, found out from the tables themselves.
//!
//! Guarantees: it only reads, and may run beside a writing run; a file that cannot be read counts as damaged only if
//! the table still has it.
//! Must not depend on: the manifest that the lake has.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use tokio::runtime::Handle;

use super::tables::Tables;
use crate::error::{Error, Kind, Result};
use crate::files::{FileReader, Footer, current_form};
use crate::lake::{Entries, FileEntry, Lake, PartitionEntry, bare_etag};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, Table, TableColumns};

/// How many footers to read at a time, each on a blocking thread. Local disks need threads of the same small pool.
const FOOTERS_AT_ONCE: usize = 4;
/// How often to read a table that changes meanwhile.
const TRIES: usize = 4;
/// After how many files to log how far it is.
const LOGGED_FILES: usize = 2_000;

/// What was found in the tables.
#[derive(Debug, Default)]
pub struct Scan {
    /// The entry of each partition.
    pub entries: Entries,
    /// Why files could not be read. Their entries have no rows.
    pub unreadable: Vec<Error>,
}

/// One file, as it was read.
struct ScannedFile {
    date: CreatedDate,
    object: ObjectMeta,
    footer: Result<Footer>,
}

/// Reads the footers of all table files, or of those in the partitions `only`.
///
/// # Errors
/// If the store fails; kind `Held` if files are replaced faster than they can be read.
pub async fn scan(lake: &Lake, tables: &Tables, only: Option<&BTreeSet<CreatedDate>>) -> Result<Scan> {
    let (mut found, current) = (Scan::default(), current_form(tables.columns()));
    for table in Table::ALL {
        for ScannedFile { date, object, footer } in scan_table(lake, tables, table, only).await? {
            let entry =
                found.entries.entry(date).or_insert_with(|| PartitionEntry { form: u32::MAX, ..Default::default() });
            let (rows, form) = match footer {
                Ok(Footer { rows, times, is_current }) => {
                    entry.times.add(times);
                    (Some(rows), if is_current { current } else { 0 })
                }
                Err(error) => {
                    found.unreadable.push(error);
                    (None, 0)
                }
            };
            // The partition has the form of its oldest file.
            entry.form = entry.form.min(form);
            add(entry, table, date, rows, &object, tables.are_delta());
        }
    }
    Ok(found)
}

/// Adds a file to the entry of its partition. If another program has given it several, they count as one.
fn add(
    entry: &mut PartitionEntry,
    table: Table,
    date: CreatedDate,
    rows: Option<u64>,
    object: &ObjectMeta,
    delta: bool,
) {
    let id = layout::delta_file_id(table, date, &object.location).filter(|_| delta);
    let is_first = entry.files == Default::default();
    if let Some(FlushId { run, number }) = id.clone().filter(|_| is_first) {
        (entry.run, entry.number) = (Some(run), Some(number));
    }
    let named = if delta { entry.run.clone().zip(entry.number) } else { None };
    let is_named = !delta || id.is_some_and(|id| named == Some((id.run, id.number)));
    let key = (!is_named).then(|| object.location.to_string());
    let etag = object.e_tag.as_deref().filter(|_| !delta).map(bare_etag);
    let file = entry.files.get_mut(table);
    *file = Some(match file.take() {
        None => FileEntry { rows, bytes: object.size, etag, key },
        Some(other) => FileEntry {
            rows: other.rows.zip(rows).map(|(one, two)| one.saturating_add(two)),
            bytes: other.bytes.saturating_add(object.size),
            ..other
        },
    });
}

/// Reads the files of a table; again if one that cannot be read was replaced meanwhile.
async fn scan_table(
    lake: &Lake,
    tables: &Tables,
    table: Table,
    only: Option<&BTreeSet<CreatedDate>>,
) -> Result<Vec<ScannedFile>> {
    let list = async || {
        // Other objects, such as a desktop's own files, do not matter here.
        let (mut files, _) = tables.files(table).await?;
        files.retain(|(date, _)| only.is_none_or(|only| only.contains(date)));
        Ok::<_, Error>(files)
    };
    let mut files = list().await?;
    for _ in 0..TRIES {
        let scanned = read(lake, tables.columns().of(table), files.clone()).await?;
        if scanned.iter().all(|file| file.footer.is_ok()) {
            return Ok(scanned);
        }
        tables.invalidate();
        let now = list().await?;
        if now == files {
            return Ok(scanned);
        }
        files = now;
    }
    Err(Error::held(format!("the files of {}/{} are replaced faster than they can be read", lake.url(), table.name()))
        .with_hint("run this again"))
}

async fn read(
    lake: &Lake,
    table: &Arc<TableColumns>,
    files: Vec<(CreatedDate, ObjectMeta)>,
) -> Result<Vec<ScannedFile>> {
    let (runtime, all) = (Handle::current(), files.len());
    let reads = files.into_iter().map(|(date, object)| {
        let (lake, table, runtime) = (lake.clone(), Arc::clone(table), runtime.clone());
        async move {
            let found = object.clone();
            let read = move || FileReader::read_footer(lake.store(), &table, object, &runtime);
            let read = tokio::task::spawn_blocking(read).await;
            match read.map_err(|error| Error::bug("the reader failed").caused_by(error))? {
                Ok((footer, object)) => Ok(ScannedFile { date, object, footer: Ok(footer) }),
                Err(error) if error.kind() == Kind::Integrity || error.is_of_one_object() => {
                    Ok(ScannedFile { date, object: found, footer: Err(error) })
                }
                Err(error) => Err(error),
            }
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(FOOTERS_AT_ONCE);
    let mut scanned = Vec::new();
    while let Some(file) = reads.try_next().await? {
        scanned.push(file);
        if scanned.len() % LOGGED_FILES == 0 {
            tracing::info!("{} of {all} files of {} were read", scanned.len(), table.table().name());
        }
    }
    // The first file of a partition names it, so the order matters.
    scanned.sort_unstable_by(|one, two| (one.date, &one.object.location).cmp(&(two.date, &two.object.location)));
    Ok(scanned)
}
