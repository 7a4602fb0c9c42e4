//! Checks one partition of the four tables, reading conversations and their children side by side.

use object_store::ObjectMeta;
use tokio::runtime::Handle;

use super::problems::{Check, Verification};
use super::rows::{CheckedRows, Row};
use crate::counted::counted;
use crate::error::Result;
use crate::files::{FoundFile, Lanes};
use crate::lake::Lake;
use crate::layout;
use crate::model::{CreatedDate, PerTable, RowTimes, Table, TimeRange, from_micros};
use crate::tables::{OpenPartition, Tables};

/// How often to read a partition that changes while it is read.
const TRIES: usize = 4;

/// One reading of a partition.
#[derive(Debug)]
pub(super) struct DateRead {
    pub(super) files: PerTable<Option<ObjectMeta>>,
    pub(super) found: Verification,
    pub(super) contents: Contents,
}

/// What the files of a partition hold.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The rows of each table; `None` if they could not all be read.
    pub(super) rows: PerTable<Option<u64>>,
    /// The times of the conversations.
    pub(super) times: RowTimes,
    /// The newest run that fetched one of the conversations.
    pub(super) newest_run: Option<String>,
}

impl DateRead {
    /// Whether no table has the partition.
    pub(super) fn is_gone(&self) -> bool {
        Table::ALL.iter().all(|table| self.files.get(*table).is_none())
    }
}

/// Checks partitions. A clone shares the lanes.
#[derive(Clone)]
pub(super) struct DateReader {
    pub(super) lake: Lake,
    pub(super) tables: Tables,
    pub(super) lanes: Lanes,
}

impl DateReader {
    /// Checks the partition `date`, unless its files are the same as in the reading `before`.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn verify(&self, date: CreatedDate, before: Option<DateRead>) -> Result<DateRead> {
        if let Some(before) = before
            && self.tables.partition_files(date).await? == before.files
        {
            return Ok(before);
        }
        let mut open = self.tables.open_partition(date).await?;
        let mut files = open.objects();
        for _ in 1..TRIES {
            let found = self.read(date, open).await;
            if found.as_ref().is_ok_and(|(found, _)| found.problems() == 0) {
                return found.map(|(found, contents)| DateRead { files, found, contents });
            }
            self.tables.invalidate();
            if self.tables.partition_files(date).await? == files {
                return found.map(|(found, contents)| DateRead { files, found, contents });
            }
            open = self.tables.open_partition(date).await?;
            files = open.objects();
        }
        let (found, contents) = self.read(date, open).await?;
        Ok(DateRead { files, found, contents })
    }

    async fn read(&self, date: CreatedDate, open: OpenPartition) -> Result<(Verification, Contents)> {
        let (files, lane) = open.read(&self.lanes).await?;
        let (reader, runtime) = (self.clone(), Handle::current());
        let read = move || read(&reader.lake, &reader.tables, date, &files, &runtime);
        self.lanes.work(&lane, read).await?
    }
}

