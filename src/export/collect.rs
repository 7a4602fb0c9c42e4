//! The second stage: flattens pages and gathers their rows into flushes.
//!
//! Guarantees: at most two flushes are in memory, because a flush begins only after the channel to the next stage has
//! reserved a place for it. Must not depend on: the store.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::bad_record::{BadRecord, bad_records, seq_of};
use super::fetch::Step;
use super::filter_support;
use super::govern::Governor;
use super::inspect::{AnswerTimes, Inspected, inspect};
use super::last_page::{LastPage, NewestSeen};
use super::progress::Progress;
use super::sieve::Sieve;
use crate::api::{Fetched, Quotes};
use crate::clock::{Clock, Instant};
use crate::error::Result;
use crate::flatten::{self, Batch, Counts, Origin};
use crate::lake::{FilterSupport, FlushNotes, Support, Suppression, Walk};
use crate::model::{CreatedDate, LakeColumns, LearnedPageSize, PartitionBy, RunId};
use crate::policy::RuleHits;

/// When gathered rows are staged. Small files cost requests and slow readers down; a crash loses the rows gathered so
/// far.
#[derive(Debug, Clone, Copy)]
pub struct FlushPolicy {
    /// After this many conversations.
    pub max_conversations: u64,
    /// After this many bytes of JSON, which is about the memory that they take.
    pub max_bytes: u64,
    /// After this many pages.
    pub max_pages: u64,
    /// After this much time.
    pub max_age: Duration,
}

impl Default for FlushPolicy {
    fn default() -> Self {
        FlushPolicy {
            max_conversations: 16_000,
            max_bytes: 32 << 20,
            max_pages: u64::MAX,
            max_age: Duration::from_secs(300),
        }
    }
}

/// What happens to a malformed entry of the export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBadRecord {
    /// Goes to quarantine; the run ends with exit code 6 after it has done everything else.
    #[default]
    Quarantine,
    /// Stops the run at once.
    Fail,
}

/// Pages to stage and commit together, and the state of the walk after them.
pub(super) struct Flush {
    pub(super) pages: Vec<FlatPage>,
    pub(super) bad_records: Vec<BadRecord>,
    /// The walk after these pages.
    pub(super) walk: Walk,
    /// Whether the API honors the filter, as known after these pages.
    pub(super) filter_support: FilterSupport,
    /// What the API's answers taught about the size of pages, up to these.
    pub(super) page_size: Option<LearnedPageSize>,
    /// Whether these are the last pages of the walk.
    pub(super) last: bool,
    /// Whether they complete it; if not, the API must be asked whether they do.
    pub(super) done: bool,
    pub(super) page_bytes: u64,
    pub(super) page_count: u64,
    pub(super) outside_window: u64,
    /// Versions of conversations that must not come back.
    pub(super) suppressed: u64,
    pub(super) full_pages_without_cursor: u64,
    pub(super) ends_without_cursor_field: u64,
    pub(super) repaired: u64,
    pub(super) counts: Counts,
    /// What the sieve noted of them.
    pub(super) noted: Option<FlushNotes>,
    /// How often the rules of the policy applied.
    pub(super) hits: RuleHits,
}

/// The rows of a page.
pub(super) struct FlatPage {
    pub(super) batch: Batch,
    /// The conversations to stage, with their partitions.
    pub(super) kept: Vec<(CreatedDate, usize)>,
}

/// The second stage.
pub(super) struct Collector {
    pub(super) run_id: RunId,
    pub(super) columns: LakeColumns,
    /// The conversations that must not come back.
    pub(super) suppression: Arc<Suppression>,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) policy: FlushPolicy,
    pub(super) progress: watch::Sender<Option<Progress>>,
    pub(super) on_bad_record: OnBadRecord,
    /// The policy, if the lake has one.
    pub(super) governor: Option<Governor>,
    /// How much time a partition of the lake covers.
    pub(super) partition_by: PartitionBy,
    /// The walk, as far as it is collected.
    pub(super) walk: Walk,
    /// Whether the API honors the filter, as known so far.
    pub(super) filter_support: FilterSupport,
    /// The position in the run of the next conversation.
    pub(super) next_seq: i64,
    /// The newest conversations that this run has seen in the walk.
    pub(super) newest_seen: NewestSeen,
    /// The newest change when this run resumed the walk.
    pub(super) resumed_at: Option<DateTime<Utc>>,
    /// What decides which versions are staged; `None` stages all.
    pub(super) sieve: Option<Box<dyn Sieve>>,
}

