//! The third stage: encodes and uploads each flush, and commits it with the state of the walk.
//!
//! Guarantees: the checkpoint names only durable files, because it is put after all uploads have finished. Whatever
//! the run does between two flushes, the pages that were fetched are staged.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Days;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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
use crate::policy::Quarantined;

/// How many files are uploaded to a local disk at a time; to other stores, as many as there may be calls.
const LOCAL_UPLOADS: usize = 16;
/// For how many days after their creation most conversations change.
const STILL_CHANGING: Days = Days::new(3);
/// How many encoded files wait for an upload.
const WAITING: usize = 4;

/// What a run does besides, while its walk goes on: it may compact what is staged.
#[async_trait]
pub trait Meanwhile: Send + Sync {
    /// Called after each flush was committed, except after the last. The fetcher goes on until the channels between the
    /// stages are full.
    ///
    /// # Errors
    /// End the walk, but the pages that were fetched are staged before.
    async fn after_flush(&mut self, run: Lent<'_>, flushed: Flushed<'_>) -> Result<()>;
}

/// What a walk lends of its run between two flushes.
pub struct Lent<'a> {
    /// The ledger to commit to.
    pub ledger: &'a mut Ledger,
    /// The report to fill in.
    pub report: &'a mut RunReport,
    /// The number of the run's next flush or file.
    pub next_file: &'a mut u32,
}

/// A flush that was committed.
pub struct Flushed<'a> {
    /// Its pages.
    pub pages: u64,
    /// Partitions of a first walk that are likely to get no more rows, and that were not compacted yet; whoever compacts
    /// them takes them out.
    pub settled: &'a mut BTreeSet<CreatedDate>,
}

/// Stages flushes and commits them.
pub(super) struct Stager<'a> {
    pub(super) lake: &'a Lake,
    pub(super) columns: &'a LakeColumns,
    pub(super) ledger: &'a mut Ledger,
    pub(super) report: &'a mut RunReport,
    pub(super) clock: Clock,
    pub(super) purpose: Purpose,
    /// What the run does between two flushes, if anything.
    pub(super) meanwhile: Option<&'a mut dyn Meanwhile>,
    pub(super) seen: SeenPartitions,
    /// The number of the run's next flush or file.
    pub(super) next_file: &'a mut u32,
}

