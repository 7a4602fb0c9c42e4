//! Selects the latest versions in SQL; the engines differ only in their [`Dialect`].
//!
//! The rule is that of [`crate::merge::latest`]: the version that changed last, then the one committed last. Without
//! `updated_at`, the newest other time counts, those of messages and logs included. Versions are numbered (`n`) in the
//! order of commits. The last version whose change is later than its response (`ahead`), and all before it, count as
//! without a time.
//!
//! A version may be staged and in a table at once, if a compaction was killed or is running. So `landed` is part of its
//! identity: all its rows come from the same place as the conversation, which has all of them, and no row comes twice.
//! Grouping, unlike a join, is safe for null dates and passes a filter by date to the files.

use crate::model::{ColumnKind, LakeColumns, PartitionBy, Table, TableColumns, column};

/// The width of a line of columns.
const WIDTH: usize = 100;

/// How an engine differs from the others.
pub(super) struct Dialect {
    /// The prefix of the names of views and tables: `decagon.`, or nothing.
    pub(super) schema: &'static str,
    /// How much time a partition of the lake covers.
    pub(super) by: PartitionBy,
    /// Builds the newest of some times, any of which may be null.
    pub(super) newest_of: fn(&[&str]) -> String,
    /// The column with the partition of a version.
    pub(super) date: Date,
}

/// How the versions of one partition are identified.
pub(super) enum Date {
    /// By `day`, the partition's text, which is never null and exists only in `…_copies`.
    Text,
    /// By the partition column, with separate joins for null and other dates, because the engine passes a filter by
    /// date to the other side of a join only over a plain `=`. The text says how both joins read `newest_copies`.
    Nullable(&'static str),
}

impl Dialect {
    fn date_column(&self) -> &'static str {
        match self.date {
            Date::Text => "day",
            Date::Nullable(_) => self.by.column(),
        }
    }

    /// The columns that identify a version.
    fn keys(&self) -> [&'static str; 5] {
        [column::CONVERSATION_ID, self.date_column(), column::RUN_ID, column::SEQ, "landed"]
    }

    /// All statements in the order of their dependencies: the tables, the staged files, all versions of a table's rows,
    /// the latest versions, the four views of their rows, and the conversations without those that are marked as
    /// deleted.
    pub(super) fn statements(
        &self,
        columns: &LakeColumns,
        tables: impl Fn(&TableColumns) -> String,
        landed_files: &str,
        copies: impl Fn(&TableColumns) -> String,
    ) -> String {
        let all = |of: &dyn Fn(&TableColumns) -> String| Table::ALL.map(|table| of(columns.of(table))).concat();
        let latest = all(&|table| self.latest_rows(table));
        let current = self.current(columns.of(Table::Conversations));
        [&all(&tables), landed_files, &all(&copies), &self.newest_copies(), &latest, &current].concat()
    }

    /// The latest conversations that are not marked as deleted. No file of an earlier schema has marks.
    fn current(&self, conversations: &TableColumns) -> String {
        let (schema, name) = (self.schema, conversations.name());
        let has_marks = names(conversations).any(|name| name == column::DELETED_AT);
        let unmarked = if has_marks { "\nWHERE deleted_at IS NULL" } else { "" };
        let columns = listed(columns(conversations, self.by));
        format!(
            "\nCREATE OR REPLACE VIEW {schema}{name}_current AS\nSELECT {columns}\nFROM {schema}{name}_latest{unmarked};\n"
        )
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

    fn latest_rows(&self, table: &TableColumns) -> String {
        let (schema, name) = (self.schema, table.name());
        let columns = listed(columns(table, self.by).map(|name| format!("c.{name}")));
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
                     {from} newest n\n  ON {}\nWHERE c.{date} IS NULL AND n.{date} IS NULL",
                    same(&keys),
                    same(&others),
                    date = self.date_column(),
                )
            }
        };
        format!("\nCREATE OR REPLACE VIEW {schema}{name}_latest AS\n{rows};\n")
    }
}

/// The names of a table's columns, the partition column last.
pub(super) fn columns(table: &TableColumns, by: PartitionBy) -> impl Iterator<Item = &str> {
    names(table).chain([by.column()])
}

/// The names of a table's columns, without the partition column.
pub(super) fn names(table: &TableColumns) -> impl Iterator<Item = &str> {
    table.columns().iter().map(|column| column.name.as_ref())
}

/// What stands before a partition of a checkpoint in the name of its folder: a month is written with its column.
pub(super) fn before_partition(by: PartitionBy) -> &'static str {
    match by {
        PartitionBy::Day => "created_date=",
        PartitionBy::Month => "",
    }
}

/// Joins things with commas, in lines of readable width.
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

/// The column definitions for a statement that creates a table.
pub(super) fn definitions(table: &TableColumns, quote: &str, type_of: fn(ColumnKind) -> &'static str) -> String {
    let columns = table.columns().iter();
    let all: Vec<_> = columns.map(|c| format!("  {quote}{}{quote} {}", c.name, type_of(c.kind))).collect();
    all.join(",\n")
}
