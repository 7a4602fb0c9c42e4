//! The four tables as their readers find them, in either format: which object each date has, and what a new one is called.
//!
//! This is the seam between the formats. Plain tables have one object for each date, under one name, and a put replaces
//! it; Delta tables have objects under new names, and a commit of the table's log replaces them. Must not know: what the
//! objects hold.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use futures::future::try_join_all;
use object_store::ObjectMeta;
use object_store::path::Path;
use tokio::runtime::Handle;

use super::change::Change;
use super::delta::{DeltaTable, Standing};
use crate::error::{Error, Result};
use crate::lake::{Format, Identity, Lease, WriteIntent};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, PerTable, Table};
use crate::store::Store;

/// The tables of a lake.
#[derive(Clone)]
pub struct Tables {
    store: Store,
    /// Where they are Delta tables.
    delta: Option<Arc<PerTable<DeltaTable>>>,
}

impl Tables {
    /// Checks that this build can keep tables in `format`.
    ///
    /// # Errors
    /// Kind `Usage` if it was built without the feature.
    pub fn check(format: Format) -> Result<()> {
        if format == Format::Parquet || cfg!(feature = "delta") {
            return Ok(());
        }
        Err(Error::usage("this build of decagon-lake does not support Delta tables")
            .with_hint("build it with the feature `delta`, which is on by default"))
    }

    /// The tables of the lake in `store`, which is as `identity` says. Must be called on an async thread.
    ///
    /// # Errors
    /// As [`Tables::check`].
    pub fn of(store: &Store, identity: &Identity) -> Result<Self> {
        Self::check(identity.format)?;
        let delta = (identity.format == Format::Delta).then(|| {
            let application = format!("decagon-lake {}", identity.created_at.to_rfc3339());
            let runtime = Handle::current();
            Arc::new(PerTable::from_fn(|table| DeltaTable::new(store, table, application.clone(), runtime.clone())))
        });
        Ok(Tables { store: store.clone(), delta })
    }

    /// Whether a new object is seen once a [publication](Tables::publish) names it, and not before.
    pub fn are_delta(&self) -> bool {
        self.delta.is_some()
    }

    /// The objects that a date has. Must not be called on an async thread.
    ///
    /// # Errors
    /// Where the store fails; kind `Integrity` where another program has changed a Delta table so that it cannot be
    /// merged with.
    pub fn of_date(&self, date: CreatedDate, runtime: &Handle) -> Result<PerTable<Option<ObjectMeta>>> {
        match &self.delta {
            None => runtime.block_on(self.plain_of_date(date)),
            Some(delta) => PerTable::try_from_fn(|table| delta.get(table).of_date(date)),
        }
    }

    /// The objects that a date has in plain tables.
    async fn plain_of_date(&self, date: CreatedDate) -> Result<PerTable<Option<ObjectMeta>>> {
        let keys = Table::ALL.map(|table| layout::table_file(table, date));
        let mut found = try_join_all(keys.iter().map(|key| self.store.head(key))).await?.into_iter();
        Ok(PerTable::from_fn(|_| found.next().flatten()))
    }

    /// The name of a new object of a date, which takes the place of those that the date has.
    pub fn new_object(&self, table: Table, date: CreatedDate, file: &FlushId) -> Path {
        match self.delta {
            None => layout::table_file(table, date),
            Some(_) => layout::delta_file(table, date, file),
        }
    }

    /// Every object of a table with its date, and what else lies in the folder of a plain table.
    ///
    /// # Errors
    /// As [`Tables::of_date`].
    pub async fn objects(&self, table: Table) -> Result<(Vec<(CreatedDate, ObjectMeta)>, Vec<Path>)> {
        if let Some(delta) = self.delta.clone() {
            let task = tokio::task::spawn_blocking(move || delta.get(table).objects());
            let objects = task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))??;
            return Ok((objects, Vec::new()));
        }
        let (mut objects, mut others) = (Vec::new(), Vec::new());
        let mut listed = self.store.list(layout::table_folder(table));
        while let Some(object) = listed.try_next().await? {
            match layout::table_file_date(table, &object.location) {
                Some(date) => objects.push((date, object)),
                None => others.push(object.location),
            }
        }
        Ok((objects, others))
    }

    /// The number of the newest publication that any Delta table has taken up; 0 if there is none. A checkpoint has named
    /// it, so a lake whose newest checkpoint has a lower number has lost some.
    ///
    /// # Errors
    /// If the store fails, or a table's log is damaged.
    pub async fn taken_up(&self) -> Result<u64> {
        let Some(delta) = self.delta.clone() else { return Ok(0) };
        // One after the other: the engine takes threads of the same few while this one waits for it.
        let task = tokio::task::spawn_blocking(move || {
            let numbers = PerTable::try_from_fn(|table| delta.get(table).taken_up())?;
            let newest = Table::ALL.iter().filter_map(|table| *numbers.get(*table)).max();
            Ok::<_, Error>(newest.unwrap_or(0))
        });
        task.await.map_err(|error| Error::bug("the log's reader failed").caused_by(error))?
    }

    /// Forgets what was seen of the tables, so that the next look shows what they are by then.
    pub fn look_again(&self) {
        for table in Table::ALL {
            if let Some(delta) = &self.delta {
                delta.get(table).forget();
            }
        }
    }

    /// Brings a publication into Delta tables: one commit each, the conversations last. Those that have it already are left
    /// as they are.
    ///
    /// # Errors
    /// Where the store fails; some of the tables may have it then, and doing it again brings it into the others.
    pub async fn publish(&self, publication: &WriteIntent) -> Result<Change> {
        let Some(delta) = self.delta.clone() else { return Ok(Change::Made) };
        let publication = publication.clone();
        let task = tokio::task::spawn_blocking(move || {
            // Who sees a conversation, sees its children too; and where one table has been changed by others, none is.
            let mut ready = Vec::new();
            for table in Table::CHILDREN.into_iter().chain([Table::Conversations]).map(|table| delta.get(table)) {
                match table.standing(&publication)? {
                    Standing::Conflict(place) => return Ok(Change::Conflict(place)),
                    standing => ready.push((table, standing)),
                }
            }
            for (table, standing) in ready {
                if let conflict @ Change::Conflict(_) = table.publish(&publication, standing)? {
                    return Ok(conflict);
                }
            }
            Ok(Change::Made)
        });
        task.await.map_err(|error| Error::bug("the commit failed").caused_by(error))?
    }

    /// Removes the objects that no Delta table has had for as long as `retain`; returns how many. For who holds the lake.
    ///
    /// # Errors
    /// Where the store fails, and kind `Held` where another run has taken over.
    pub async fn vacuum(&self, retain: Duration, lease: &Lease, now: DateTime<Utc>) -> Result<usize> {
        let Some(delta) = &self.delta else { return Ok(0) };
        // Nothing is as old as to be before what can be told.
        let since = chrono::Duration::from_std(retain).ok().and_then(|retain| now.checked_sub_signed(retain));
        let Some(since) = since else { return Ok(0) };
        let mut expired = Vec::new();
        for table in Table::ALL {
            let delta = Arc::clone(delta);
            expired.extend(DeltaTable::expired(delta, table, since, now).await?);
        }
        if expired.is_empty() {
            return Ok(0);
        }
        // What was not needed before this stays so, whatever others do by now.
        lease.prove().await?;
        let count = expired.len();
        self.store.delete(expired).await?;
        Ok(count)
    }
}
