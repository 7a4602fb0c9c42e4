//! The columns of the four tables: name, type, and the field of the API's objects that fills each.
//!
//! This is the only place that lists the API's columns: schemas, flattening and rebuilding all follow [`LakeColumns`].
//! People's queries depend on names, types and order, so columns are only added: those of the API before `extra`, the
//! lake's own [`MetadataColumn`]s between them, and others at the end. Files of earlier schemas lack the newer ones.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};

use super::column_kind::ColumnKind;
use super::metadata_column::MetadataColumn;
use super::row_policy::RowPolicy;
use super::table::{PerTable, Table};

/// The newest schema: a number that grows with every release that adds columns.
pub const SCHEMA_VERSION: u32 = 3;

/// The source of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnSource {
    /// The `conversation_id` of the row's conversation.
    ConversationId,
    /// The position in the API's array, from 0.
    Index,
    /// The field of this name in the API's object.
    Field(&'static str),
    /// The key of this name in the object `metadata`, which stays complete.
    Metadata(String),
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
    /// When `reconcile` found that the API no longer has the conversation. A version that the API sends has none, so a
    /// conversation that is back loses its mark.
    DeletedAt,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, lower case.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: ColumnKind,
    /// Where its values come from.
    pub source: ColumnSource,
    /// The first schema that has it. A column of the lake's metadata is in none.
    since: u32,
}

impl Column {
    /// Whether a file of the table may lack it, because an earlier schema does.
    pub fn is_newer(&self) -> bool {
        self.since != 1
    }
}

/// The names of the columns that code refers to.
pub mod column {
    #![allow(missing_docs, reason = "each is the name it holds")]
    pub const CONVERSATION_ID: &str = "conversation_id";
    pub const USER_ID: &str = "user_id";
    pub const CREATED_AT: &str = "created_at";
    pub const UPDATED_AT: &str = "updated_at";
    pub const LAST_MESSAGE_AT: &str = "last_message_at";
    pub const LAST_USER_MESSAGE_AT: &str = "last_user_message_at";
    pub const METADATA: &str = "metadata";
    pub const EXTRA: &str = "extra";
    pub const EXPORTED_AT: &str = "_exported_at";
    pub const MESSAGE_COUNT: &str = "message_count";
    pub const RUN_ID: &str = "_run_id";
    pub const SEQ: &str = "_seq";
    pub const DELETED_AT: &str = "deleted_at";
    pub const DESTINATION: &str = "destination";
    pub const UNDEFLECTED: &str = "undeflected";
    pub const SUMMARY: &str = "summary";
    pub const CSAT_RATING: &str = "csat_rating";
    pub const CSAT: &str = "csat";
    pub const ROLE: &str = "role";
    pub const TAG_ID: &str = "tag_id";
    pub const NAME: &str = "name";
}

use ColumnKind::{BigInt, Bool, Id, Int, Json, Text, Time};
use ColumnSource::{Extra, Index, MessageCount, Metadata};

const fn of(name: &'static str, kind: ColumnKind, source: ColumnSource) -> Column {
    Column { name: Cow::Borrowed(name), kind, source, since: 1 }
}

const fn field(name: &'static str, kind: ColumnKind) -> Column {
    newer(1, name, kind, name)
}

/// A column that a later schema has added, and the API's name of its field.
const fn newer(since: u32, name: &'static str, kind: ColumnKind, api_name: &'static str) -> Column {
    Column { name: Cow::Borrowed(name), kind, source: ColumnSource::Field(api_name), since }
}

const ID: Column = of(column::CONVERSATION_ID, Text, ColumnSource::ConversationId);
const EXTRA: Column = of(column::EXTRA, Json, Extra);
const RUN_ID: Column = of(column::RUN_ID, Text, ColumnSource::RunId);
const SEQ: Column = of(column::SEQ, BigInt, ColumnSource::Seq);

static CONVERSATIONS: &[Column] = &[
    ID,
    field(column::USER_ID, Text),
    field(column::DESTINATION, Text),
    field(column::CREATED_AT, Time),
    field(column::UPDATED_AT, Time),
    field(column::LAST_MESSAGE_AT, Time),
    field(column::LAST_USER_MESSAGE_AT, Time),
    field(column::UNDEFLECTED, Bool),
    field(column::SUMMARY, Text),
    field("resolution", Text),
    field(column::CSAT_RATING, Int),
    field(column::CSAT, Int),
    field("csat_role", Text),
    field("csat_resolved", Bool),
    field("customer_feedback", Text),
    field("flow_type", Text),
    field("notes", Text),
    field(column::METADATA, Json),
    of(column::MESSAGE_COUNT, Int, MessageCount),
    newer(2, "conversation_url", Text, "conversation_url"),
    newer(2, "all_tags", Json, "all_tags"),
    newer(2, "watchtower_reviews", Json, "watchtower_reviews"),
    EXTRA,
    of(column::EXPORTED_AT, Time, ColumnSource::ExportedAt),
    RUN_ID,
    SEQ,
    Column { name: Cow::Borrowed(column::DELETED_AT), kind: Time, source: ColumnSource::DeletedAt, since: 3 },
];

