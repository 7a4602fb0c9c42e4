//! The second stage: flattens pages and gathers their rows until there are enough for landing objects.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::Progress;
use super::fetch::Step;
use super::filter_support;
use super::inspect::{AnswerTimes, inspect};
use super::last_page::{LastPage, Shown};
use crate::api::{Fetched, Page, excerpt};
use crate::clock::{Clock, Instant};
use crate::error::{Error, Result};
use crate::flatten::{self, Batch, Origin, Reject, UnreadableTimes};
use crate::lake::{FilterSupport, Support, Walk};
use crate::model::{CreatedDate, RunId};

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

/// What happens to a malformed entry of the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadRecord {
    /// Goes to quarantine; the run ends with exit code 6 after it has done everything else.
    Quarantine,
    /// Stops the run at once.
    Fail,
}

/// Rows to be landed together, and how far the walk has come with them.
pub(super) struct Flush {
    pub(super) pages: Vec<FlatPage>,
    pub(super) bad_records: Vec<BadRecord>,
    /// The walk after these pages.
    pub(super) walk: Walk,
    /// What is known of the API after these pages.
    pub(super) filter_support: FilterSupport,
    /// Whether the walk is complete with them.
    pub(super) done: bool,
    pub(super) page_bytes: u64,
    pub(super) page_count: u64,
    pub(super) outside_window: u64,
    pub(super) full_pages_without_cursor: u64,
    pub(super) ends_without_cursor_field: u64,
    pub(super) repaired: u64,
    pub(super) unreadable_times: UnreadableTimes,
}

/// An entry that is no conversation, the page of the walk that it came on, from 1, and where it began in the response.
pub(super) struct BadRecord {
    pub(super) page: u64,
    pub(super) byte_offset: Option<usize>,
    pub(super) reject: Reject,
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
    pub(super) on_bad_record: OnBadRecord,
    /// The walk as far as it is collected.
    pub(super) walk: Walk,
    /// What is known of the API.
    pub(super) filter_support: FilterSupport,
    /// The place in the run of the next conversation.
    pub(super) next_seq: i64,
    /// The newest conversations that this run has shown of the walk.
    pub(super) shown: Shown,
    /// How new the walk was when this run went on with it.
    pub(super) resumed_at: Option<DateTime<Utc>>,
}

/// How the pages ended.
#[derive(Debug)]
pub(super) enum End {
    /// The walk is complete, or was cut short.
    Settled,
    /// The last page has come and is landed, but whether that is all has to be asked.
    Unsettled(Box<Unsettled>),
}

/// A walk of which the last page has come.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The walk, which stands before that page until it is settled.
    pub(super) walk: Walk,
    /// Whether it depends on whether the API honours `timestamp_filter`.
    pub(super) lacks_verdict: bool,
    /// That page, where it is full and has no cursor.
    pub(super) last_page: Option<LastPage>,
}

/// What came of the pages.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) end: End,
    /// The place in the run of what comes next.
    pub(super) next_seq: i64,
    /// The newest conversations that this run has shown of the walk.
    pub(super) shown: Shown,
}

impl Collector {
    /// Flattens `pages` until they end, and sends what is to be landed down `flushes`. Runs on a blocking thread.
    ///
    /// A place in `flushes` is taken before a flush is begun, so that no more than two are in memory: the one being
    /// landed, and the one being gathered or waiting.
    ///
    /// # Errors
    /// Kind `Integrity` at a bad record where that is to stop the run; what came before its page is sent.
    pub(super) fn collect(
        mut self,
        mut pages: mpsc::Receiver<Step>,
        flushes: &mpsc::Sender<Flush>,
    ) -> Result<Collected> {
        let mut end = End::Settled;
        // Where the stage behind has failed, there is no place any more, and it will say why.
        while let Ok(place) = self.runtime.block_on(flushes.reserve()) {
            let mut flush = self.empty_flush();
            let opened = self.clock.instant();
            let mut added = Ok(());
            while added.is_ok() && !flush.done && !self.is_due(&flush, opened) {
                // At a walk that was cut short, what is there is landed all the same.
                let Some(step) = self.next_page(&mut pages, &flush, opened) else { break };
                let (last, last_page) = (step.next.is_none(), self.last_page(&step));
                added = self.add(&mut flush, step);
                let lacks_verdict = self.lacks_verdict();
                match last && added.is_ok() {
                    true if lacks_verdict || last_page.is_some() => {
                        let walk = self.walk.clone();
                        end = End::Unsettled(Box::new(Unsettled { walk, lacks_verdict, last_page }));
                    }
                    done => flush.done = done,
                }
            }
            let empty = flush.page_count == 0;
            if !empty {
                place.send(flush);
            }
            added?;
            if empty {
                break;
            }
        }
        Ok(Collected { end, next_seq: self.next_seq, shown: self.shown })
    }

    /// A full last page without a cursor, which may not be the last.
    fn last_page(&self, step: &Step) -> Option<LastPage> {
        let Fetched { page, answered_at, .. } = &step.fetched;
        step.full_without_cursor.then(|| LastPage {
            rows: page.len(),
            answered_at: *answered_at,
            others: page.other_fields().to_vec(),
            resumed_at: self.resumed_at,
        })
    }

