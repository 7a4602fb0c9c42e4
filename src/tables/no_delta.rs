//! Delta tables in a build without the feature `delta`: a type without values, so that none can exist. It has the
//! functions of `delta`, so that the code that calls them is the same in every build.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::change::Change;
use crate::error::Result;
use crate::lake::WriteIntent;
use crate::model::{CreatedDate, PartitionBy, PerTable, Table, TableColumns};
use crate::store::Store;

/// A Delta table, which cannot exist in this build.
pub(super) enum DeltaTable {}

/// What may be deleted of a table's log.
pub(super) struct LogCut {
    pub(super) parts: Vec<Path>,
    pub(super) newest_is_foreign: bool,
}

/// The files that a table does not use.
pub(super) struct Unused {
    pub(super) files: Vec<ObjectMeta>,
}

/// Whether a table can apply a write intent.
#[derive(Clone)]
#[expect(dead_code, reason = "no table returns it")]
pub(super) enum Readiness {
    Conflict(String),
    Ready,
}

impl DeltaTable {
    /// Never called, because [`Tables::check`](super::Tables::check) refuses Delta tables first.
    #[expect(clippy::unreachable, reason = "no input reaches it")]
    pub(super) fn new(_: &Store, _: Arc<TableColumns>, _: PartitionBy, _: String, _: Handle) -> Self {
        unreachable!("Delta tables were not built in")
    }

    pub(super) fn partition_file(&self, _: CreatedDate) -> Result<Option<ObjectMeta>> {
        match *self {}
    }

    pub(super) fn all_files(&self) -> Result<Vec<(CreatedDate, ObjectMeta)>> {
        match *self {}
    }

    pub(super) fn invalidate(&self) {
        match *self {}
    }

    pub(super) fn applied(&self) -> Result<Option<u64>> {
        match *self {}
    }

    pub(super) fn readiness(&self, _: &WriteIntent) -> Result<Readiness> {
        match *self {}
    }

    pub(super) fn is_known(&self) -> bool {
        match *self {}
    }

    pub(super) fn state(&self) -> Result<Option<()>> {
        match *self {}
    }

    pub(super) fn publish(&self, _: &WriteIntent, _: Option<Readiness>) -> Result<Change> {
        match *self {}
    }

    pub(super) async fn unused(own: Arc<PerTable<DeltaTable>>, table: Table) -> Result<Unused> {
        match *own.get(table) {}
    }

    pub(super) async fn cut(own: Arc<PerTable<DeltaTable>>, table: Table) -> Result<LogCut> {
        match *own.get(table) {}
    }

    pub(super) async fn expired(
        own: Arc<PerTable<DeltaTable>>,
        table: Table,
        _: DateTime<Utc>,
        _: DateTime<Utc>,
    ) -> Result<Vec<Path>> {
        match *own.get(table) {}
    }
}
