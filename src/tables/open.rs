//! The files of a partition that were found, whose bytes may be on their way.
//!
//! Must not depend on: how they were found.

use futures::future::try_join_all;
use object_store::ObjectMeta;

use crate::error::Result;
use crate::files::{FoundFile, Lane, Lanes};
use crate::model::{PerTable, Table};
use crate::store::{OpenObject, Store};

/// The files of one partition of the four tables.
#[derive(Debug)]
pub struct OpenPartition {
    store: Store,
    files: PerTable<Option<OpenTableFile>>,
}

/// A table file that was found.
#[derive(Debug)]
pub(super) enum OpenTableFile {
    /// Only its metadata were requested.
    Found(ObjectMeta),
    /// Its bytes were requested too.
    Requested(Box<OpenObject>),
}

impl OpenTableFile {
    fn object(&self) -> &ObjectMeta {
        match self {
            OpenTableFile::Found(object) => object,
            OpenTableFile::Requested(open) => open.meta(),
        }
    }
}

impl OpenPartition {
    pub(super) fn new(store: &Store, files: PerTable<Option<OpenTableFile>>) -> Self {
        OpenPartition { store: store.clone(), files }
    }

    /// No files.
    pub fn none(store: &Store) -> Self {
        Self::new(store, PerTable::from_fn(|_| None))
    }

    /// Whether it has a file of `table`.
    pub fn has(&self, table: Table) -> bool {
        self.files.get(table).is_some()
    }

    /// The size of its files.
    pub fn bytes(&self) -> u64 {
        let sizes = Table::ALL.iter().filter_map(|table| self.files.get(*table).as_ref());
        sizes.fold(0, |sum, file| sum.saturating_add(file.object().size))
    }

    /// The files as objects of the store.
    pub fn objects(&self) -> PerTable<Option<ObjectMeta>> {
        PerTable::from_fn(|table| self.files.get(table).as_ref().map(|file| file.object().clone()))
    }

    /// Waits for a lane; reads the files into memory if they are small.
    ///
    /// # Errors
    /// As [`FoundFile::load`].
    pub async fn read(self, lanes: &Lanes) -> Result<(PerTable<Option<FoundFile>>, Lane)> {
        let bytes = self.bytes();
        let (open, lane) = self.enter(lanes, bytes).await?;
        let files = if Lanes::are_small(bytes) { open.load().await? } else { open.not_read() };
        Ok((files, lane))
    }

    /// Takes a lane for work on `bytes`, those of these files included. If it has to wait, it gives up the bytes that
    /// are on their way, because such a request would time out.
    ///
    /// # Errors
    /// Only on a bug.
    pub async fn enter(self, lanes: &Lanes, bytes: u64) -> Result<(Self, Lane)> {
        match lanes.try_enter(bytes) {
            Some(lane) => Ok((self, lane)),
            None => Ok((self.requested_later(), lanes.enter(bytes).await?)),
        }
    }

    fn requested_later(mut self) -> Self {
        let files = PerTable::from_fn(|table| {
            let file = self.files.get_mut(table).take();
            file.map(|file| OpenTableFile::Found(file.object().clone()))
        });
        OpenPartition { files, ..self }
    }

    /// Reads the files into memory.
    ///
    /// # Errors
    /// As [`FoundFile::load`].
    pub async fn load(self) -> Result<PerTable<Option<FoundFile>>> {
        let OpenPartition { store, mut files } = self;
        let files = Table::ALL.map(|table| files.get_mut(table).take());
        let mut loaded = try_join_all(files.map(|file| load(&store, file))).await?.into_iter();
        Ok(PerTable::from_fn(|_| loaded.next().flatten()))
    }

    /// Leaves the bytes in the store.
    pub fn not_read(mut self) -> PerTable<Option<FoundFile>> {
        PerTable::from_fn(|table| {
            let file = self.files.get_mut(table).take();
            file.map(|file| FoundFile::not_read(file.object().clone()))
        })
    }
}

async fn load(store: &Store, file: Option<OpenTableFile>) -> Result<Option<FoundFile>> {
    Ok(match file {
        None => None,
        Some(OpenTableFile::Found(object)) => Some(FoundFile::not_read(object).load(store).await?),
        Some(OpenTableFile::Requested(open)) => {
            let object = open.meta().clone();
            match FoundFile::read(*open).await {
                Ok(file) => Some(file),
                // Another request shows whether it was replaced meanwhile.
                Err(_) => Some(FoundFile::not_read(object).load(store).await?),
            }
        }
    })
}
