//! Whether the API bounds the time that `timestamp_filter` names, as far as the lake has seen.
//!
//! A server that ignores the parameter bounds `created_at`: an increment then silently lacks every change to an older
//! conversation, and no row that does come looks wrong. So the answer is established by evidence and kept. That it honours
//! the filter is proven again and again, mostly by the rows that come anyway, since a vendor may break what worked. Pure.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::model::Window;

/// How long after its creation a conversation has to have changed to tell the two times apart.
const LONG_AFTER: Duration = Duration::hours(1);
/// How many witnesses are kept: some will have changed again, or been erased.
const WITNESSES: usize = 5;
/// How many witnesses have to be absent to disprove it by that alone: one or two may have been erased at the source.
const ABSENCES: usize = 3;
/// How long a proof counts.
const PROOF_LASTS: Duration = Duration::days(7);

/// Whether `timestamp_filter` is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The API bounds the time that it was asked to.
    Honoured,
    /// It bounds another one.
    Ignored,
}

/// A conversation that changed long after it was created: of the two seconds, a server that honours the filter sends it for
/// the one, and a server that bounds `created_at` for the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Its id.
    pub conversation_id: String,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it changed.
    pub changed_at: DateTime<Utc>,
    /// Whether the API said so itself (`updated_at`), or it is the newest of the other times.
    pub said: bool,
}

/// What is known, and what can be asked to know more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The answer, once there is one.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// When the walk began that proved last that it is honoured; `None` if that is to be proven again.
    #[serde(default)]
    pub proven_at: Option<DateTime<Utc>>,
    /// The conversations that changed last, of those that changed long after they were created; newest first.
    #[serde(default)]
    pub witnesses: Vec<Witness>,
}

/// A copy of a conversation, as far as it can be evidence.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// `conversation_id`
    pub conversation_id: &'a str,
    /// `created_at`
    pub created_at: Option<DateTime<Utc>>,
    /// `updated_at`, as the API says it.
    pub updated_at: Option<DateTime<Utc>>,
    /// When the copy last changed, by all its times.
    pub changed_at: Option<DateTime<Utc>>,
}

impl Evidence {
    /// Takes note of a copy that came for `window`, asked for at `asked_at`.
    pub fn observe(&mut self, window: &Window, asked_at: DateTime<Utc>, copy: &Observed<'_>) {
        let (Some(created_at), Some(changed_at)) = (copy.created_at, copy.changed_at) else { return };
        if window.depends_on_filter() {
            let created_before = window.min_timestamp().is_some_and(|asked| created_at.timestamp() < asked.0);
            // A server without any bounds would send what changed before, too.
            if created_before && window.contains(changed_at) {
                self.settle(Verdict::Honoured, asked_at);
            }
            // What changed only just now may have been selected before it did.
            let long_past = copy.updated_at.is_some_and(|time| time < asked_at - LONG_AFTER && !window.asks_for(time));
            if long_past && window.to.is_some() && window.contains(created_at) {
                self.doubt();
            }
        }
        // An older copy of a witness says nothing of what it is now.
        if let Some(known) = self.witnesses.iter().position(|known| known.conversation_id == copy.conversation_id) {
            if self.witnesses.get(known).is_some_and(|known| changed_at < known.changed_at) {
                return;
            }
            self.witnesses.remove(known);
        }
        if changed_at.signed_duration_since(created_at) >= LONG_AFTER {
            let place = self.witnesses.partition_point(|other| other.changed_at > changed_at);
            if place < WITNESSES {
                let (conversation_id, said) = (copy.conversation_id.to_owned(), copy.updated_at.is_some());
                self.witnesses.insert(place, Witness { conversation_id, created_at, changed_at, said });
                self.witnesses.truncate(WITNESSES);
            }
        }
    }