impl Stager<'_> {
    /// Stages every flush that comes down `flushes`. Cancels `stop` at a failure, because more pages are of no use then.
    ///
    /// # Errors
    /// If the store fails, another run has committed, or what the run does meanwhile fails. The flushes committed before
    /// stay.
    pub(super) async fn stage(mut self, flushes: mpsc::Receiver<Flush>, stop: &CancellationToken) -> Result<()> {
        let result = self.stage_all(flushes, stop).await;
        stop.cancel();
        result
    }

    async fn stage_all(&mut self, mut flushes: mpsc::Receiver<Flush>, stop: &CancellationToken) -> Result<()> {
        let mut result = Ok(());
        while let Some(flush) = flushes.recv().await {
            let id = FlushId { run: self.report.run_id.clone(), number: *self.next_file };
            *self.next_file = self.next_file.saturating_add(1);
            let (pages, last) = (flush.page_count, flush.last);
            self.stage_one(flush, id).await?;
            if !last && !stop.is_cancelled() {
                result = self.meanwhile(pages).await;
                if result.is_err() {
                    stop.cancel();
                }
            }
        }
        result
    }

    async fn meanwhile(&mut self, pages: u64) -> Result<()> {
        let Some(meanwhile) = &mut self.meanwhile else { return Ok(()) };
        let run = Lent { ledger: self.ledger, report: self.report, next_file: self.next_file };
        meanwhile.after_flush(run, Flushed { pages, settled: &mut self.seen.settled }).await
    }

    async fn stage_one(&mut self, flush: Flush, id: FlushId) -> Result<()> {
        if !flush.bad_records.is_empty() {
            self.lake.store().put(&layout::quarantine(&id), quarantine_lines(&flush.bad_records, &id.run)?).await?;
        }
        let dates = flush.pages.iter().flat_map(|page| &page.kept).map(|(date, _)| *date).collect();
        let written_for = self.seen.written_for(dates, flush.last);
        let dates = self.upload(flush.pages, id.clone(), written_for).await?;
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
        report.hits.add(&flush.hits);
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
        written_for: BTreeMap<CreatedDate, WrittenFor>,
    ) -> Result<BTreeMap<CreatedDate, Extent>> {
        let (store, kept) = (self.lake.store(), self.lake.kept_files());
        // A compaction of the same run reads them soon; those on a local disk are in the system's memory.
        let keeps = self.meanwhile.is_some() && !store.is_local();
        let uploads_at_once = if store.is_local() { LOCAL_UPLOADS } else { store.concurrency() };
        let (sender, mut receiver) = mpsc::channel::<EncodedFile>(WAITING);
        let columns = self.columns.clone();
        let encoding = tokio::task::spawn_blocking(move || {
            encode(
                &pages,
                &columns,
                &id,
                |date| written_for.get(&date).copied().unwrap_or(WrittenFor::Staging),
                |file| sender.blocking_send(file).is_ok(),
            )
        });
        let mut dates: BTreeMap<CreatedDate, Extent> = BTreeMap::new();
        let mut uploads = stream::poll_fn(|context| receiver.poll_recv(context))
            .map(|EncodedFile { table, date, key, rows, body }| async move {
                // What is kept has no spare memory.
                let body = if keeps { body.into_boxed_slice().into() } else { Bytes::from(body) };
                store.put_unsynced(&key, body.clone()).await?;
                let bytes = body.len() as u64;
                if keeps {
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

/// The partitions that a walk has staged files of. Guesses which of them have other rows or will soon, so that
/// compaction must merge them. A listing of the tables would cost more than a wrong guess.
pub(super) struct SeenPartitions {
    /// Whether all partitions are likely to have other rows, because the tables are not empty.
    all_merged: bool,
    /// Partitions that have been staged.
    dates: BTreeSet<CreatedDate>,
    /// Those that were not compacted since.
    open: BTreeSet<CreatedDate>,
    /// Those of them that the walk is past.
    settled: BTreeSet<CreatedDate>,
}

impl SeenPartitions {
    pub(super) fn of(state: &State, purpose: Purpose) -> Self {
        let dates: BTreeSet<_> = state.staged.iter().flat_map(|flush| flush.dates.keys().copied()).collect();
        let all_merged = purpose == Purpose::Backfill || state.watermark().is_some();
        SeenPartitions { all_merged, open: dates.clone(), dates, settled: BTreeSet::new() }
    }

    /// What the files of a flush with these partitions are written for; it may be the walk's `last`.
    fn written_for(&mut self, dates: BTreeSet<CreatedDate>, last: bool) -> BTreeMap<CreatedDate, WrittenFor> {
        let newest = dates.iter().filter_map(|date| date.date()).max().filter(|_| !last);
        // A walk that goes on is likely to return more conversations of the days before.
        let changing_since = newest.and_then(|newest| newest.checked_sub_days(STILL_CHANGING));
        let still_changing =
            |date: &CreatedDate| date.last_day().zip(changing_since).is_some_and(|(last, since)| last >= since);
        let mut written_for = BTreeMap::new();
        for date in dates {
            let is_new = self.dates.insert(date);
            if is_new {
                self.open.insert(date);
            }
            let is_alone = is_new && !still_changing(&date) && !self.all_merged;
            written_for.insert(date, if is_alone { WrittenFor::Table } else { WrittenFor::Staging });
        }
        if !self.all_merged {
            self.settled.extend(self.open.iter().filter(|date| !still_changing(date)));
            self.open.retain(still_changing);
        }
        written_for
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
        #[serde(skip_serializing_if = "Option::is_none")]
        raw: Option<&'a str>,
        #[serde(flatten)]
        governed: Option<GovernedLine<'a>>,
    }
    /// What a policy adds.
    #[derive(Serialize)]
    struct GovernedLine<'a> {
        bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        hmac: Option<&'a str>,
        policy: &'a str,
    }
    let mut lines = Vec::new();
    for BadRecord { page, byte_offset, reject: Reject { raw, reason, seq }, governed } in bad_records {
        let (raw, governed) = match governed {
            None => (Some(raw.as_str()), None),
            Some((Quarantined { raw, bytes, hmac }, policy)) => {
                (raw.as_deref(), Some(GovernedLine { bytes: *bytes, hmac: hmac.as_deref(), policy }))
            }
        };
        let line = Line { run_id, page: *page, seq: *seq, byte_offset: *byte_offset, reason, raw, governed };
        serde_json::to_writer(&mut lines, &line).map_err(|e| Error::bug("cannot write the quarantine").caused_by(e))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dates(days: &[u32]) -> BTreeSet<CreatedDate> {
        let of = |day: &u32| format!("2024-03-{day:02}").parse().unwrap();
        days.iter().map(of).collect()
    }

    /// The dates whose files are written for the tables.
    fn for_tables(seen: &mut SeenPartitions, days: &[u32], last: bool) -> BTreeSet<CreatedDate> {
        let written_for = seen.written_for(dates(days), last);
        assert!(written_for.keys().eq(&dates(days)));
        written_for.into_iter().filter(|(_, purpose)| *purpose == WrittenFor::Table).map(|(date, _)| date).collect()
    }

    #[test]
    fn a_partition_is_settled_once_and_when_the_walk_is_days_past_it() {
        let mut seen = SeenPartitions::of(&State::default(), Purpose::Incremental);
        assert_eq!(for_tables(&mut seen, &[1, 2, 3, 6], false), dates(&[1, 2]));
        assert_eq!(seen.settled, dates(&[1, 2]));
        seen.settled.clear();
        assert_eq!(for_tables(&mut seen, &[1, 6, 7, 8, 12], false), dates(&[7, 8]), "the others have rows already");
        assert_eq!(seen.settled, dates(&[3, 6, 7, 8]), "what the first has since is left for the end");
        assert_eq!(for_tables(&mut seen, &[2, 12, 13], true), dates(&[13]), "the walk does not go on");
        assert_eq!(seen.settled, dates(&[3, 6, 7, 8, 12, 13]));
    }

    #[test]
    fn no_partition_is_settled_if_the_tables_have_rows() {
        let mut seen = SeenPartitions::of(&State::default(), Purpose::Backfill);
        assert_eq!(for_tables(&mut seen, &[1, 9], true), dates(&[]));
        assert_eq!(seen.settled, dates(&[]));
    }
}
