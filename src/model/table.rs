//! The four tables and their columns: name, type, and the field of the API's objects that fills each.
//!
//! This is the only place that lists the columns: schemas, flattening and rebuilding all follow [`Table::columns`].
//! People's queries depend on names, types and order, so columns are only added.

use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
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

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// Any JSON value, as UTF-8 text, byte for byte as the API sent it.
    Json,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    BigInt,
    /// True or false.
    Bool,
    /// An instant in UTC, in microseconds.
    Time,
}

/// The source of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnSource {
    /// The `conversation_id` of the row's conversation.
    ConversationId,
    /// The position in the API's array, from 0.
    Index,
    /// The field of this name in the API's object.
    Field(&'static str),
    /// The number of the conversation's messages.
    MessageCount,
    /// A JSON object with every field that has no column or does not fit it; or the whole value, if that is no object.
    Extra,
    /// When the server made the response, by its clock: the end of the second in the `Date` header.
    ExportedAt,
    /// The run that fetched the version.
    RunId,
    /// The version's position in its run, from 0.
    Seq,
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name, lower case.
    pub name: &'static str,
    /// Its type.
    pub kind: ColumnKind,
    /// Where its values come from.
    pub source: ColumnSource,
}

/// The names of the columns that code refers to.
pub mod column {
    #![allow(missing_docs, reason = "each is the name it holds")]
    pub const CONVERSATION_ID: &str = "conversation_id";
    pub const CREATED_AT: &str = "created_at";
    pub const UPDATED_AT: &str = "updated_at";
    pub const LAST_MESSAGE_AT: &str = "last_message_at";
    pub const LAST_USER_MESSAGE_AT: &str = "last_user_message_at";
    pub const EXPORTED_AT: &str = "_exported_at";
    pub const MESSAGE_COUNT: &str = "message_count";
    pub const RUN_ID: &str = "_run_id";
    pub const SEQ: &str = "_seq";
}

use ColumnKind::{BigInt, Bool, Int, Json, Text, Time};

const fn field(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind, source: ColumnSource::Field(name) }
}

const ID: Column = Column { name: column::CONVERSATION_ID, kind: Text, source: ColumnSource::ConversationId };
const EXTRA: Column = Column { name: "extra", kind: Json, source: ColumnSource::Extra };
const EXPORTED_AT: Column = Column { name: column::EXPORTED_AT, kind: Time, source: ColumnSource::ExportedAt };
const RUN_ID: Column = Column { name: column::RUN_ID, kind: Text, source: ColumnSource::RunId };
const SEQ: Column = Column { name: column::SEQ, kind: BigInt, source: ColumnSource::Seq };

const fn index(name: &'static str) -> Column {
    Column { name, kind: Int, source: ColumnSource::Index }
}

static CONVERSATIONS: &[Column] = &[
    ID,
    field("user_id", Text),
    field("destination", Text),
    field(column::CREATED_AT, Time),
    field(column::UPDATED_AT, Time),
    field(column::LAST_MESSAGE_AT, Time),
    field(column::LAST_USER_MESSAGE_AT, Time),
    field("undeflected", Bool),
    field("summary", Text),
    field("resolution", Text),
    field("csat_rating", Int),
    field("csat", Int),
    field("csat_role", Text),
    field("csat_resolved", Bool),
    field("customer_feedback", Text),
    field("flow_type", Text),
    field("notes", Text),
    field("metadata", Json),
    Column { name: column::MESSAGE_COUNT, kind: Int, source: ColumnSource::MessageCount },
    EXTRA,
    EXPORTED_AT,
    RUN_ID,
    SEQ,
];

static MESSAGES: &[Column] = &[
    ID,
    index("message_index"),
    field("role", Text),
    field("text", Text),
    field(column::CREATED_AT, Time),
    EXTRA,
    RUN_ID,
    SEQ,
];

/// The vendor's page shows tags as `{"name", "level"}`, its OpenAPI file as bare ids; `/tag/all` calls the id `id`.
static TAGS: &[Column] = &[
    ID,
    index("tag_index"),
    Column { name: "tag_id", kind: Text, source: ColumnSource::Field("id") },
    field("name", Text),
    field("level", Int),
    EXTRA,
    RUN_ID,
    SEQ,
];

static AUDIT_LOGS: &[Column] = &[
    ID,
    index("log_index"),
    field("text", Text),
    field("payload", Json),
    field(column::CREATED_AT, Time),
    EXTRA,
    RUN_ID,
    SEQ,
];

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

    /// The columns, in order.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Table::Conversations => CONVERSATIONS,
            Table::Messages => MESSAGES,
            Table::Tags => TAGS,
            Table::AuditLogs => AUDIT_LOGS,
        }
    }

    /// The column that numbers the rows of a conversation; `None` for `conversations`.
    pub fn index_column(self) -> Option<&'static str> {
        self.columns().iter().find(|column| column.source == ColumnSource::Index).map(|column| column.name)
    }

    /// The schema of every table file and staged file of this table.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<PerTable<SchemaRef>> = LazyLock::new(|| PerTable::from_fn(|t| schema(t.columns())));
        Arc::clone(SCHEMAS.get(self))
    }
}

fn schema(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| {
            let key = matches!(column.source, ColumnSource::ConversationId | ColumnSource::Index);
            Field::new(column.name, column.kind.data_type(), !key)
        })
        .collect();
    Arc::new(Schema::new(fields))
}

impl ColumnKind {
    /// The Arrow type that values of this kind are stored as.
    pub fn data_type(self) -> DataType {
        match self {
            Text | Json => DataType::Utf8,
            Int => DataType::Int32,
            BigInt => DataType::Int64,
            Bool => DataType::Boolean,
            Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The columns as the design fixes them: a change here breaks people's queries.
    #[test]
    fn columns_have_the_promised_names_and_order() {
        let names = |table: Table| table.columns().iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
        assert_eq!(
            names(Table::Conversations),
            "conversation_id, user_id, destination, created_at, updated_at, last_message_at, last_user_message_at, \
             undeflected, summary, resolution, csat_rating, csat, csat_role, csat_resolved, customer_feedback, \
             flow_type, notes, metadata, message_count, extra, _exported_at, _run_id, _seq"
        );
        assert_eq!(
            names(Table::Messages),
            "conversation_id, message_index, role, text, created_at, extra, _run_id, _seq"
        );
        assert_eq!(names(Table::Tags), "conversation_id, tag_index, tag_id, name, level, extra, _run_id, _seq");
        assert_eq!(
            names(Table::AuditLogs),
            "conversation_id, log_index, text, payload, created_at, extra, _run_id, _seq"
        );
    }

    #[test]
    fn extra_comes_after_every_field() {
        for table in Table::ALL {
            let after = table.columns().iter().skip_while(|column| column.source != ColumnSource::Extra);
            assert!(after.clone().count() > 0);
            assert!(
                after.into_iter().all(|column| !matches!(column.source, ColumnSource::Field(_))),
                "{}",
                table.name()
            );
        }
    }

    #[test]
    fn only_keys_are_required() {
        for table in Table::ALL {
            for field in table.schema().fields() {
                let key = field.name() == "conversation_id" || field.name().ends_with("_index");
                assert_eq!(field.is_nullable(), !key, "{}.{}", table.name(), field.name());
            }
        }
    }
}
