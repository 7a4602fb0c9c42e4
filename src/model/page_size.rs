//! How many conversations each request asks for, and what the API's answers teach about it.
//!
//! Guarantees: a failure makes the next request smaller or takes `page_size` out of it, at most once per failure, so
//! the limit of tries bounds both. A refusal counts only after the same request without `page_size` brought a page:
//! until then the cursor may be what the API refuses. If the cursor may count pages, no request asks for more than the
//! one before it. Must not depend on: I/O, and how failures are told apart.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;

/// The most that is asked for: the largest `page_size` of live clients (*live*).
const LARGEST: u32 = 1_000;
/// The least that is asked for.
const SMALLEST: u32 = 25;
/// The size of the API's own pages (*doc*: "up to 100 at a time").
pub const USUAL_PAGE: u32 = 100;
/// After how many pages the size grows at first. The number doubles with each failure that follows a success.
const PATIENCE: u32 = 4;
/// The most pages after which it grows.
const LONGEST_PATIENCE: u32 = 256;
/// How long a refusal counts, because the API may honor the parameter one day and asking costs one request.
const REFUSAL_LASTS: TimeDelta = TimeDelta::days(7);

/// What the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageSizeChoice {
    /// As many as the API answers well.
    #[default]
    Auto,
    /// The API decides: `page_size` is not sent.
    Unset,
    /// This many, whatever the API answers.
    Fixed(u32),
}

/// What earlier requests taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedPageSize {
    /// The size to begin with.
    size: u32,
    /// Pages that came since the size changed.
    #[serde(default)]
    pages: u32,
    /// After how many pages the size grows.
    #[serde(default)]
    patience: u32,
    /// When the API refused `page_size`, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused_at: Option<DateTime<Utc>>,
}

/// Why a request goes without `page_size`, although it should have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoSize {
    /// The API refused the request with it.
    Refused,
    /// The request failed with the smallest size, too.
    Failed,
}

/// The size that the next request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSize {
    choice: PageSizeChoice,
    /// `None` if nothing is known.
    learned: Option<LearnedPageSize>,
    /// Whether a refusal of an earlier run still counts.
    refused: bool,
    /// The most that the cursor of the walk allows; 0 if it allows no `page_size`.
    limit: u32,
    /// Whether the cursor of the walk may count pages.
    counts: bool,
    /// The largest page that came at the present size.
    usual: Option<u32>,
    without: Option<NoSize>,
    /// Whether no page came since the last failure.
    failing: bool,
    /// Whether the last page came only without `page_size`, after the request had failed with it.
    came_without: bool,
}

impl Default for PageSize {
    fn default() -> Self {
        PageSize::new(PageSizeChoice::Auto, None, DateTime::UNIX_EPOCH)
    }
}

impl LearnedPageSize {
    const NOTHING: LearnedPageSize = LearnedPageSize { size: LARGEST, pages: 0, patience: PATIENCE, refused_at: None };

    /// The same within the bounds of this release: another one, or a person, may have written it.
    fn within_bounds(self) -> Self {
        let (size, patience) = (self.size.clamp(SMALLEST, LARGEST), self.patience.clamp(PATIENCE, LONGEST_PATIENCE));
        LearnedPageSize { size, patience, ..self }
    }

    fn change(&mut self, size: u32) {
        (self.size, self.pages) = (size.clamp(SMALLEST, LARGEST), 0);
    }

    /// Counts a page, after which the size may grow.
    fn count(&mut self, may_grow: bool) {
        if self.size == LARGEST && self.patience == PATIENCE {
            return;
        }
        self.pages = self.pages.saturating_add(1).min(self.patience);
        if self.pages < self.patience {
            return;
        }
        if self.size == LARGEST {
            (self.pages, self.patience) = (0, PATIENCE);
        } else if may_grow {
            self.change(self.size.saturating_mul(2));
        }
    }
}

impl PageSize {
    /// Begins a run with what earlier runs learned.
    pub fn new(choice: PageSizeChoice, learned: Option<LearnedPageSize>, now: DateTime<Utc>) -> Self {
        let learned = learned.map(LearnedPageSize::within_bounds);
        let refused_at = learned.and_then(|learned| learned.refused_at);
        let refused = refused_at.is_some_and(|at| now.signed_duration_since(at) < REFUSAL_LASTS);
        PageSize {
            choice,
            learned,
            refused,
            limit: LARGEST,
            counts: false,
            usual: None,
            without: None,
            failing: false,
            came_without: false,
        }
    }