    /// Takes note of the answer that a walk which began at `asked_at` came to.
    pub fn settle(&mut self, verdict: Verdict, asked_at: DateTime<Utc>) {
        self.verdict = Some(verdict);
        self.proven_at = match verdict {
            Verdict::Honoured => self.proven_at.max(Some(asked_at)),
            Verdict::Ignored => None,
        };
    }

    /// Takes note of a sign that it is ignored; against a proof it only calls for another one.
    fn doubt(&mut self) {
        self.verdict.get_or_insert(Verdict::Ignored);
        self.proven_at = None;
    }

    /// The answer, as far as it can be relied on at `now`: that it is honoured counts only for some time.
    pub fn known(&self, now: DateTime<Utc>) -> Option<Verdict> {
        let is_proven = self.proven_at.is_some_and(|at| now.signed_duration_since(at) < PROOF_LASTS);
        self.verdict.filter(|verdict| *verdict == Verdict::Ignored || is_proven)
    }

    /// Whether so many absent witnesses disprove that it is honoured.
    pub fn disproves(absent: usize) -> bool {
        absent >= ABSENCES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimestampFilter;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn observed(conversation_id: &str, created: i64, updated: i64) -> Observed<'_> {
        let (created_at, updated_at) = (Some(at(created)), Some(at(updated)));
        Observed { conversation_id, created_at, updated_at, changed_at: updated_at }
    }

    fn verdict(window: &Window, created: i64, updated: i64) -> Option<Verdict> {
        let mut evidence = Evidence::default();
        evidence.observe(window, at(1_000_000), &observed("a", created, updated));
        evidence.verdict
    }

    #[test]
    fn a_row_from_before_the_window_that_changed_inside_proves_it() {
        let increment = Window { from: Some(at(10_000)), ..Window::EVERYTHING };
        assert_eq!(verdict(&increment, 9_000, 10_500), Some(Verdict::Honoured));
        assert_eq!(verdict(&increment, 10_100, 10_500), None, "created inside: any server would send it");
        assert_eq!(verdict(&increment, 9_999, 10_500), None, "asked for a second too widely");
        assert_eq!(verdict(&increment, 8_000, 9_000), None, "a server that knows no bounds");
        assert_eq!(verdict(&Window::EVERYTHING, 9_000, 10_500), None);
        let by_creation = Window { filter: TimestampFilter::CreatedAt, ..increment };
        assert_eq!(verdict(&by_creation, 9_000, 10_500), None);
    }

    #[test]
    fn a_row_that_was_created_inside_and_changed_long_outside_disproves_it() {
        let range = Window { from: Some(at(10_000)), to: Some(at(20_000)), ..Window::EVERYTHING };
        assert_eq!(verdict(&range, 15_000, 30_000), Some(Verdict::Ignored));
        assert_eq!(verdict(&range, 15_000, 999_999), None, "it may have changed while it was sent");
        assert_eq!(verdict(&range, 15_000, 16_000), None);
        assert_eq!(verdict(&range, 5_000, 30_000), None, "a server that knows no bounds");
    }

    #[test]
    fn witnesses_are_the_last_that_changed_long_after_they_began_each_as_it_is_now() {
        let mut evidence = Evidence::default();
        let mut observe = |id: &str, created, updated| {
            evidence.observe(&Window::EVERYTHING, at(1_000_000), &observed(id, created, updated));
            evidence.witnesses.iter().map(|w| (w.conversation_id.clone(), w.changed_at.timestamp())).collect::<Vec<_>>()
        };
        assert_eq!(observe("quick", 0, 60), []);
        for number in 1..=7_i32 {
            observe(&number.to_string(), 0, 10_000 * i64::from(number));
        }
        let ids = |list: &[(String, i64)]| list.iter().map(|(id, _)| id.clone()).collect::<String>();
        assert_eq!(ids(&observe("old", 0, 9_000)), "76543");
        assert_eq!(observe("5", 0, 90_000)[0], ("5".to_owned(), 90_000), "it changed again");
        assert_eq!(ids(&observe("5", 0, 50_000)), "57643", "an older copy of it");
    }
}
