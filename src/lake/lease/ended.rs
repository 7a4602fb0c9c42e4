//! What a run leaves to the next one in the last record of its lease, so that this one need not find it out again.
//!
//! Guarantees: what an older release does not say counts as unknown, so the next run finds it out. Nothing here is
//! believed without a check, or for longer than a day. Must not depend on: how records are stored.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::lake::history::History;
use crate::store::Store;

/// How long upkeep lasts, and how long calls of a disturbed run may still arrive.
const DAY: TimeDelta = TimeDelta::days(1);

/// What a run leaves to the next at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When it sent its last request to the API, if it sent any.
    pub last_request_at: Option<DateTime<Utc>>,
    /// The number of the newest checkpoint that it knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// When a run last died or failed, if that may have left something behind, or may do so yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed_at: Option<DateTime<Utc>>,
    /// The last upkeep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upkeep: Option<Upkeep>,
}

/// What one run a day does for all: it proves that conditional writes work, looks for leftovers in the whole lake, and
/// deletes old reports and quarantine files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    done_at: DateTime<Utc>,
    /// Where; a copy of the lake may be in a store without conditional writes.
    store: String,
    reports: usize,
    quarantine: Duration,
}

impl Upkeep {
    /// Upkeep that was just done.
    pub fn done(store: &Store, history: History, now: DateTime<Utc>) -> Self {
        let History { reports, quarantine } = history;
        Upkeep { done_at: now, store: store.place(), reports, quarantine }
    }

    /// Whether old reports and quarantine files were deleted by the same rule.
    pub fn is_by(&self, history: History) -> bool {
        (self.reports, self.quarantine) == (history.reports, history.quarantine)
    }

    /// The same upkeep, after old reports and quarantine files were deleted by another rule.
    pub fn by(self, history: History) -> Self {
        Upkeep { reports: history.reports, quarantine: history.quarantine, ..self }
    }
}

/// How the run before this one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// There was none.
    Nobody,
    /// It ended regularly.
    Ended(Ended),
    /// It was killed, or it is paused and may wake up.
    Died,
}

impl Before {
    /// The probable number of the newest checkpoint.
    pub fn checkpoint(&self) -> Option<u64> {
        self.ended()?.checkpoint
    }

    /// When a run was disturbed last; `None` if all of its calls have arrived since.
    pub fn disturbed_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Before::Nobody => None,
            Before::Died => Some(now),
            Before::Ended(ended) => ended.disturbed_at.map(|at| at.min(now)).filter(|at| now - *at < DAY),
        }
    }

    /// The upkeep that still lasts; `None` if it is due.
    pub fn upkeep(&self, store: &Store, now: DateTime<Utc>) -> Option<&Upkeep> {
        let upkeep = self.ended()?.upkeep.as_ref()?;
        (upkeep.store == store.place() && (now - upkeep.done_at).abs() < DAY).then_some(upkeep)
    }

    fn ended(&self) -> Option<&Ended> {
        if let Before::Ended(ended) = self { Some(ended) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::hours(hours)
    }

    #[test]
    fn upkeep_lasts_for_a_day_in_one_store() {
        let store = |url| Store::on(InMemory::new(), url, Duration::from_secs(60));
        let done = Upkeep::done(&store("here"), History::default(), at(100));
        let before = Before::Ended(Ended { upkeep: Some(done.clone()), ..Ended::default() });
        for (url, hours, lasts) in
            [("here", 100, true), ("here", 123, true), ("here", 124, false), ("here", 76, false), ("there", 100, false)]
        {
            assert_eq!(before.upkeep(&store(url), at(hours)), lasts.then_some(&done), "{url} at {hours}");
        }
        assert_eq!(Before::Died.upkeep(&store("here"), at(100)), None);
        let other = History { reports: 3, ..History::default() };
        assert!(done.is_by(History::default()) && !done.is_by(other) && done.by(other).is_by(other));
    }

    #[test]
    fn a_disturbance_lasts_for_a_day_also_if_a_clock_was_ahead() {
        let ended = |hours| Before::Ended(Ended { disturbed_at: Some(at(hours)), ..Ended::default() });
        assert_eq!(ended(0).disturbed_at(at(23)), Some(at(0)));
        assert_eq!(ended(0).disturbed_at(at(24)), None);
        assert_eq!(ended(9_999).disturbed_at(at(24)), Some(at(24)), "and is over a day from now");
        assert_eq!(Before::Died.disturbed_at(at(24)), Some(at(24)));
    }

    #[test]
    fn a_record_of_an_older_release_says_nothing_that_it_does_not_know() {
        let ended: Ended = serde_json::from_str(r#"{"last_request_at":"1970-01-01T00:00:07Z"}"#).unwrap();
        assert_eq!(ended, Ended { last_request_at: DateTime::from_timestamp(7, 0), ..Ended::default() });
    }
}