/// How the pages ended.
#[derive(Debug)]
pub(super) enum End {
    /// The walk is complete, or was interrupted.
    Settled,
    /// The last page is staged, but the API must be asked whether the walk is complete.
    Unsettled(Box<Unsettled>),
}

/// A walk whose last page has come, but which may be incomplete.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// The walk, whose cursor stays at its last page until it is settled.
    pub(super) walk: Walk,
    /// Whether it must be found out if the API honors `timestamp_filter`.
    pub(super) filter_unknown: bool,
    /// The last page, if it is full and has no cursor.
    pub(super) last_page: Option<LastPage>,
}

/// The result of collecting a walk, or a part of it.
pub(super) struct Collected {
    pub(super) end: End,
    /// The position in the run of the next conversation.
    pub(super) next_seq: i64,
    /// The newest conversations that this run has seen in the walk.
    pub(super) newest_seen: NewestSeen,
    /// The sieve, for the next walk.
    pub(super) sieve: Option<Box<dyn Sieve>>,
}

impl Collector {
    /// Flattens `pages` until they end, and sends flushes down `flushes`. Runs on a blocking thread.
    ///
    /// # Errors
    /// Kind `Integrity` at a bad record if the run is to stop at one; the pages before it are sent.
    pub(super) fn collect(
        mut self,
        mut pages: mpsc::Receiver<Step>,
        flushes: &mpsc::Sender<Flush>,
    ) -> Result<Collected> {
        let mut end = End::Settled;
        // If the next stage has failed, there is no place any more, and that stage reports why.
        while let Ok(place) = self.runtime.block_on(flushes.reserve()) {
            let mut flush = self.empty_flush();
            let opened = self.clock.instant();
            let mut added = Ok(());
            while added.is_ok() && !flush.done && !self.is_due(&flush, opened) {
                // An interrupted walk stages the pages that it has.
                let Some(step) = self.next_page(&mut pages, &flush, opened) else { break };
                let (last, last_page) = (step.next.is_none(), self.last_page(&step));
                added = self.add(&mut flush, step);
                flush.last = last;
                let filter_unknown = self.filter_unknown();
                match last && added.is_ok() {
                    true if filter_unknown || last_page.is_some() => {
                        let walk = self.walk.clone();
                        end = End::Unsettled(Box::new(Unsettled { walk, filter_unknown, last_page }));
                    }
                    done => flush.done = done,
                }
            }
            let empty = flush.page_count == 0;
            if !empty {
                flush.noted = self.sieve.as_mut().map(|sieve| sieve.take());
                place.send(flush);
            }
            added?;
            if empty {
                break;
            }
        }
        Ok(Collected { end, next_seq: self.next_seq, newest_seen: self.newest_seen, sieve: self.sieve })
    }

    /// Returns a full last page without a cursor, which may not be the last.
    fn last_page(&self, step: &Step) -> Option<LastPage> {
        let Fetched { page, answered_at, .. } = &step.fetched;
        step.full_without_cursor.then(|| LastPage {
            rows: page.len(),
            answered_at: *answered_at,
            other_fields: page.other_fields().to_vec(),
            resumed_at: self.resumed_at,
        })
    }

    /// Whether completeness depends on the filter, the rows do not prove that it is honored, and canaries may.
    fn filter_unknown(&self) -> bool {
        self.walk.request.window.depends_on_filter()
            && match filter_support::at(&self.filter_support, self.walk.started_at) {
                Some(Support::Honored) => false,
                Some(Support::Ignored) => true,
                None => !self.filter_support.canaries.is_empty(),
            }
    }

