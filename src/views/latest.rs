//! Which copies are the newest ones, in SQL that is the same for all engines but for what [`Dialect`] says.
//!
//! The rule is that of [`crate::merge::latest`]: what changed last (a copy that does not say when, did so at its newest
//! other time, those of its messages and logs included), then what was committed last. Copies are numbered (`n`) in the order
//! of commits. The last one that says that it changed after it was sent (`ahead`), and all before it, count as if they did
//! not say when.
//!
//! A copy may be in a table and in landing at once, when a compaction was killed or is under way. So `landed` is part of a
//! copy's identity: the newest one's rows are taken from the same place as the conversation itself, where they are
//! complete, and none comes twice. Copies are grouped, not joined, to find when they changed: that is safe for dates that
//! are null, and lets a filter by date through to the files.

use crate::model::{ColumnKind, Table, column};

/// How wide a line of columns gets.
const WIDTH: usize = 100;

/// How an engine differs from the others.
pub(super) struct Dialect {
    /// What stands before the names of views and tables: `decagon.`, or nothing.
    pub(super) schema: &'static str,
    /// The newest of some times, of which any may be null.
    pub(super) newest_of: fn(&[&str]) -> String,
    /// The column of a copy that says which date it is filed under.
    pub(super) date: Date,
}

/// How the copies of one date are known.
pub(super) enum Date {
    /// By `day`, a column with the date's text, never null, that only `…_copies` have.
    Text,
    /// By `created_date` itself, which is null where it is unknown: the two cases are joined apart. For engines that pass a
    /// filter by date from one side of a join to the other over a plain `=` alone. How `newest_copies` is read for both.
    Nullable(&'static str),
}

impl Dialect {
    fn date_column(&self) -> &'static str {
        match self.date {
            Date::Text => "day",
            Date::Nullable(_) => "created_date",
        }
    }

    /// What makes a copy's rows one copy.
    fn keys(&self) -> [&'static str; 5] {
        [column::CONVERSATION_ID, self.date_column(), column::RUN_ID, column::SEQ, "landed"]
    }

    /// All statements in the order in which they rest on each other: the tables, what is landed, every copy of a table's
    /// rows, which copies are the newest, and the four views of their rows.
    pub(super) fn statements(
        &self,
        tables: impl Fn(Table) -> String,
        landed_files: &str,
        copies: impl Fn(Table) -> String,
    ) -> String {
        let all = |of: &dyn Fn(Table) -> String| Table::ALL.map(of).concat();
        let latest = all(&|table| self.latest_rows(table));
        [&all(&tables), landed_files, &all(&copies), &self.newest_copies(), &latest].concat()
    }

    fn newest_copies(&self) -> String {
        let (schema, keys, date) = (self.schema, self.keys().join(", "), self.date_column());
        let other = (self.newest_of)(&[column::CREATED_AT, column::LAST_MESSAGE_AT, column::LAST_USER_MESSAGE_AT]);
        let timed = |table: &Table| table.columns().iter().any(|column| column.name == column::CREATED_AT);
        let children: String = Table::CHILDREN
            .iter()
            .filter(|table| timed(table))
            .map(|table| {
                format!(
                    "  UNION ALL\n  SELECT {keys}, 0, NULL, NULL, created_at FROM {schema}{}_copies\n",
                    table.name()
                )
            })
            .collect();
        format!(
            "
CREATE OR REPLACE VIEW {schema}newest_copies AS
WITH times AS (
  SELECT {keys}, 1 AS own, _exported_at AS exported_at, updated_at,
    {other} AS other_time
  FROM {schema}conversations_copies
{children}), copies AS (
  SELECT {keys}, MAX(exported_at) AS exported_at,
    COALESCE(MAX(updated_at), MAX(other_time)) AS changed_at
  FROM times
  GROUP BY {keys}
  HAVING MAX(own) = 1
), numbered AS (
  SELECT {keys}, exported_at, changed_at,
    ROW_NUMBER() OVER (PARTITION BY conversation_id, {date} ORDER BY _run_id, _seq, landed DESC) AS n
  FROM copies
), weighed AS (
  SELECT {keys}, changed_at, n,
    MAX(CASE WHEN changed_at > exported_at THEN n END) OVER (PARTITION BY conversation_id, {date}) AS ahead
  FROM numbered
), placed AS (
  SELECT {keys}, ROW_NUMBER() OVER (
    PARTITION BY conversation_id, {date}
    ORDER BY CASE WHEN ahead IS NULL OR n > ahead THEN changed_at END DESC NULLS LAST, n DESC) AS place
  FROM weighed
)
SELECT {keys} FROM placed WHERE place = 1;
"
        )
    }

    fn latest_rows(&self, table: Table) -> String {
        let (schema, name) = (self.schema, table.name());
        let columns = listed(columns(table).map(|name| format!("c.{name}")));
        let from = format!("SELECT {columns}\nFROM {schema}{name}_copies c JOIN");
        let same =
            |keys: &[&str]| keys.iter().map(|key| format!("c.{key} = n.{key}")).collect::<Vec<_>>().join(" AND ");
        let keys = self.keys();
        let rows = match self.date {
            Date::Text => format!("{from} {schema}newest_copies n\n  ON {}", same(&keys)),
            Date::Nullable(newest) => {
                let others: Vec<_> = keys.into_iter().filter(|key| *key != self.date_column()).collect();
                format!(
                    "WITH newest AS {newest}\n{from} newest n\n  ON {}\nUNION ALL\n\
                     {from} newest n\n  ON {}\nWHERE c.created_date IS NULL AND n.created_date IS NULL",
                    same(&keys),
                    same(&others)
                )
            }
        };
        format!("\nCREATE OR REPLACE VIEW {schema}{name}_latest AS\n{rows};\n")
    }
}

/// The names of a table's columns, the partition last, as all readers of the files have it.
pub(super) fn columns(table: Table) -> impl Iterator<Item = &'static str> {
    table.columns().iter().map(|column| column.name).chain(["created_date"])
}

/// Things with commas between them, in lines that one can read.
pub(super) fn listed<S: AsRef<str>>(things: impl IntoIterator<Item = S>) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for thing in things {
        let thing = thing.as_ref();
        if width > 0 {
            let full = width + thing.len() > WIDTH;
            text.push_str(if full { ",\n  " } else { ", " });
            width = if full { 0 } else { width };
        }
        text.push_str(thing);
        width += thing.len() + 2;
    }
    text
}

/// A table's columns with their types, as a statement that makes a table has them.
pub(super) fn definitions(table: Table, quote: &str, type_of: fn(ColumnKind) -> &'static str) -> String {
    let columns = table.columns().iter();
    let all: Vec<_> = columns.map(|c| format!("  {quote}{}{quote} {}", c.name, type_of(c.kind))).collect();
    all.join(",\n")
}
