//! A walk over a window, as a checkpoint records it.
//!
//! Must not depend on: how pages are fetched.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::model::{Cursor, Request};

/// A walk over a window, page by page, and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// The request, the same for every page.
    pub request: Request,
    /// When it began, by the server's clock once the server has answered.
    pub started_at: DateTime<Utc>,
    /// Where its next page begins; `None` before the first page.
    pub cursor: Option<Cursor>,
    /// The `page_size` with which the cursor came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// The newest change seen.
    pub newest_change: Option<DateTime<Utc>>,
    /// Pages staged.
    pub pages: u64,
    /// Versions of conversations staged.
    pub conversations: u64,
    /// How long before its start the watermark is, if no version says when it changed.
    #[serde(default)]
    pub overlap_secs: u64,
}

/// What a walk is for. The kinds are resumed and finished differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The incremental export, which has at most one walk.
    Incremental,
    /// A backfill, identified by its window.
    Backfill,
    /// A reconciliation; there is at most one.
    Reconcile,
}

impl Walk {
    /// Creates a walk at its beginning.
    pub fn new(request: Request, started_at: DateTime<Utc>) -> Self {
        Walk {
            request,
            started_at,
            cursor: None,
            page_size: None,
            newest_change: None,
            pages: 0,
            conversations: 0,
            overlap_secs: 0,
        }
    }

    /// The watermark that the complete walk allows: the newest change seen or, if no version says when it changed, its
    /// start less the overlap. Never later than its start; `None` if it saw nothing.
    pub(super) fn reached(&self) -> Option<DateTime<Utc>> {
        match self.newest_change {
            Some(newest) => Some(newest.min(self.started_at)),
            None if self.conversations == 0 => None,
            None => {
                let overlap = i64::try_from(self.overlap_secs).ok().and_then(TimeDelta::try_seconds)?;
                self.started_at.checked_sub_signed(overlap)
            }
        }
    }
}