    /// Waits for the next page, but no longer than the gathered rows may wait; `None` if the flush is due or the pages
    /// have ended.
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
            page_size: None,
            last: false,
            done: false,
            page_bytes: 0,
            page_count: 0,
            outside_window: 0,
            suppressed: 0,
            full_pages_without_cursor: 0,
            ends_without_cursor_field: 0,
            repaired: 0,
            counts: Counts::default(),
            noted: None,
            hits: RuleHits::default(),
        }
    }

    fn is_due(&self, flush: &Flush, opened: Instant) -> bool {
        if flush.page_count == 0 {
            return false;
        }
        let rows: usize = flush.pages.iter().map(|page| page.kept.len()).sum();
        rows as u64 >= self.policy.max_conversations
            || flush.page_bytes >= self.policy.max_bytes
            || flush.page_count >= self.policy.max_pages
            || self.clock.instant() - opened >= self.policy.max_age
    }

    fn add(&mut self, flush: &mut Flush, step: Step) -> Result<()> {
        let Step { fetched, page_size: learned, next, full_without_cursor, end_without_field, permit } = step;
        let Fetched { page, page_size, answered_at, asked_at } = fetched;
        if self.walk.pages == 0 {
            self.walk.started_at = asked_at;
        }
        let origin = Origin { run_id: &self.run_id, exported_at: answered_at, first_seq: self.next_seq };
        let unwanted = |id: &str| self.suppression.contains(id);
        let mut batch = match &self.governor {
            None => flatten::flatten_except(page.conversations(), &self.columns, &origin, &unwanted)?,
            Some(governor) => governor.flatten(&page, &self.columns, &origin, &unwanted, &mut flush.hits)?,
        };
        let number = self.walk.pages + 1;
        let rejected = std::mem::take(&mut batch.rejects);
        let mut bad_records = bad_records(number, &page, self.next_seq, rejected);
        flush.suppressed +=
            bad_records.extract_if(.., |record| self.suppression.is_mentioned_in(&record.reject.raw)).count() as u64;
        if let Some(governor) = &self.governor {
            bad_records.iter_mut().try_for_each(|record| record.govern(governor))?;
        }
        if let (OnBadRecord::Fail, Some(first)) = (self.on_bad_record, bad_records.first()) {
            let quotes = if self.governor.is_some() { Quotes::Hidden } else { Quotes::Shown };
            return Err(first.failure(quotes));
        }
        let times = AnswerTimes { asked_at: self.walk.started_at, answered_at };
        let mut found = inspect(&batch, &self.walk.request.window, times, self.partition_by, &mut self.filter_support)?;
        flush.suppressed += self.suppress(&batch, &mut found)?;
        if let Some(sieve) = &mut self.sieve {
            sieve.sift(&batch, bad_records.len() as u64, &mut found.kept)?;
        }
        if let Some((id, time)) =
            found.stray.filter(|(id, _)| flush.outside_window == 0 && !self.suppression.contains(id))
        {
            let range = self.walk.request.window.describe().unwrap_or_default();
            tracing::warn!("the API returned conversation {id} of {time}, outside the requested range: {range}");
        }
        for (id, time) in batch.conversation_ids()?.iter().flatten().zip(&found.changes) {
            self.newest_seen.note(id, *time, answered_at);
        }
        self.next_seq = seq_of(self.next_seq, page.len() + page.broken().len());

        self.walk.pages = number;
        self.walk.conversations += found.kept.len() as u64;
        self.walk.newest_change = self.walk.newest_change.max(found.newest_change);
        if next.is_some() {
            (self.walk.cursor, self.walk.page_size) = (next, page_size);
        }
        self.progress.send_modify(|progress| {
            let Some(progress) = progress else { return };
            progress.pages += 1;
            progress.conversations += page.len() as u64;
            progress.first = progress.first.or(found.reached);
            progress.reached = found.reached.or(progress.reached);
        });
        flush.bad_records.extend(bad_records);
        flush.repaired += page.repaired() as u64;
        flush.ends_without_cursor_field += u64::from(end_without_field);
        flush.outside_window += found.outside;
        flush.full_pages_without_cursor += u64::from(full_without_cursor);
        flush.counts.add(std::mem::take(&mut batch.counts));
        flush.page_bytes += page.bytes() as u64;
        flush.page_count += 1;
        flush.walk = self.walk.clone();
        flush.filter_support = self.filter_support.clone();
        flush.page_size = learned;
        if !found.kept.is_empty() {
            flush.pages.push(FlatPage { batch, kept: found.kept });
        }
        // The memory of the page is free, so its permit is too.
        drop((page, permit));
        Ok(())
    }

    /// Takes the conversations that must not come back out of what was `found`, and returns how many there were.
    fn suppress(&mut self, batch: &Batch, found: &mut Inspected) -> Result<u64> {
        if self.suppression.is_empty() {
            return Ok(0);
        }
        let (ids, before) = (batch.conversation_ids()?, found.kept.len());
        found.kept.retain(|(_, row)| !self.suppression.contains(ids.value(*row)));
        self.filter_support.canaries.retain(|canary| !self.suppression.contains(&canary.conversation_id));
        Ok((before - found.kept.len()) as u64)
    }
}
