//! Finds conversations in the lake's Parquet files: one pass over the columns that say who they are about.
//!
//! Guarantees: bounded memory, because [`Lanes`] bound what is read at a time and only the chosen ids are kept. Must not
//! depend on: what is done with what was found.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::files::{FileReader, FoundFile, Lanes};
use crate::lake::{Lake, State, Suppression};
use crate::model::{CreatedDate, Selector, Table, TableColumns, column, texts};
use crate::tables::Tables;

/// How often the progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Which files to search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// The tables.
    Tables,
    /// The staged files.
    Staging,
    /// Files that earlier versions of Delta tables used.
    OldVersions,
}

/// A file that holds some of the conversations.
#[derive(Debug, Clone)]
pub struct Hit {
    /// Its partition.
    pub date: CreatedDate,
    /// The file.
    pub file: FoundFile,
    /// The conversations.
    pub ids: BTreeSet<String>,
}

/// The files that were searched.
#[derive(Debug, Default)]
pub struct SearchResult {
    /// Those that hold some of the conversations.
    pub hits: Vec<Hit>,
    /// The files of old versions that cannot be read.
    pub unreadable: u64,
}

/// Searches a lake.
pub struct Search<'a> {
    /// The lake.
    pub lake: &'a Lake,
    /// Its tables.
    pub tables: &'a Tables,
    /// Its state.
    pub state: &'a State,
    /// Stops the search.
    pub stop: &'a CancellationToken,
}

/// Says which rows of a batch are meant.
type Choose = Arc<dyn Fn(&RecordBatch, &str, usize) -> bool + Send + Sync>;

impl Search<'_> {
    /// Finds the conversations that the selectors choose.
    ///
    /// # Errors
    /// If the store fails; kind `Integrity` if a file in use is damaged; kind `Interrupted`.
    pub async fn chosen(&self, place: Where, selectors: &[Selector]) -> Result<SearchResult> {
        let mut names: Vec<String> = selectors.iter().map(|selector| selector.column().to_owned()).collect();
        names.push(column::CONVERSATION_ID.to_owned());
        names.sort_unstable();
        names.dedup();
        let selectors = selectors.to_vec();
        let choose: Choose =
            Arc::new(move |batch, _, row| selectors.iter().any(|selector| selector.chooses(batch, row)));
        self.search(place, Table::Conversations, names, choose).await
    }

    /// Finds the conversations that must not be in the lake any more.
    ///
    /// # Errors
    /// As [`Search::chosen`].
    pub async fn suppressed(&self, place: Where, table: Table, suppression: &Arc<Suppression>) -> Result<SearchResult> {
        let suppression = Arc::clone(suppression);
        let choose: Choose = Arc::new(move |_, id, _| suppression.contains(id));
        self.search(place, table, vec![column::CONVERSATION_ID.to_owned()], choose).await
    }

    async fn search(&self, place: Where, table: Table, names: Vec<String>, choose: Choose) -> Result<SearchResult> {
        let files = self.files(place, table).await?;
        let (lanes, clock, count) = (Lanes::of(self.lake.store()), self.lake.clock(), files.len());
        let reader = ColumnReader {
            lake: self.lake.clone(),
            columns: Arc::clone(self.tables.columns().of(table)),
            names,
            choose,
            runtime: Handle::current(),
        };
        let reader = Arc::new(reader);
        let reading = files.into_iter().map(|(date, file)| {
            let (reader, lanes) = (Arc::clone(&reader), lanes.clone());
            async move { read(reader, &lanes, date, file).await }
        });
        let mut results = stream::iter(reading.collect::<Vec<_>>()).buffer_unordered(lanes.at_once());
        let (mut found, mut said_at) = (SearchResult::default(), clock.instant());
        let mut done = 0_u64;
        while let Some(result) = results.next().await {
            if self.stop.is_cancelled() {
                return Err(Error::interrupted());
            }
            match result {
                Ok(hit) if hit.ids.is_empty() => {}
                Ok(hit) => found.hits.push(hit),
                Err(error) if place == Where::OldVersions && error.is_of_one_object() => found.unreadable += 1,
                Err(error) => return Err(error),
            }
            done += 1;
            if clock.instant() - said_at >= PROGRESS_EVERY {
                said_at = clock.instant();
                tracing::info!("searched {done} of {count} files of {}", table.name());
            }
        }
        Ok(found)
    }

    /// The files of a table.
    async fn files(&self, place: Where, table: Table) -> Result<Vec<(CreatedDate, FoundFile)>> {
        let not_read = |(date, object)| (date, FoundFile::not_read(object));
        Ok(match place {
            Where::Tables => self.tables.files(table).await?.0.into_iter().map(not_read).collect(),
            Where::OldVersions => self.tables.unused_files(table).await?.into_iter().map(not_read).collect(),
            Where::Staging => {
                let files = self.state.staged.iter().flat_map(|flush| flush.files());
                let files = files.filter(|file| file.table == table && file.rows > 0);
                files.map(|file| (file.date, FoundFile::named_once(file.key, file.bytes))).collect()
            }
        })
    }
}

/// Reads some columns of files.
struct ColumnReader {
    lake: Lake,
    columns: Arc<TableColumns>,
    names: Vec<String>,
    choose: Choose,
    runtime: Handle,
}

async fn read(reader: Arc<ColumnReader>, lanes: &Lanes, date: CreatedDate, file: FoundFile) -> Result<Hit> {
    let bytes = file.object().size;
    let lane = lanes.enter(bytes).await?;
    let file = if Lanes::are_small(bytes) { file.load(reader.lake.store()).await? } else { file };
    let work = move || {
        let ids = reader.chosen(&file)?;
        // The bytes are not needed any more.
        Ok(Hit { date, file: FoundFile::not_read(file.object().clone()), ids })
    };
    lanes.work(&lane, work).await?
}

impl ColumnReader {
    /// The ids of the conversations that are meant. Blocks.
    fn chosen(&self, file: &FoundFile) -> Result<BTreeSet<String>> {
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        let (store, runtime) = (self.lake.store(), self.runtime.clone());
        let mut reader = FileReader::open_columns(store, &self.columns, file, &names, runtime)?;
        let mut ids = BTreeSet::new();
        while let Some(batch) = reader.next_batch()? {
            let no_ids = || Error::bug("a file was read without its ids");
            let found = texts(&batch, column::CONVERSATION_ID).ok_or_else(no_ids)?;
            for (row, id) in found.iter().enumerate() {
                if let Some(id) = id.filter(|id| (self.choose)(&batch, id, row)) {
                    ids.insert(id.to_owned());
                }
            }
        }
        Ok(ids)
    }
}
