//! The third stage: encodes and uploads each flush, and commits it with the state of the walk.
//!
//! Guarantees: the checkpoint names only durable files, because it is written after all uploads have finished.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chrono::{Days, NaiveDate};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::collect::{BadRecord, FlatPage, Flush};
use super::encode::{EncodedFile, encode};
use crate::api::excerpt;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::files::WrittenFor;
use crate::flatten::Reject;
use crate::lake::{Extent, Lake, Ledger, Overlap, Purpose, RunReport, StagedFlush, State, Walk};
use crate::layout::{self, FlushId};
use crate::model::{CreatedDate, LakeColumns, RunId, Table};

/// How many files are uploaded to a local disk at a time; to other stores, as many as there may be calls.
const LOCAL_UPLOADS: usize = 16;
/// For how many days after their creation most conversations change.
const STILL_CHANGING: Days = Days::new(3);
/// How many encoded files wait for an upload.
const WAITING: usize = 4;

/// Stages flushes and commits them.
pub(super) struct Stager<'a> {
    pub(super) lake: &'a Lake,
    pub(super) columns: &'a LakeColumns,
    pub(super) ledger: &'a mut Ledger,
    pub(super) report: &'a mut RunReport,
    pub(super) clock: Clock,
    pub(super) purpose: Purpose,
    /// Whether to keep staged files in memory for a compaction.
    pub(super) keeps: bool,
    /// The number of the run's next flush, over all its walks.
    pub(super) next_flush: &'a mut u32,
}

impl Stager<'_> {
    /// Stages every flush that comes down `flushes`.
    ///
    /// # Errors
    /// If the store fails, or another run has committed. The flushes committed before stay.
    pub(super) async fn stage(mut self, mut flushes: mpsc::Receiver<Flush>) -> Result<()> {
        while let Some(flush) = flushes.recv().await {
            let id = FlushId { run: self.report.run_id.clone(), number: *self.next_flush };
            *self.next_flush = self.next_flush.saturating_add(1);
            self.stage_one(flush, id).await?;
        }
        Ok(())
    }

    async fn stage_one(&mut self, flush: Flush, id: FlushId) -> Result<()> {
        if !flush.bad_records.is_empty() {
            self.lake.store().put(&layout::quarantine(&id), quarantine_lines(&flush.bad_records, &id.run)?).await?;
        }
        let merged_soon = MergedSoon::of(self.ledger.state(), self.purpose, &flush);
        let dates = self.upload(flush.pages, id.clone(), merged_soon).await?;
        let staged = StagedFlush { flush: id, dates, overlap: self.overlap(&flush.walk) };

        let report = &mut *self.report;
        for extent in staged.dates.values() {
            report.staged_rows.add(&extent.rows);
            report.staged_bytes.add(&extent.bytes);
            report.staged_files += Table::ALL.len() as u64;
        }
        report.pages += flush.page_count;
        report.page_bytes += flush.page_bytes;
        report.outside_window += flush.outside_window;
        report.full_pages_without_cursor += flush.full_pages_without_cursor;
        report.ends_without_cursor_field += flush.ends_without_cursor_field;
        report.repaired += flush.repaired;
        if let (0, Some((field, value))) = (report.unreadable_times, &flush.counts.unreadable_times.example) {
            tracing::warn!(
                "cannot read the time {} in {field}; such values are kept in `extra` and counted in the report",
                excerpt(value),
            );
        }
        report.unreadable_times += flush.counts.unreadable_times.count;
        report.fields_without_column.keep(&flush.counts.fields_without_column);
        report.metadata_misfits.keep(&flush.counts.metadata_misfits);
        let quarantined = flush.bad_records.len() as u64;
        report.quarantined += quarantined;

        tracing::debug!(
            pages = flush.page_count,
            dates = staged.dates.len(),
            reached = ?flush.walk.newest_change,
            "staged"
        );
        let mut state = self.ledger.state().clone();
        state.stage(staged);
        state.filter_support = flush.filter_support;
        state.page_size = flush.page_size;
        state.quarantined += quarantined;
        let unseen = state.fields_without_column.keep(&flush.counts.fields_without_column);
        match flush.done {
            true => state.complete_walk(self.purpose, &flush.walk),
            false => state.advance_walk(self.purpose, &flush.walk),
        }
        report.watermark = state.watermark();
        self.ledger.commit(state, &report.run_id, self.clock.now()).await?;
        if !unseen.is_empty() {
            let names: Vec<_> = unseen.iter().map(|name| excerpt(name)).collect();
            tracing::info!("new fields without a column, which are kept as JSON: {}", names.join(", "));
        }
        Ok(())
    }

    /// The time before the watermark that the walk fetches again, if it is an increment.
    fn overlap(&self, walk: &Walk) -> Option<Overlap> {
        let increment = self.purpose == Purpose::Incremental;
        let from = walk.request.window.from.filter(|_| increment)?;
        Some(Overlap { from, to: self.ledger.state().watermark()? })
    }

    /// Encodes `pages` on a blocking thread and uploads the files; returns their sizes by partition. The bytes of the
    /// flush bound those of the files that wait.
    async fn upload(
        &self,
        pages: Vec<FlatPage>,
        id: FlushId,
        merged_soon: MergedSoon,
    ) -> Result<BTreeMap<CreatedDate, Extent>> {
        let (store, kept) = (self.lake.store(), self.lake.kept_files());
        let uploads_at_once = if store.is_local() { LOCAL_UPLOADS } else { store.concurrency() };
        let (sender, mut receiver) = mpsc::channel::<EncodedFile>(WAITING);
        let columns = self.columns.clone();
        let encoding = tokio::task::spawn_blocking(move || {
            encode(
                &pages,
                &columns,
                &id,
                |date| merged_soon.written_for(date),
                |file| sender.blocking_send(file).is_ok(),
            )
        });
        let mut dates: BTreeMap<CreatedDate, Extent> = BTreeMap::new();
        let mut uploads = stream::poll_fn(|context| receiver.poll_recv(context))
            .map(|EncodedFile { table, date, key, rows, body }| async move {
                // What is kept has no spare memory.
                let body = if self.keeps { body.into_boxed_slice().into() } else { Bytes::from(body) };
                store.put(&key, body.clone()).await?;
                let bytes = body.len() as u64;
                if self.keeps {
                    kept.keep(key, body);
                }
                Ok::<_, Error>((date, table, rows, bytes))
            })
            .buffer_unordered(uploads_at_once);
        while let Some((date, table, rows, bytes)) = uploads.try_next().await? {
            let extent = dates.entry(date).or_default();
            *extent.rows.get_mut(table) = rows;
            *extent.bytes.get_mut(table) = bytes;
        }
        drop(uploads);
        encoding.await.map_err(|error| Error::bug("the encoder failed").caused_by(error))??;
        Ok(dates)
    }
}