fn read(
    lake: &Lake,
    tables: &Tables,
    date: CreatedDate,
    files: &PerTable<Option<FoundFile>>,
    runtime: &Handle,
) -> Result<(Verification, Contents)> {
    let mut found = Verification::of(lake.url());
    let mut contents = Contents::default();
    let is_gone = Table::ALL.iter().all(|table| files.get(*table).is_none());
    let mut opened = Vec::new();
    for table in Table::ALL {
        let Some(file) = files.get(table) else {
            // If another writer deletes the last row of a Delta table's partition, the file goes too.
            if !tables.are_delta() && !is_gone {
                let key = layout::table_file(table, date);
                found.note(Check::AllTables, Some(&key), || "is missing".to_owned());
            }
            continue;
        };
        found.count_file(file.object().size);
        match CheckedRows::open(lake, tables.columns(), table, file, runtime) {
            Ok(rows) => {
                if rows.are_sorted_here() {
                    found.note(Check::UniqueAndSorted, Some(&rows.key), || {
                        "is not sorted: another program wrote it; the next compaction of its partition sorts it"
                            .to_owned()
                    });
                }
                opened.push(rows);
            }
            Err(error) => found.unreadable(date, error)?,
        }
    }
    let (conversations, mut children): (Vec<_>, Vec<_>) =
        opened.into_iter().partition(|rows| rows.table() == Table::Conversations);
    let read = match conversations.into_iter().next() {
        Some(mut conversations) => {
            let read = compare(&mut found, &mut contents, date, &mut conversations, &mut children);
            children.push(conversations);
            read
        }
        // Without the conversations nobody owns the rows; this only checks that the files are readable.
        None => children.iter_mut().try_for_each(CheckedRows::drain),
    };
    let is_complete = read.is_ok();
    if let Err(error) = read {
        found.unreadable(date, error)?;
    }
    for rows in &children {
        found.count_rows(rows.table(), rows.read);
        *contents.rows.get_mut(rows.table()) = is_complete.then_some(rows.read);
    }
    Ok((found, contents))
}

/// Reads the conversations and their children side by side.
fn compare(
    found: &mut Verification,
    contents: &mut Contents,
    date: CreatedDate,
    conversations: &mut CheckedRows,
    children: &mut [CheckedRows],
) -> Result<()> {
    let mut previous: Option<String> = None;
    while let Some(row) = conversations.head() {
        let key = Some(&conversations.key);
        match previous.as_deref() {
            Some(previous) if previous == row.id => {
                found.note(Check::UniqueAndSorted, key, || format!("conversation {} occurs twice", row.id));
            }
            Some(previous) if previous > row.id => {
                found.note(Check::UniqueAndSorted, key, || format!("conversation {} comes after {previous}", row.id));
            }
            _ => {}
        }
        let created = date.by().of(row.created_at.and_then(from_micros));
        if created != date {
            found.note(Check::CreatedDate, key, || format!("conversation {} belongs to partition {created}", row.id));
        }
        for child in &mut *children {
            let count = rows_of(found, child, &row)?;
            if child.table() == Table::Messages && i64::from(row.number) != count {
                found.note(Check::MessageCount, key, || {
                    let messages = counted(count, "message");
                    format!("conversation {} has message_count {}, but {messages}", row.id, row.number)
                });
            }
        }
        let range = |time: Option<i64>| time.map(|time| TimeRange { first: time, last: time });
        contents.times.add(RowTimes { created_at: range(row.created_at), updated_at: range(row.updated_at) });
        if contents.newest_run.as_deref().is_none_or(|newest| newest < row.version.0) {
            contents.newest_run = Some(row.version.0.to_owned());
        }
        let id = row.id.to_owned();
        previous = Some(id);
        conversations.advance()?;
    }
    for child in children {
        while let Some(row) = child.head() {
            found.note(Check::Owned, Some(&child.key), || format!("conversation {} is missing", row.id));
            child.advance()?;
        }
    }
    Ok(())
}

/// Reads the rows of a child table up to the last of `owner`. Returns how many belong to `owner`.
fn rows_of(found: &mut Verification, child: &mut CheckedRows, owner: &Row<'_>) -> Result<i64> {
    let mut count: i64 = 0;
    while let Some(row) = child.head().filter(|row| row.id <= owner.id) {
        let key = Some(&child.key);
        if row.id < owner.id {
            found.note(Check::Owned, key, || format!("conversation {} is missing", row.id));
        } else {
            if row.version != owner.version {
                found.note(Check::Owned, key, || {
                    format!("a row of conversation {} belongs to another version of it", row.id)
                });
            }
            if i64::from(row.number) != count {
                found.note(Check::Indexes, key, || {
                    format!("conversation {} has index {} instead of {count}", row.id, row.number)
                });
            }
            count += 1;
        }
        child.advance()?;
    }
    Ok(count)
}
