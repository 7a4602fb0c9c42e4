//! The third stage: lands what was gathered and commits how far the walk has come.
//!
//! Promises: the checkpoint is written after everything it names is durable.

use std::collections::{BTreeMap, BTreeSet};

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
use crate::model::{CreatedDate, RunId, Table};

/// How many objects are uploaded at a time.
const UPLOADS: usize = 16;
/// For how many days most conversations go on changing after they began.
const STILL_CHANGING: Days = Days::new(3);
/// How many encoded objects wait for an upload.
const WAITING: usize = 4;

/// Lands flushes and commits them.
pub(super) struct Stager<'a> {
    pub(super) lake: &'a Lake,
    pub(super) ledger: &'a mut Ledger,
    pub(super) report: &'a mut RunReport,
    pub(super) clock: Clock,
    pub(super) purpose: Purpose,
    /// The number of the next flush of the run, over all its walks.
    pub(super) next_flush: &'a mut u32,
}

impl Stager<'_> {
    /// Lands everything that comes down `flushes`.
    ///
    /// # Errors
    /// Where the store fails, or another run has committed. What was committed before stays.
    pub(super) async fn land(mut self, mut flushes: mpsc::Receiver<Flush>) -> Result<()> {
        while let Some(flush) = flushes.recv().await {
            let id = FlushId { run: self.report.run_id.clone(), number: *self.next_flush };
            *self.next_flush = self.next_flush.saturating_add(1);
            self.land_one(flush, id).await?;
        }
        Ok(())
    }

    async fn land_one(&mut self, flush: Flush, id: FlushId) -> Result<()> {
        if !flush.bad_records.is_empty() {
            self.lake.store().put(&layout::quarantine(&id), quarantine_lines(&flush.bad_records, &id.run)?).await?;
        }
        let merged_soon = MergedSoon::of(self.ledger.state(), self.purpose, &flush);
        let dates = upload(self.lake, flush.pages, id.clone(), merged_soon).await?;
        let landed = StagedFlush { flush: id, dates, overlap: self.overlap(&flush.walk) };

        let report = &mut *self.report;
        for extent in landed.dates.values() {
            report.landed_rows.add(&extent.rows);
            report.landed_bytes.add(&extent.bytes);
            report.landed_objects += Table::ALL.len() as u64;
        }
        report.pages += flush.page_count;
        report.page_bytes += flush.page_bytes;
        report.outside_window += flush.outside_window;
        report.full_pages_without_cursor += flush.full_pages_without_cursor;
        report.ends_without_cursor_field += flush.ends_without_cursor_field;
        report.repaired += flush.repaired;
        if let (0, Some((field, value))) = (report.unreadable_times, &flush.unreadable_times.example) {
            tracing::warn!(
                "cannot read a time in {field}: {}; such values are kept in `extra` and counted in the report",
                excerpt(value)
            );
        }
        report.unreadable_times = report.unreadable_times.saturating_add(flush.unreadable_times.count);
        let set_aside = u64::try_from(flush.bad_records.len()).unwrap_or(u64::MAX);
        report.quarantined += set_aside;

        tracing::debug!(
            pages = flush.page_count,
            dates = landed.dates.len(),
            reached = ?flush.walk.newest_change,
            "landed"
        );
        let mut state = self.ledger.state().clone();
        if !landed.dates.is_empty() {
            state.landed.push(landed);
        }
        state.filter_support = flush.filter_support;
        state.set_aside = state.set_aside.saturating_add(set_aside);
        state.record(self.purpose, &flush.walk, flush.done);
        report.watermark = state.watermark();
        self.ledger.commit(state, &report.run_id, self.clock.now()).await
    }

    /// What the walk asks for again, if it is an increment.
    fn overlap(&self, walk: &Walk) -> Option<Overlap> {
        let increment = self.purpose == Purpose::Incremental;
        let from = walk.request.window.from.filter(|_| increment)?;
        Some(Overlap { from, to: self.ledger.state().watermark()? })
    }
}

/// Encodes the pages on a blocking thread and uploads what comes of it; returns what was landed, by date.
async fn upload(
    lake: &Lake,
    pages: Vec<FlatPage>,
    id: FlushId,
    merged_soon: MergedSoon,
) -> Result<BTreeMap<CreatedDate, Extent>> {
    let (sender, mut receiver) = mpsc::channel::<EncodedFile>(WAITING);
    let encoding = tokio::task::spawn_blocking(move || {
        encode(&pages, &id, |date| merged_soon.lifetime(date), |object| sender.blocking_send(object).is_ok())
    });
    let mut dates: BTreeMap<CreatedDate, Extent> = BTreeMap::new();
    let mut uploads = stream::poll_fn(|context| receiver.poll_recv(context))
        .map(|object| async move {
            let EncodedFile { table, date, key, rows, body } = object;
            let bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
            lake.store().put(&key, body).await.map(|()| (date, table, rows, bytes))
        })
        .buffer_unordered(UPLOADS);
    while let Some((date, table, rows, bytes)) = uploads.try_next().await? {
        let extent = dates.entry(date).or_default();
        *extent.rows.get_mut(table) = rows;
        *extent.bytes.get_mut(table) = bytes;
    }
    drop(uploads);
    encoding.await.map_err(|error| Error::bug("the encoder failed").caused_by(error))??;
    Ok(dates)
}

/// Which dates have something else already, or will soon, so that what is landed for them will be merged with it. A
/// guess: a listing of the tables would cost more than a wrong one.
struct MergedSoon {
    /// The tables are not empty.
    all: bool,
    /// What has landed before.
    dates: BTreeSet<CreatedDate>,
    /// The walk goes on, and what is of this date or a later one is likely to come again with it.
    from: Option<NaiveDate>,
}

impl MergedSoon {
    fn of(state: &State, purpose: Purpose, flush: &Flush) -> Self {
        let first_walk = state.watermark().is_none();
        let dates = flush.pages.iter().flat_map(|page| &page.kept).filter_map(|(date, _)| date.date());
        let newest = dates.max().filter(|_| !flush.done);
        MergedSoon {
            all: purpose == Purpose::Backfill || !first_walk,
            dates: state.landed.iter().flat_map(|landed| landed.dates.keys().copied()).collect(),
            from: newest.and_then(|newest| newest.checked_sub_days(STILL_CHANGING)),
        }
    }

    fn lifetime(&self, date: CreatedDate) -> WrittenFor {
        let still_changing = date.date().zip(self.from).is_some_and(|(date, from)| date >= from);
        if self.all || still_changing || self.dates.contains(&date) { WrittenFor::Staging } else { WrittenFor::Table }
    }
}

/// What was set aside, a line of JSON each.
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