    /// The `page_size` of the next request; `None` if it has none.
    pub fn asked(&self) -> Option<u32> {
        match self.choice {
            PageSizeChoice::Unset => None,
            PageSizeChoice::Fixed(size) => Some(size),
            PageSizeChoice::Auto if self.refused || self.without.is_some() => None,
            PageSizeChoice::Auto => Some(self.known().size.min(self.limit)).filter(|size| *size > 0),
        }
    }

    /// What to keep for later runs.
    pub fn learned(&self) -> Option<LearnedPageSize> {
        self.learned
    }

    /// Begins a walk at `cursor`, which came with a page that was asked for with the size `brought_by`. If it may count
    /// pages, no larger ones are asked for, because a larger page of the same number begins behind conversations that
    /// have not come yet.
    pub fn begin_walk(&mut self, cursor: Option<&Cursor>, brought_by: Option<u32>) {
        self.counts = cursor.is_some_and(Cursor::may_count_pages);
        self.limit = if self.counts { brought_by.unwrap_or(0) } else { LARGEST };
    }

    /// Notes that the API refused the request. Returns whether to send it again without `page_size`.
    pub fn refused(&mut self) -> bool {
        let asked = self.asked().filter(|_| self.choice == PageSizeChoice::Auto);
        // Without it pages may be larger.
        let goes_without = asked.is_some_and(|asked| !self.counts || asked >= USUAL_PAGE);
        if goes_without {
            self.without = Some(NoSize::Refused);
        }
        goes_without
    }

    /// Notes a failure that a smaller page may avoid. Returns whether the next request is smaller.
    pub fn failed(&mut self) -> bool {
        if self.choice != PageSizeChoice::Auto {
            return false;
        }
        let Some(asked) = self.asked() else {
            self.without = self.without.filter(|why| *why == NoSize::Refused);
            return false;
        };
        if self.shrink(asked) {
            return true;
        }
        if !self.counts {
            // Perhaps the API fails because of the parameter itself.
            self.without = Some(NoSize::Failed);
        }
        false
    }

    /// Notes a response that was too large to read. Returns whether the next request is smaller.
    pub fn was_too_large(&mut self) -> bool {
        self.choice == PageSizeChoice::Auto && self.asked().is_some_and(|asked| self.shrink(asked))
    }

    /// Halves the size, or that of the pages that usually came if the API caps or ignores it.
    fn shrink(&mut self, asked: u32) -> bool {
        let mut learned = self.known();
        if !self.failing {
            learned.patience = learned.patience.saturating_mul(2).min(LONGEST_PATIENCE);
        }
        self.failing = true;
        let shrinks = asked > SMALLEST;
        if shrinks {
            learned.change(self.usual.map_or(asked, |usual| usual.max(USUAL_PAGE).min(asked)) / 2);
            self.usual = None;
        }
        self.learned = Some(learned);
        shrinks
    }

    /// Asks for more, because a page was too small to get past a second with many changes. Returns whether it can.
    pub fn enlarge(&mut self) -> bool {
        let mut learned = self.known();
        let may = self.choice == PageSizeChoice::Auto && !self.counts;
        let can = self.asked().is_some_and(|asked| may && asked < self.limit);
        if can {
            learned.change(learned.size.saturating_mul(2));
            self.learned = Some(learned);
            self.usual = None;
        }
        can
    }

    /// Notes that a page of `rows` conversations came, and the cursor of the next.
    pub fn came(&mut self, rows: usize, next: Option<&Cursor>, now: DateTime<Utc>) {
        if self.choice != PageSizeChoice::Auto {
            return;
        }
        let mut learned = self.known();
        let (without, asked) = (self.without.take(), self.asked());
        let came_without = without == Some(NoSize::Failed);
        // Once may be the end of an outage.
        if without == Some(NoSize::Refused) || came_without && self.came_without {
            learned.refused_at = Some(now);
            self.refused = true;
        } else if without.is_none() && asked.is_some() {
            learned.refused_at = None;
            if next.is_some() {
                self.usual = self.usual.max(u32::try_from(rows).ok());
            }
            let size = learned.size;
            learned.count(!self.counts && !next.is_some_and(Cursor::may_count_pages));
            if learned.size != size {
                self.usual = None;
            }
        }
        (self.failing, self.came_without) = (false, came_without);
        // Without a next cursor the same one may be sent again.
        self.counts = next.map_or(self.counts, Cursor::may_count_pages);
        self.learned = (asked.is_some() || without.is_some()).then_some(learned).or(self.learned);
    }

    /// Notes that the request is given up: why it failed is unknown.
    pub fn gave_up(&mut self) {
        self.without = None;
    }

    fn known(&self) -> LearnedPageSize {
        self.learned.unwrap_or(LearnedPageSize::NOTHING)
    }
}

#[cfg(test)]
mod tests;
