//! Decides which window a run walks: a new one, or the one that an interrupted run left.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::lake::{Checkpoint, Purpose, Walk};
use crate::model::{Request, Window};

/// What an incremental export is asked for.
#[derive(Debug, Clone)]
pub struct Export {
    /// How far before the watermark the next window begins.
    pub overlap: Duration,
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
    ///
    /// # Errors
    /// Where the lake's incremental state was made with other `user_filters`.
    pub fn plan(&self, state: &Checkpoint, now: DateTime<Utc>) -> Result<Planned> {
        let purpose = Purpose::Incremental;
        let mut window = Window::EVERYTHING;
        if let Some(incremental) = &state.incremental {
            self.check_filters(incremental.user_filters.as_ref())?;
            if let Some(walk) = &incremental.walk {
                return Ok(Planned { purpose, walk: walk.clone(), resumed: true });
            }
            window.from = incremental.watermark.map(|watermark| {
                let overlap = chrono::Duration::from_std(self.overlap).unwrap_or(chrono::Duration::MAX);
                watermark.checked_sub_signed(overlap).unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
            });
        }
        let request = Request { window, page_size: self.page_size, user_filters: self.user_filters.clone() };
        Ok(Planned { purpose, walk: Walk::new(request, now), resumed: false })
    }

    fn check_filters(&self, made_with: Option<&Value>) -> Result<()> {
        if made_with == self.user_filters.as_ref() {
            return Ok(());
        }
        let tell = |filters: Option<&Value>| filters.map_or_else(|| "none".to_owned(), Value::to_string);
        let (theirs, mine) = (tell(made_with), tell(self.user_filters.as_ref()));
        Err(Error::usage(format!("this lake's export was made with --user-filters {theirs}, not {mine}"))
            .with_hint("keep one lake per set of filters: give the same --user-filters, or another --lake"))
    }
}

impl Backfill {
    /// Plans the walk: the interrupted one over the same range, or a new one.
    pub fn plan(&self, state: &Checkpoint, now: DateTime<Utc>) -> Planned {
        let purpose = Purpose::Backfill;
        if let Some(walk) = state.backfill(&self.window, self.user_filters.as_ref()) {
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
    use serde_json::json;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn export(user_filters: Option<Value>) -> Export {
        Export { overlap: Duration::from_secs(600), page_size: None, user_filters }
    }

    #[test]
    fn first_everything_then_the_rest_of_it_then_what_changed() {
        let mut state = Checkpoint::default();
        let first = export(None).plan(&state, at(10_000)).unwrap();
        assert_eq!(first.walk.request.window, Window::EVERYTHING);

        let mut walk = first.walk;
        walk.newest_change = Some(at(9_000));
        state.record(Purpose::Incremental, &walk, false);
        let again = export(None).plan(&state, at(20_000)).unwrap();
        assert!(again.resumed);
        assert_eq!(again.walk, walk, "a resumed walk asks for exactly the same");

        state.record(Purpose::Incremental, &walk, true);
        let next = export(None).plan(&state, at(30_000)).unwrap();
        assert_eq!(next.walk.request.window.from, Some(at(8_400)));
        assert_eq!(next.walk.request.window.to, None);
    }

    #[test]
    fn other_filters_are_refused_with_both_named() {
        let mut state = Checkpoint::default();
        let filters = json!({"deflected_filter": true});
        let walk = export(Some(filters.clone())).plan(&state, at(0)).unwrap().walk;
        state.record(Purpose::Incremental, &walk, true);
        assert!(export(Some(filters)).plan(&state, at(1)).is_ok());
        let error = export(None).plan(&state, at(1)).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        assert!(error.to_string().contains(r#"{"deflected_filter":true}"#) && error.to_string().contains("none"));
    }

    #[test]
    fn a_backfill_resumes_its_own_range_only() {
        let window = |to| Window { from: Some(at(0)), to: Some(at(to)), ..Window::EVERYTHING };
        let backfill = |to| Backfill { window: window(to), page_size: None, user_filters: None };
        let mut state = Checkpoint::default();
        let begun = backfill(50).plan(&state, at(100));
        state.record(Purpose::Backfill, &begun.walk, false);
        assert!(backfill(50).plan(&state, at(200)).resumed);
        assert!(!backfill(60).plan(&state, at(200)).resumed);
    }
}