static MESSAGES: &[Column] = &[
    ID,
    of("message_index", Int, Index),
    field(column::ROLE, Text),
    field("text", Text),
    field(column::CREATED_AT, Time),
    newer(2, "message_id", Id, "id"),
    EXTRA,
    RUN_ID,
    SEQ,
];

/// The vendor's page shows tags as `{"name", "level"}`, its OpenAPI file as bare ids; `/tag/all` calls the id `id`.
static TAGS: &[Column] = &[
    ID,
    of("tag_index", Int, Index),
    newer(1, column::TAG_ID, Text, "id"),
    field(column::NAME, Text),
    field("level", Int),
    EXTRA,
    RUN_ID,
    SEQ,
];

static AUDIT_LOGS: &[Column] = &[
    ID,
    of("log_index", Int, Index),
    field("text", Text),
    field("payload", Json),
    field(column::CREATED_AT, Time),
    EXTRA,
    RUN_ID,
    SEQ,
];

impl Table {
    /// The columns that every lake has, in order.
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
        self.columns().iter().find(|column| column.source == Index).map(|column| column.name.as_ref())
    }
}

/// The columns of one table of a lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumns {
    table: Table,
    columns: Vec<Column>,
    fields: Vec<&'static str>,
    schema: SchemaRef,
    policy: RowPolicy,
    policies: u32,
}

impl TableColumns {
    fn new(table: Table, columns: Vec<Column>) -> Self {
        let field = |column: &Column| {
            let key = matches!(column.source, ColumnSource::ConversationId | Index);
            Field::new(column.name.as_ref(), column.kind.data_type(), !key)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let named = |column: &Column| if let ColumnSource::Field(name) = column.source { Some(name) } else { None };
        let fields = columns.iter().filter_map(named).collect();
        TableColumns { table, fields, columns, schema, policy: RowPolicy::None, policies: 0 }
    }

    /// The table.
    pub fn table(&self) -> Table {
        self.table
    }

    /// The table's name.
    pub fn name(&self) -> &'static str {
        self.table.name()
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The API's names of the fields that have a column, in the columns' order.
    pub fn fields(&self) -> &[&'static str] {
        &self.fields
    }

    /// The schema of every file of the table.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The policy that the rows of new files follow.
    pub fn policy(&self) -> &RowPolicy {
        &self.policy
    }

    /// The same columns for files whose rows follow another policy.
    fn following(&self, policy: RowPolicy) -> Self {
        TableColumns { policy, ..self.clone() }
    }

    /// The keys of `metadata` that have a column, in the columns' order.
    pub fn metadata_keys(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter_map(|column| match &column.source {
            Metadata(key) => Some(key.as_str()),
            _ => None,
        })
    }
}

/// The columns of a lake's tables. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeColumns(Arc<PerTable<Arc<TableColumns>>>);

impl LakeColumns {
    /// The columns of a lake with the newest schema and these columns of its metadata.
    pub fn new(metadata: &[MetadataColumn]) -> Self {
        Self::of_schema(SCHEMA_VERSION, metadata)
    }

    /// The columns of a lake with the schema `version`.
    pub fn of_schema(version: u32, metadata: &[MetadataColumn]) -> Self {
        let own = |column: &MetadataColumn| Column {
            name: Cow::Owned(column.name.clone()),
            kind: column.kind.kind(),
            source: Metadata(column.key.clone()),
            since: 0,
        };
        LakeColumns(Arc::new(PerTable::from_fn(|table| {
            let mut columns = Vec::new();
            for column in table.columns().iter().filter(|column| column.since <= version) {
                if table == Table::Conversations && column.source == Extra {
                    columns.extend(metadata.iter().map(own));
                }
                columns.push(column.clone());
            }
            Arc::new(TableColumns::new(table, columns))
        })))
    }

    /// The same columns in a lake that has had so many `policies`; the rows of new files follow the last one.
    #[must_use]
    pub fn with_policy(&self, policies: u32, policy: &RowPolicy) -> Self {
        let of = |table| TableColumns { policies, ..self.of(table).following(policy.clone()) };
        LakeColumns(Arc::new(PerTable::from_fn(|table| Arc::new(of(table)))))
    }

    /// The same columns for files whose rows follow other policies.
    #[must_use]
    pub fn following(&self, policies: &PerTable<RowPolicy>) -> Self {
        let of = |table| self.of(table).following(policies.get(table).clone());
        LakeColumns(Arc::new(PerTable::from_fn(|table| Arc::new(of(table)))))
    }

    /// How many policies the lake has had.
    pub fn policies(&self) -> u32 {
        self.of(Table::Conversations).policies
    }

    /// How many columns the tables have together.
    pub fn count(&self) -> u32 {
        Table::ALL.iter().flat_map(|table| self.of(*table).columns()).map(|_| 1).sum()
    }

    /// The columns of `table`.
    pub fn of(&self, table: Table) -> &Arc<TableColumns> {
        self.0.get(table)
    }
}

/// The newest schema, without columns of metadata.
impl Default for LakeColumns {
    fn default() -> Self {
        Self::new(&[])
    }
}

#[cfg(test)]
mod tests;
