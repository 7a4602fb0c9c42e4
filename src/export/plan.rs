//! Decides which window a run walks: a new one, or the one that an interrupted run left.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::lake::{Checkpoint, Purpose, Walk};
use crate::model::{Request, Window};

/// What an incremental export is asked for.
#[derive(Debug, Clone)]
pub struct Export {
    /// How far before the watermark the next window begins.
    pub overlap: Duration,
    /// Whether to begin anew where an earlier run was interrupted.
    pub restart: bool,
    /// The `page_size` to send, if any.
    pub page_size: Option<u32>,
    /// The `user_filters` to send, if any.
    pub user_filters: Option<Value>,
}

/// What a backfill is asked for.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// The range.
    pub window: Window,
    /// Whether to begin anew where an earlier run was interrupted.
    pub restart: bool,
    /// The `page_size` to send, if any.
    pub page_size: Option<u32>,
    /// The `user_filters` to send, if any.
    pub user_filters: Option<Value>,
}

/// A walk to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Whose walk it is.
    pub purpose: Purpose,
    /// The walk, at its beginning or where it was left.
    pub walk: Walk,
    /// Whether an earlier run began it.
    pub resumed: bool,
}

impl Export {
    /// Plans the walk: the interrupted one first, else everything since the watermark, else the whole history.
    pub fn plan(&self, state: &Checkpoint, now: DateTime<Utc>) -> Planned {
        let purpose = Purpose::Incremental;
        let incremental = state.incremental.clone().unwrap_or_default();
        if let Some(walk) = incremental.walk.filter(|_| !self.restart) {
            return Planned { purpose, walk, resumed: true };
        }
        let mut window = Window::EVERYTHING;
        window.from = incremental.watermark.map(|watermark| {
            let overlap = chrono::Duration::from_std(self.overlap).unwrap_or(chrono::Duration::MAX);
            watermark.checked_sub_signed(overlap).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
        });
        let request = Request { window, page_size: self.page_size, user_filters: self.user_filters.clone() };
        Planned { purpose, walk: Walk::new(request, now), resumed: false }
    }
}

impl Backfill {
    /// Plans the walk: the interrupted one over the same range, or a new one.
    pub fn plan(&self, state: &Checkpoint, now: DateTime<Utc>) -> Planned {
        let purpose = Purpose::Backfill;
        if let Some(walk) = state.backfill(&self.window).filter(|_| !self.restart) {
            return Planned { purpose, walk: walk.clone(), resumed: true };
        }
        let request =
            Request { window: self.window, page_size: self.page_size, user_filters: self.user_filters.clone() };
        Planned { purpose, walk: Walk::new(request, now), resumed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn export(restart: bool) -> Export {
        Export { overlap: Duration::from_secs(600), restart, page_size: None, user_filters: None }
    }

    #[test]
    fn first_everything_then_the_rest_of_it_then_what_changed() {
        let mut state = Checkpoint::default();
        let first = export(false).plan(&state, at(10_000));
        assert_eq!(first.walk.request.window, Window::EVERYTHING);

        let mut walk = first.walk;
        walk.newest_change = Some(at(9_000));
        state.record(Purpose::Incremental, &walk, false);
        let again = export(false).plan(&state, at(20_000));
        assert!(again.resumed);
        assert_eq!(again.walk, walk, "a resumed walk asks for exactly the same");
        let anew = export(true).plan(&state, at(20_000));
        assert!(!anew.resumed && anew.walk.newest_change.is_none());

        state.record(Purpose::Incremental, &walk, true);
        let next = export(false).plan(&state, at(30_000));
        assert_eq!(next.walk.request.window.from, Some(at(8_400)));
        assert_eq!(next.walk.request.window.to, None);
    }

    #[test]
    fn a_backfill_resumes_its_own_range_only() {
        let window = |to| Window { from: Some(at(0)), to: Some(at(to)), ..Window::EVERYTHING };
        let backfill = |to| Backfill { window: window(to), restart: false, page_size: None, user_filters: None };
        let mut state = Checkpoint::default();
        let begun = backfill(50).plan(&state, at(100));
        state.record(Purpose::Backfill, &begun.walk, false);
        assert!(backfill(50).plan(&state, at(200)).resumed);
        assert!(!backfill(60).plan(&state, at(200)).resumed);
    }
}
