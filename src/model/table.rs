//! The four tables of a lake, and values for each of them.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde::{Deserialize, Serialize};

/// One of the four tables of a lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// One row per conversation.
    Conversations,
    /// One row per element of a conversation's `messages`.
    Messages,
    /// One row per element of a conversation's `tags`.
    Tags,
    /// One row per element of a conversation's `audit_logs`.
    AuditLogs,
}

impl Table {
    /// All four tables, `conversations` first.
    pub const ALL: [Table; 4] = [Table::Conversations, Table::Messages, Table::Tags, Table::AuditLogs];

    /// The three tables whose rows belong to a row of `conversations`.
    pub const CHILDREN: [Table; 3] = [Table::Messages, Table::Tags, Table::AuditLogs];

    /// The table's folder in the lake, which for a child table is also the API's name of the array.
    pub fn name(self) -> &'static str {
        match self {
            Table::Conversations => "conversations",
            Table::Messages => "messages",
            Table::Tags => "tags",
            Table::AuditLogs => "audit_logs",
        }
    }
}

/// A `T` for each of the four tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerTable<T> {
    conversations: T,
    messages: T,
    tags: T,
    audit_logs: T,
}

impl<T> PerTable<T> {
    /// Makes a value for each table.
    pub fn from_fn(mut make: impl FnMut(Table) -> T) -> Self {
        PerTable {
            conversations: make(Table::Conversations),
            messages: make(Table::Messages),
            tags: make(Table::Tags),
            audit_logs: make(Table::AuditLogs),
        }
    }

    /// Makes a value for each table, or stops at the first failure.
    ///
    /// # Errors
    /// What `make` failed with.
    pub fn try_from_fn<E>(mut make: impl FnMut(Table) -> Result<T, E>) -> Result<Self, E> {
        Ok(PerTable {
            conversations: make(Table::Conversations)?,
            messages: make(Table::Messages)?,
            tags: make(Table::Tags)?,
            audit_logs: make(Table::AuditLogs)?,
        })
    }

    /// Converts each value, or stops at the first failure.
    ///
    /// # Errors
    /// What `make` failed with.
    pub fn try_map<U, E>(self, mut make: impl FnMut(Table, T) -> Result<U, E>) -> Result<PerTable<U>, E> {
        Ok(PerTable {
            conversations: make(Table::Conversations, self.conversations)?,
            messages: make(Table::Messages, self.messages)?,
            tags: make(Table::Tags, self.tags)?,
            audit_logs: make(Table::AuditLogs, self.audit_logs)?,
        })
    }

    /// The value of `table`.
    pub fn get(&self, table: Table) -> &T {
        match table {
            Table::Conversations => &self.conversations,
            Table::Messages => &self.messages,
            Table::Tags => &self.tags,
            Table::AuditLogs => &self.audit_logs,
        }
    }

    /// The value of `table`, mutable.
    pub fn get_mut(&mut self, table: Table) -> &mut T {
        match table {
            Table::Conversations => &mut self.conversations,
            Table::Messages => &mut self.messages,
            Table::Tags => &mut self.tags,
            Table::AuditLogs => &mut self.audit_logs,
        }
    }
}

impl PerTable<u64> {
    /// Sums over the tables.
    pub fn total(&self) -> u64 {
        Table::ALL.iter().fold(0, |sum, table| sum.saturating_add(*self.get(*table)))
    }

    /// Adds `other`, table by table.
    pub fn add(&mut self, other: &PerTable<u64>) {
        for table in Table::ALL {
            let sum = self.get_mut(table);
            *sum = sum.saturating_add(*other.get(table));
        }
    }
}

/// Returns a text or JSON column of `batch`; like the next three, `None` if there is no such column of that type.
pub fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_string_opt()
}

/// Returns a column of 32-bit whole numbers.
pub fn ints<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int32Array> {
    batch.column_by_name(name)?.as_primitive_opt::<Int32Type>()
}

/// Returns a column of 64-bit whole numbers.
pub fn big_ints<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a Int64Array> {
    batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()
}

/// Returns a column of instants, in microseconds.
pub fn times<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a TimestampMicrosecondArray> {
    batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()
}