/// Guesses which partitions have other rows, or will soon, so that compaction must merge their staged files. A listing
/// of the tables would cost more than a wrong guess.
struct MergedSoon {
    /// All partitions, because the tables are not empty.
    all: bool,
    /// Partitions that have staged files already.
    dates: BTreeSet<CreatedDate>,
    /// Partitions that reach to this date, because the walk goes on and is likely to return more of their
    /// conversations.
    from: Option<NaiveDate>,
}

impl MergedSoon {
    fn of(state: &State, purpose: Purpose, flush: &Flush) -> Self {
        let first_walk = state.watermark().is_none();
        let dates = flush.pages.iter().flat_map(|page| &page.kept).filter_map(|(date, _)| date.date());
        let newest = dates.max().filter(|_| !flush.done);
        MergedSoon {
            all: purpose == Purpose::Backfill || !first_walk,
            dates: state.staged.iter().flat_map(|flush| flush.dates.keys().copied()).collect(),
            from: newest.and_then(|newest| newest.checked_sub_days(STILL_CHANGING)),
        }
    }

    fn written_for(&self, date: CreatedDate) -> WrittenFor {
        let still_changing = date.last_day().zip(self.from).is_some_and(|(last, from)| last >= from);
        if self.all || still_changing || self.dates.contains(&date) { WrittenFor::Staging } else { WrittenFor::Table }
    }
}

/// Renders malformed entries for the quarantine, one line of JSON each.
fn quarantine_lines(bad_records: &[BadRecord], run_id: &RunId) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Line<'a> {
        run_id: &'a RunId,
        page: u64,
        seq: i64,
        byte_offset: Option<usize>,
        reason: &'a str,
        raw: &'a str,
    }
    let mut lines = Vec::new();
    for BadRecord { page, byte_offset, reject: Reject { raw, reason, seq } } in bad_records {
        let line = Line { run_id, page: *page, seq: *seq, byte_offset: *byte_offset, reason, raw };
        serde_json::to_writer(&mut lines, &line).map_err(|e| Error::bug("cannot write the quarantine").caused_by(e))?;
        lines.push(b'\n');
    }
    Ok(lines)
}
