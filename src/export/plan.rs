//! Plans the walk of a run: a new one, or the rest of an interrupted one. Must not depend on: I/O.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::lake::{Purpose, State, Walk};
use crate::model::{Request, Window};

/// The settings of a new walk.
#[derive(Debug, Clone)]
pub struct Begin {
    /// Whether to discard an interrupted walk and start over.
    pub restart: bool,
    /// The `user_filters` to send, if any.
    pub user_filters: Option<Value>,
}

/// A walk to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// Whether it is the incremental walk or a backfill.
    pub purpose: Purpose,
    /// The walk, at its beginning or where it was interrupted.
    pub walk: Walk,
    /// Whether an earlier run began it.
    pub resumed: bool,
}

impl Planned {
    /// Plans the same walk from its beginning, started `now`.
    pub(super) fn restarted(&self, now: DateTime<Utc>) -> Planned {
        let Walk { request, overlap_secs, .. } = self.walk.clone();
        let walk = Walk { overlap_secs, ..Walk::new(request, now) };
        Planned { purpose: self.purpose, walk, resumed: false }
    }

    /// Plans a walk over the whole history in place of this one.
    pub(super) fn everything(&self) -> Planned {
        let Walk { request, started_at, overlap_secs, .. } = self.walk.clone();
        let request = Request { window: Window::EVERYTHING, ..request };
        let walk = Walk { overlap_secs, ..Walk::new(request, started_at) };
        Planned { purpose: self.purpose, walk, resumed: false }
    }
}

impl Begin {
    /// Plans an incremental walk: the rest of an interrupted one, else all changes since `overlap` before the
    /// watermark, else the whole history.
    pub fn export(self, overlap: Duration, state: &State, now: DateTime<Utc>) -> Planned {
        let incremental = state.incremental.clone().unwrap_or_default();
        let overlap_secs = overlap.as_secs();
        let mut window = Window::EVERYTHING;
        window.from = incremental.watermark.map(|watermark| {
            let overlap = chrono::Duration::from_std(overlap).unwrap_or(chrono::Duration::MAX);
            watermark.checked_sub_signed(overlap).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
        });
        let mut planned = self.plan(Purpose::Incremental, incremental.walk, window, now);
        planned.walk.overlap_secs = overlap_secs;
        planned
    }

    /// Plans a backfill: the rest of an interrupted one over the same window, or a new one.
    pub fn backfill(self, window: Window, state: &State, now: DateTime<Utc>) -> Planned {
        self.plan(Purpose::Backfill, state.backfill(&window).cloned(), window, now)
    }

    fn plan(self, purpose: Purpose, interrupted: Option<Walk>, window: Window, now: DateTime<Utc>) -> Planned {
        match interrupted.filter(|_| !self.restart) {
            Some(walk) => Planned { purpose, walk, resumed: true },
            None => {
                let request = Request { window, user_filters: self.user_filters };
                Planned { purpose, walk: Walk::new(request, now), resumed: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn begin(restart: bool) -> Begin {
        Begin { restart, user_filters: None }
    }

    fn export(restart: bool, state: &State, now: i64) -> Planned {
        begin(restart).export(Duration::from_secs(600), state, at(now))
    }

    #[test]
    fn first_the_history_then_its_rest_then_the_changes() {
        let mut state = State::default();
        let first = export(false, &state, 10_000);
        assert_eq!(first.walk.request.window, Window::EVERYTHING);

        let mut walk = first.walk;
        walk.newest_change = Some(at(9_000));
        state.advance_walk(Purpose::Incremental, &walk);
        let again = export(false, &state, 20_000);
        assert!(again.resumed);
        assert_eq!(again.walk.overlap_secs, 600);
        assert_eq!(again.walk, walk, "a resumed walk asks for exactly the same");
        let restarted = export(true, &state, 20_000);
        assert!(!restarted.resumed && restarted.walk.newest_change.is_none());

        state.complete_walk(Purpose::Incremental, &walk);
        let next = export(false, &state, 30_000);
        assert_eq!(next.walk.request.window.from, Some(at(8_400)));
        assert_eq!(next.walk.request.window.to, None);
    }

    #[test]
    fn a_backfill_resumes_only_its_own_range() {
        let window = |to| Window { from: Some(at(0)), to: Some(at(to)), ..Window::EVERYTHING };
        let backfill = |to, state: &State| begin(false).backfill(window(to), state, at(100));
        let mut state = State::default();
        let begun = backfill(50, &state);
        state.advance_walk(Purpose::Backfill, &begun.walk);
        assert!(backfill(50, &state).resumed);
        assert!(!backfill(60, &state).resumed);
    }
}
