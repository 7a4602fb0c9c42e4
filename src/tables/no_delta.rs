//! Delta tables in a program that is built without them (feature `delta`): there are none, which the type says. Has the
//! functions of `delta`, so that what uses it is the same in every build.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::change::Change;
use crate::error::Result;
use crate::lake::WriteIntent;
use crate::model::{CreatedDate, PerTable, Table};
use crate::store::Store;

/// A Delta table, of which there is none.
pub(super) enum DeltaTable {}

/// How a table stands to a write intent.
#[expect(dead_code, reason = "no table says so")]
pub(super) enum Standing {
    Conflict(String),
    Ready,
}

impl DeltaTable {
    /// Never called: [`Tables::check`](super::Tables::check) comes before it.
    #[expect(clippy::unreachable, reason = "no input reaches it")]
    pub(super) fn new(_: &Store, _: Table, _: String, _: Handle) -> Self {
        unreachable!("Delta tables were not built in")
    }

    pub(super) fn of_date(&self, _: CreatedDate) -> Result<Option<ObjectMeta>> {
        match *self {}
    }

    pub(super) fn objects(&self) -> Result<Vec<(CreatedDate, ObjectMeta)>> {
        match *self {}
    }

    pub(super) fn forget(&self) {
        match *self {}
    }

    pub(super) fn taken_up(&self) -> Result<Option<u64>> {
        match *self {}
    }

    pub(super) fn standing(&self, _: &WriteIntent) -> Result<Standing> {
        match *self {}
    }

    pub(super) fn publish(&self, _: &WriteIntent, _: Standing) -> Result<Change> {
        match *self {}
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