    /// Whether it takes more than the rows that came to know that all have come, and more can be known.
    fn lacks_verdict(&self) -> bool {
        self.walk.request.window.depends_on_filter()
            && match filter_support::known(&self.filter_support, self.walk.started_at) {
                Some(Support::Honored) => false,
                Some(Support::Ignored) => true,
                None => !self.filter_support.canaries.is_empty(),
            }
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
            bad_records: Vec::new(),
            walk: self.walk.clone(),
            filter_support: self.filter_support.clone(),
            done: false,
            page_bytes: 0,
            page_count: 0,
            outside_window: 0,
            full_pages_without_cursor: 0,
            ends_without_cursor_field: 0,
            repaired: 0,
            unreadable_times: UnreadableTimes::default(),
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

    fn add(&mut self, flush: &mut Flush, step: Step) -> Result<()> {
        let Step { fetched, next, full_without_cursor, end_without_field, room } = step;
        let Fetched { page, answered_at, asked_at } = fetched;
        if self.walk.pages == 0 {
            self.walk.started_at = asked_at;
        }
        let origin = Origin { run_id: &self.run_id, exported_at: answered_at, first_seq: self.next_seq };
        let mut batch = flatten::flatten(page.conversations(), &origin)?;
        let number = self.walk.pages.saturating_add(1);
        let bad_records = self.bad_records(number, &page, std::mem::take(&mut batch.rejects));
        if let (OnBadRecord::Fail, Some(first)) = (self.on_bad_record, bad_records.first()) {
            return Err(refused(first));
        }
        let times = AnswerTimes { asked_at: self.walk.started_at, answered_at };
        let found = inspect(&batch, &self.walk.request.window, times, &mut self.filter_support)?;
        if let Some((id, time)) = found.stray.filter(|_| flush.outside_window == 0) {
            let asked = self.walk.request.window.told().unwrap_or_default();
            tracing::warn!(
                "the API sent what was not asked for: conversation {id} of {time}, where the range is {asked}"
            );
        }
        for (id, time) in batch.conversation_ids()?.iter().flatten().zip(&found.changes) {
            self.shown.note(id, *time, answered_at);
        }
        self.next_seq = self.seq_of(page.len().saturating_add(page.broken().len()));

        self.walk.pages = number;
        self.walk.conversations = self.walk.conversations.saturating_add(count(found.kept.len()));
        self.walk.newest_change = self.walk.newest_change.max(found.newest_change);
        if next.is_some() {
            self.walk.cursor = next;
        }
        self.progress.send_modify(|progress| {
            progress.pages += 1;
            progress.conversations = progress.conversations.saturating_add(count(page.len()));
            progress.first = progress.first.or(found.reached);
            progress.reached = found.reached.or(progress.reached);
        });
        flush.bad_records.extend(bad_records);
        flush.repaired = flush.repaired.saturating_add(count(page.repaired()));
        flush.ends_without_cursor_field += u64::from(end_without_field);
        flush.outside_window += found.outside;
        flush.full_pages_without_cursor += u64::from(full_without_cursor);
        flush.unreadable_times.add(std::mem::take(&mut batch.unreadable_times));
        flush.page_bytes = flush.page_bytes.saturating_add(count(page.bytes()));
        flush.page_count += 1;
        flush.walk = self.walk.clone();
        flush.filter_support = self.filter_support.clone();
        if !found.kept.is_empty() {
            flush.pages.push(FlatPage { batch, kept: found.kept });
        }
        // The page's text goes with its room.
        drop((page, room));
        Ok(())
    }

    /// The place in the run of what comes `behind` so many of the page at hand.
    fn seq_of(&self, behind: usize) -> i64 {
        self.next_seq.saturating_add(i64::try_from(behind).unwrap_or(i64::MAX))
    }

    /// The entries of a page that are no conversations: those that were `rejected`, and those that are broken beyond reading.
    fn bad_records(&self, number: u64, page: &Page, rejected: Vec<Reject>) -> Vec<BadRecord> {
        if page.repaired() > 0 || !page.broken().is_empty() {
            tracing::warn!(
                "page {number} of the export is malformed JSON: {} conversations were repaired, {} entries quarantined",
                page.repaired(),
                page.broken().len()
            );
        }
        let place = |seq: i64| usize::try_from(seq.saturating_sub(self.next_seq)).ok();
        let rejected = rejected.into_iter().map(|reject| BadRecord {
            page: number,
            byte_offset: place(reject.seq).and_then(|place| page.offset(place)),
            reject,
        });
        let broken = page.broken().iter().enumerate().map(|(place, broken)| BadRecord {
            page: number,
            byte_offset: Some(broken.offset),
            reject: Reject {
                raw: broken.raw.clone(),
                reason: broken.reason.clone(),
                seq: self.seq_of(page.len().saturating_add(place)),
            },
        });
        rejected.chain(broken).collect()
    }
}

fn refused(record: &BadRecord) -> Error {
    let BadRecord { page, reject: Reject { raw, reason, .. }, .. } = record;
    Error::integrity(format!(
        "page {page} of the export has an entry that is no conversation ({reason}): {}",
        excerpt(raw)
    ))
    .with_hint("what came before is landed; `--on-bad-record quarantine` sets such entries aside and goes on")
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
