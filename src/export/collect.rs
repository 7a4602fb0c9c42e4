//! The second stage: flattens pages and gathers their rows until there are enough for landing objects.

use std::time::Duration;

use arrow_array::RecordBatch;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::Progress;
use super::walk::Step;
use crate::api::Fetched;
use crate::clock::{Clock, Instant};
use crate::error::Result;
use crate::flatten::{self, Batch, Origin, Reject};
use crate::lake::Walk;
use crate::merge::{changed_at, time};
use crate::model::{CreatedDate, RunId, Table, TimestampFilter, Window, column, from_micros};

/// When gathered rows are landed. Many small objects cost requests and slow readers down; a crash costs what was not
/// landed yet.
#[derive(Debug, Clone, Copy)]
pub struct FlushPolicy {
    /// After this many conversations.
    pub max_conversations: u64,
    /// After this many bytes of JSON, which is about what they take in memory.
    pub max_bytes: u64,
    /// After this much time.
    pub max_age: Duration,
}

/// Rows to be landed together, and how far the walk has come with them.
pub(super) struct Flush {
    pub(super) pages: Vec<FlatPage>,
    pub(super) rejects: Vec<Reject>,
    /// The walk after these pages.
    pub(super) walk: Walk,
    /// Whether the walk is complete with them.
    pub(super) done: bool,
    pub(super) page_bytes: u64,
    pub(super) page_count: u64,
    pub(super) outside_window: u64,
}

/// A page's rows and which of its conversations to land.
pub(super) struct FlatPage {
    pub(super) batch: Batch,
    /// The rows to land, with their dates.
    pub(super) kept: Vec<(CreatedDate, usize)>,
}

/// What the second stage needs to know.
pub(super) struct Collector {
    pub(super) run_id: RunId,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) policy: FlushPolicy,
    pub(super) progress: watch::Sender<Progress>,
    /// The walk as far as it is collected.
    pub(super) walk: Walk,
}

impl Collector {
    /// Flattens `pages` until they end, and sends what is to be landed down `flushes`. Runs on a blocking thread.
    ///
    /// A place in `flushes` is taken before a flush is begun, so that no more than two are in memory: the one being
    /// landed, and the one being gathered or waiting.
    ///
    /// # Errors
    /// Only on a bug.
    pub(super) fn collect(mut self, mut pages: mpsc::Receiver<Step>, flushes: &mpsc::Sender<Flush>) -> Result<()> {
        let mut seq = 0;
        // Where the stage behind has failed, there is no place any more, and it will say why.
        while let Ok(place) = self.runtime.block_on(flushes.reserve()) {
            let mut flush = self.empty_flush();
            let opened = self.clock.instant();
            while !flush.done && !self.is_due(&flush, opened) {
                // At a walk that was cut short, what is there is landed all the same.
                let Some(step) = self.next_page(&mut pages, &flush, opened) else { break };
                flush.done = step.next.is_none();
                self.add(&mut flush, step, &mut seq)?;
            }
            if flush.page_count == 0 {
                break;
            }
            place.send(flush);
        }
        Ok(())
    }

    /// Waits for the next page, but no longer than what is gathered may wait; `None` where it is time to land, or the
    /// pages have ended.
    fn next_page(&self, pages: &mut mpsc::Receiver<Step>, flush: &Flush, opened: Instant) -> Option<Step> {
        match opened.checked_add(self.policy.max_age).filter(|_| flush.page_count > 0) {
            None => pages.blocking_recv(),
            Some(deadline) => self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    step = pages.recv() => step,
                    () = self.clock.sleep_until(deadline) => None,
                }
            }),
        }
    }

    fn empty_flush(&self) -> Flush {
        Flush {
            pages: Vec::new(),
            rejects: Vec::new(),
            walk: self.walk.clone(),
            done: false,
            page_bytes: 0,
            page_count: 0,
            outside_window: 0,
        }
    }

    fn is_due(&self, flush: &Flush, opened: Instant) -> bool {
        if flush.page_count == 0 {
            return false;
        }
        let rows: usize = flush.pages.iter().map(|page| page.kept.len()).sum();
        count(rows) >= self.policy.max_conversations
            || flush.page_bytes >= self.policy.max_bytes
            || self.clock.instant() - opened >= self.policy.max_age
    }

    fn add(&mut self, flush: &mut Flush, step: Step, seq: &mut i64) -> Result<()> {
        let Step { fetched: Fetched { page, received_at }, next } = step;
        let origin = Origin { run_id: &self.run_id, exported_at: received_at, first_seq: *seq };
        let mut batch = flatten::flatten(page.conversations(), &origin)?;
        *seq = seq.saturating_add(i64::try_from(page.len()).unwrap_or(i64::MAX));
        flush.rejects.append(&mut batch.rejects);

        let rows = batch.tables.get(Table::Conversations);
        let window = self.walk.request.window;
        let (mut newest_on_page, mut reached) = (None, None);
        let mut kept = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let changed = changed(&batch, row);
            newest_on_page = newest_on_page.max(changed);
            let meant = asked_for(&window, rows, row);
            reached = reached.max(meant.or(changed));
            if is_outside(&window, meant) {
                flush.outside_window += 1;
            } else {
                kept.push((CreatedDate::of(instant(rows, column::CREATED_AT, row)), row));
            }
        }

        self.walk.pages += 1;
        self.walk.conversations = self.walk.conversations.saturating_add(count(kept.len()));
        self.walk.newest_change = self.walk.newest_change.max(newest_on_page);
        self.walk.cursor = next;
        self.progress.send_modify(|progress| {
            progress.pages += 1;
            progress.conversations = progress.conversations.saturating_add(count(page.len()));
            progress.first = progress.first.or(reached);
            progress.reached = reached.or(progress.reached);
        });
        flush.page_bytes = flush.page_bytes.saturating_add(count(page.bytes()));
        flush.page_count += 1;
        flush.walk = self.walk.clone();
        if !kept.is_empty() {
            flush.pages.push(FlatPage { batch, kept });
        }
        Ok(())
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// When the copy in `row` last changed.
fn changed(batch: &Batch, row: usize) -> Option<DateTime<Utc>> {
    let children =
        [Table::Messages, Table::AuditLogs].map(|table| (batch.tables.get(table).as_ref(), batch.children(table, row)));
    changed_at(batch.tables.get(Table::Conversations), row, children).and_then(from_micros)
}

/// Whether a copy, by the time of it that the window means, is known to lie outside. Nobody says whether the API's bounds are inclusive, so a window
/// with an end is asked for a little too widely, and made exact here. What a copy does not say, the API alone knows: a
/// late rating may move an `updated_at` that an account never shows.
fn is_outside(window: &Window, meant: Option<DateTime<Utc>>) -> bool {
    window.to.is_some() && meant.is_some_and(|time| !window.contains(time))
}

/// The time of a copy that the window means, as far as the copy tells it.
fn asked_for(window: &Window, rows: &RecordBatch, row: usize) -> Option<DateTime<Utc>> {
    let meant = match window.filter {
        TimestampFilter::UpdatedAt => column::UPDATED_AT,
        TimestampFilter::CreatedAt => column::CREATED_AT,
        TimestampFilter::LastMessageTime => column::LAST_MESSAGE_AT,
    };
    instant(rows, meant, row)
}

fn instant(rows: &RecordBatch, name: &str, row: usize) -> Option<DateTime<Utc>> {
    time(rows, name, row).and_then(from_micros)
}
