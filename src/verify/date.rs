//! Checks the tables of one date, next to each other.

use object_store::ObjectMeta;
use tokio::runtime::Handle;

use super::findings::{Check, Verification};
use super::rows::{CheckedRows, Row};
use crate::error::Result;
use crate::lake::Lake;
use crate::layout;
use crate::model::{CreatedDate, PerTable, Table, from_micros};
use crate::tables::Tables;

/// How often a date is read again that a run has changed meanwhile.
const TRIES: usize = 4;

/// The tables of a date, as they were read.
#[derive(Debug)]
pub(super) struct DateRead {
    objects: PerTable<Option<ObjectMeta>>,
    pub(super) found: Verification,
}

/// Checks the tables of `date`, unless they are as they were when they were read `before`. Must not be called on an async
/// thread.
///
/// # Errors
/// Where the store fails.
pub(super) fn verify(
    lake: &Lake,
    tables: &Tables,
    date: CreatedDate,
    before: Option<DateRead>,
    runtime: &Handle,
) -> Result<DateRead> {
    let find = || tables.of_date(date, runtime);
    let mut objects = find()?;
    if let Some(before) = before.filter(|before| before.objects == objects) {
        return Ok(before);
    }
    for _ in 1..TRIES {
        let found = read(lake, tables, date, &objects, runtime);
        if found.as_ref().is_ok_and(|found| found.findings() == 0) {
            return found.map(|found| DateRead { objects, found });
        }
        tables.look_again();
        let now = find()?;
        if now == objects {
            return found.map(|found| DateRead { objects, found });
        }
        objects = now;
    }
    read(lake, tables, date, &objects, runtime).map(|found| DateRead { objects, found })
}

fn read(
    lake: &Lake,
    tables: &Tables,
    date: CreatedDate,
    objects: &PerTable<Option<ObjectMeta>>,
    runtime: &Handle,
) -> Result<Verification> {
    let mut found = Verification::of(lake.url());
    let mut files = Vec::new();
    for table in Table::ALL {
        let Some(object) = objects.get(table) else {
            // Whoever deletes the last row of a date from a Delta table takes its file out.
            if !tables.are_delta() {
                let key = layout::table_file(table, date);
                found.note(Check::AllTables, Some(&key), || "is missing".to_owned());
            }
            continue;
        };
        found.count_file(object.size);
        match CheckedRows::open(lake, table, object, runtime) {
            Ok(rows) => {
                if rows.are_sorted_here() {
                    found.note(Check::UniqueAndSorted, Some(&rows.key), || {
                        "is not sorted: another program has written it; the next compaction of its date sorts it"
                            .to_owned()
                    });
                }
                files.push(rows);
            }
            Err(error) => found.unreadable(date, error)?,
        }
    }
    let (conversations, mut children): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|rows| rows.table() == Table::Conversations);
    let read = match conversations.into_iter().next() {
        Some(mut conversations) => {
            let read = compare(&mut found, date, &mut conversations, &mut children);
            children.push(conversations);
            read
        }
        // What its rows belong to is not known; that they can be read is.
        None => children.iter_mut().try_for_each(CheckedRows::drain),
    };
    if let Err(error) = read {
        found.unreadable(date, error)?;
    }
    for rows in &children {
        found.count_rows(rows.table(), rows.read);
    }
    Ok(found)
}

/// Reads the conversations and their children side by side.
fn compare(
    found: &mut Verification,
    date: CreatedDate,
    conversations: &mut CheckedRows,
    children: &mut [CheckedRows],
) -> Result<()> {
    let mut previous: Option<String> = None;
    while let Some(row) = conversations.head() {
        let key = Some(&conversations.key);
        match previous.as_deref() {
            Some(previous) if previous == row.id => {
                found.note(Check::UniqueAndSorted, key, || format!("conversation {} is there twice", row.id));
            }
            Some(previous) if previous > row.id => {
                found.note(Check::UniqueAndSorted, key, || format!("conversation {} comes after {previous}", row.id));
            }
            _ => {}
        }
        let created = CreatedDate::of(row.created_at.and_then(from_micros));
        if created != date {
            found.note(Check::CreatedDate, key, || format!("conversation {} is of {created}", row.id));
        }
        for child in &mut *children {
            let count = rows_of(found, child, &row)?;
            if child.table() == Table::Messages && i64::from(row.number) != count {
                found.note(Check::MessageCount, key, || {
                    format!("conversation {} says {}, there are {count}", row.id, row.number)
                });
            }
        }
        let id = row.id.to_owned();
        previous = Some(id);
        conversations.advance()?;
    }
    for child in children {
        while let Some(row) = child.head() {
            found.note(Check::Owned, Some(&child.key), || format!("conversation {} is not there", row.id));
            child.advance()?;
        }
    }
    Ok(())
}

/// Reads the rows of a child table that belong to `owner`, and those that belong to nobody before it. Returns how many
/// `owner` has.
fn rows_of(found: &mut Verification, child: &mut CheckedRows, owner: &Row<'_>) -> Result<i64> {
    let mut count: i64 = 0;
    while let Some(row) = child.head().filter(|row| row.id <= owner.id) {
        let key = Some(&child.key);
        if row.id < owner.id {
            found.note(Check::Owned, key, || format!("conversation {} is not there", row.id));
        } else {
            if row.copy != owner.copy {
                found.note(Check::Owned, key, || format!("a row of conversation {} is of another copy of it", row.id));
            }
            if i64::from(row.number) != count {
                found.note(Check::Indexes, key, || {
                    format!("conversation {} has index {} where {count} should be", row.id, row.number)
                });
            }
            count += 1;
        }
        child.advance()?;
    }
    Ok(count)
}
