//! Does the jobs of a compaction, each in three phases: it loads the files, merges them on a blocking thread, and puts
//! the new files.
//!
//! Guarantees: many jobs on small partitions hide each other's latency, within the bounds of [`Lanes`] on bytes and
//! threads. Large partitions are streamed. No part of a job runs on after it has returned.
//! Must not depend on: which jobs there are.

use std::sync::Arc;

use futures::future::try_join_all;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::date::DateTables;
use super::job::{Compacted, Job, JobFlush, StagedPart, Work};
use crate::error::{Error, Result};
use crate::files::{FoundFile, Lane, Lanes};
use crate::lake::{Lake, Lease, Suppression};
use crate::layout;
use crate::model::{CreatedDate, PerTable, Table};
use crate::tables::{OpenPartition, Tables};

/// The largest staged flush of a partition that is promoted, because that takes it whole into memory.
const PROMOTED_BYTES: u64 = 32 << 20;

/// Which staged files are read into memory.
#[derive(Clone, Copy)]
enum Loading {
    Nothing,
    /// Those with rows.
    Rows,
    /// All, because a promoted partition needs a file of each table.
    Everything,
}

/// Does jobs for the holder of the lease. A clone shares the lanes.
#[derive(Clone)]
pub(super) struct Worker {
    lake: Lake,
    tables: Tables,
    lease: Arc<Lease>,
    suppression: Arc<Suppression>,
    lanes: Lanes,
    /// Cancelled to stop jobs that only wait.
    stop: CancellationToken,
}

impl Worker {
    pub(super) fn new(
        lake: &Lake,
        tables: &Tables,
        lease: &Arc<Lease>,
        suppression: &Arc<Suppression>,
        stop: CancellationToken,
    ) -> Self {
        let (lake, tables, lease, suppression) =
            (lake.clone(), tables.clone(), Arc::clone(lease), Arc::clone(suppression));
        Worker { lanes: Lanes::of(lake.store()), lake, tables, lease, suppression, stop }
    }

    /// How many jobs to begin at a time.
    pub(super) fn at_once(&self) -> usize {
        self.lanes.at_once()
    }

    /// Does one job.
    ///
    /// # Errors
    /// Of the store; `Integrity` if a file is damaged; `Held` if another run has the lake; `Interrupted`.
    pub(super) async fn run(&self, job: &Arc<Job>) -> Result<Compacted> {
        let open = match job.work {
            Work::Fold => OpenPartition::none(self.lake.store()),
            Work::Compact => self.tables.open_partition(job.date).await?,
            Work::Rewrite | Work::Forget | Work::Remove(_) | Work::Mark(..) => {
                let open = self.tables.open_partition(job.date).await?;
                // A run that was taken over must not replace newer files. Those that come from now on, a put refuses.
                self.lease.prove().await?;
                open
            }
        };
        let is_alone =
            !open.has(Table::Conversations) && matches!((&job.work, job.flushes.as_slice()), (Work::Compact, [_]));
        // Only a merge leaves out what must not come back.
        let may_be_promoted = is_alone && self.suppression.is_empty();
        let bytes = open.bytes().saturating_add(job.staged_bytes());
        let (open, lane) = self.enter(open, bytes).await?;
        let (found, staged) = if Lanes::are_small(bytes) {
            let loading = if may_be_promoted { Loading::Everything } else { Loading::Rows };
            tokio::try_join!(open.load(), self.staged(job, loading))?
        } else {
            let is_promoted = may_be_promoted && job.staged_bytes() <= PROMOTED_BYTES;
            let loading = if is_promoted { Loading::Everything } else { Loading::Nothing };
            (open.not_read(), self.staged(job, loading).await?)
        };
        let (worker, own, runtime) = (self.clone(), Arc::clone(job), Handle::current());
        let make = move || {
            let Worker { lake, tables, lease, suppression, .. } = &worker;
            DateTables { lake, tables, lease, suppression, job: &own, found: &found, runtime: &runtime }.make(&staged)
        };
        let made = self.lanes.work(&lane, make).await??;
        made.finish(&self.lease).await
    }

    /// Takes a lane, unless the compaction stops.
    async fn enter(&self, open: OpenPartition, bytes: u64) -> Result<(OpenPartition, Lane)> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Error::interrupted()),
            entered = open.enter(&self.lanes, bytes) => entered,
        }
    }

    /// The staged files of the job, read into memory as `loading` says.
    async fn staged(&self, job: &Job, loading: Loading) -> Result<Vec<StagedPart>> {
        try_join_all(job.flushes.iter().map(|flush| self.staged_part(job.date, flush, loading))).await
    }

    async fn staged_part(&self, date: CreatedDate, flush: &JobFlush, loading: Loading) -> Result<StagedPart> {
        let files = Table::ALL.map(|table| self.staged_file(date, flush, table, loading));
        let mut files = try_join_all(files).await?.into_iter();
        let missing = || Error::bug("fewer staged files than tables were loaded");
        let files = PerTable::try_from_fn(|_| files.next().ok_or_else(missing))?;
        Ok(StagedPart { extent: flush.extent, overlap: flush.overlap, files })
    }

    async fn staged_file(
        &self,
        date: CreatedDate,
        JobFlush { flush, extent, .. }: &JobFlush,
        table: Table,
        loading: Loading,
    ) -> Result<FoundFile> {
        let key = layout::staged_file(table, date, flush);
        // What is kept is not needed again, even if it is not loaded now.
        let kept = self.lake.kept_files().take(&key);
        let file = FoundFile::named_once(key, *extent.bytes.get(table));
        let wanted = match loading {
            Loading::Nothing => false,
            Loading::Rows => *extent.rows.get(table) > 0,
            Loading::Everything => true,
        };
        match kept.filter(|_| wanted) {
            Some(body) => Ok(file.with_body(body)),
            None if wanted => file.load(self.lake.store()).await,
            None => Ok(file),
        }
    }
}
