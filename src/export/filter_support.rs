//! Asks the API whether it bounds the time that `timestamp_filter` names.
//!
//! Conversations are known that changed long after they were created. The second in which one changed is asked for by
//! `updated_at`: a server that honors the filter sends it, unless it changed again or was erased. Then the second in
//! which it was created is asked for: a server that bounds `created_at` sends it there, which is a positive sign. After an
//! increment in which nothing older came, no canary has changed again, or it would have come: there the absence of several
//! says enough, too.

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use crate::api::Client;
use crate::error::{Error, Result};
use crate::flatten::{self, Origin};
use crate::lake::{Canary, FilterSupport, Support};
use crate::model::{Request, RunId, TimestampFilter, Window};

/// How long after its creation a conversation has to have changed to tell the two times apart.
const LONG_AFTER: Duration = Duration::hours(1);
/// How many canaries are kept: some will have changed again, or been erased.
const CANARIES: usize = 5;
/// How many canaries have to be absent to disprove it by that alone: one or two may have been erased at the source.
const ABSENCES: usize = 3;
/// How long a proof counts.
const PROOF_LASTS: Duration = Duration::days(7);

/// How many pages of one second are looked at.
const PAGES: usize = 4;

/// What the canaries say.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether the filter is honored; `None` if it cannot be told.
    verdict: Option<Support>,
    /// The canaries that came neither for the second in which they changed nor for that in which they were created.
    absent: Vec<String>,
    /// How many had too much beside them to be looked for.
    unclear: usize,
}

impl Answer {
    /// Takes note of what a walk that `began` then has found out at its end. After an increment, canaries that are absent
    /// were erased, and are not asked for again.
    pub(super) fn note(self, support: &mut FilterSupport, began: DateTime<Utc>, increment: bool) {
        match self.verdict {
            Some(verdict) => settle(support, verdict, began),
            None if !support.canaries.is_empty() => tracing::warn!(
                "it cannot be told whether the API honors timestamp_filter; if it does not, changes to conversations \
                 that are older than the range are missing"
            ),
            None => {}
        }
        if increment && support.known != Some(Support::Ignored) {
            support.canaries.retain(|canary| !self.absent.contains(&canary.conversation_id));
        }
    }

    /// Takes note of what is found out before a walk where the filter counts as ignored; returns whether it does not any
    /// more: because it is honored, or because that was said of conversations that are not there any more.
    pub(super) fn clears(self, support: &mut FilterSupport, began: DateTime<Utc>) -> bool {
        match self.verdict {
            Some(Support::Honored) => settle(support, Support::Honored, began),
            None if self.unclear == 0 && !disproves(self.absent.len()) => support.known = None,
            _ => return false,
        }
        true
    }

    fn verdict(verdict: Support) -> Self {
        Answer { verdict: Some(verdict), ..Answer::default() }
    }
}

/// Asks for the canaries in `support` until one is there. Where all are absent, `absence_disproves` tells whether that
/// says that the filter is ignored, if there are enough of them.
///
/// # Errors
/// Those of the client.
pub(super) async fn ask(
    client: &mut Client,
    request: &Request,
    support: &FilterSupport,
    absence_disproves: bool,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut later = Vec::new();
    for canary in &support.canaries {
        let changed = Request { window: second_of(canary.changed_at), ..request.clone() };
        let there = is_there(client, &changed, canary, run_id, shutdown).await?;
        let counts = canary.said && absence_disproves;
        match there {
            Some(true) => return Ok(Answer::verdict(Support::Honored)),
            // The next one is more likely to be there, and that takes one request.
            Some(false) if counts => {
                later.push(canary);
                continue;
            }
            Some(false) => {}
            None => answer.unclear += 1,
        }
        if !counts {
            let created = is_there_by_creation(client, request, canary, run_id, shutdown).await?;
            match created {
                Some(true) => return Ok(Answer::verdict(Support::Ignored)),
                Some(false) if there == Some(false) && canary.said => {
                    answer.absent.push(canary.conversation_id.clone())
                }
                Some(false) => {}
                None => answer.unclear += 1,
            }
        }
    }
    for canary in later {
        match is_there_by_creation(client, request, canary, run_id, shutdown).await? {
            Some(true) => return Ok(Answer::verdict(Support::Ignored)),
            Some(false) => answer.absent.push(canary.conversation_id.clone()),
            None => answer.unclear += 1,
        }
    }
    if absence_disproves && answer.unclear == 0 && disproves(answer.absent.len()) {
        answer.verdict = Some(Support::Ignored);
    }
    Ok(answer)
}

/// Whether the canary comes for the second in which it was created, as only a server sends it that bounds that time.
async fn is_there_by_creation(
    client: &mut Client,
    request: &Request,
    canary: &Canary,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Option<bool>> {
    let created = Request { window: second_of(canary.created_at), ..request.clone() };
    is_there(client, &created, canary, run_id, shutdown).await
}

/// What a run fails with that depends on the filter.
pub(super) fn ignored() -> Error {
    Error::api(
        "the API ignores timestamp_filter and bounds created_at: conversations that changed in the range of time, but \
         were created before it, do not come",
    )
    .with_hint(
        "ask the vendor; until then `export` and `sync` can walk the whole history each time (--on-ignored-filter full), \
         and `backfill` can take --timestamp-filter created_at",
    )
}

fn second_of(time: DateTime<Utc>) -> Window {
    let from = DateTime::from_timestamp(time.timestamp(), 0);
    let to = from.and_then(|from| from.checked_add_signed(Duration::seconds(1)));
    Window { filter: TimestampFilter::UpdatedAt, from, to }
}

/// Whether the canary is among what the API sends; `None` where that is too much to look at.
async fn is_there(
    client: &mut Client,
    request: &Request,
    canary: &Canary,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Option<bool>> {
    let mut cursor = None;
    for _ in 0..PAGES {
        let page = client.fetch(request, cursor.as_ref(), shutdown).await?.page;
        let origin = Origin { run_id, exported_at: DateTime::<Utc>::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten::flatten(page.conversations(), &origin)?;
        if batch.conversation_ids()?.iter().flatten().any(|id| id == canary.conversation_id) {
            return Ok(Some(true));
        }
        match page.next() {
            Some(next) if cursor.as_ref() != Some(next) => cursor = Some(next.clone()),
            _ => return Ok(Some(false)),
        }
    }
    Ok(None)
}

/// A copy of a conversation, as far as it can be evidence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation<'a> {
    /// `conversation_id`
    pub(super) conversation_id: &'a str,
    /// `created_at`
    pub(super) created_at: Option<DateTime<Utc>>,
    /// `updated_at`, as the API says it.
    pub(super) updated_at: Option<DateTime<Utc>>,
    /// When the copy last changed, by all its times.
    pub(super) changed_at: Option<DateTime<Utc>>,
}

/// Takes note of a copy that came for `window`, asked for at `asked_at`.
pub(super) fn observe(support: &mut FilterSupport, window: &Window, asked_at: DateTime<Utc>, copy: &Observation<'_>) {
    let (Some(created_at), Some(changed_at)) = (copy.created_at, copy.changed_at) else { return };
    if window.depends_on_filter() {
        let created_before = window.min_timestamp().is_some_and(|asked| created_at.timestamp() < asked.0);
        // A server without any bounds would send what changed before, too.
        if created_before && window.contains(changed_at) {
            settle(support, Support::Honored, asked_at);
        }
        // What changed only just now may have been selected before it did.
        let long_past = copy.updated_at.is_some_and(|time| time < asked_at - LONG_AFTER && !window.asks_for(time));
        if long_past && window.to.is_some() && window.contains(created_at) {
            doubt(support);
        }
    }
    // An older copy of a witness says nothing of what it is now.
    if let Some(at) = support.canaries.iter().position(|earlier| earlier.conversation_id == copy.conversation_id) {
        if support.canaries.get(at).is_some_and(|earlier| changed_at < earlier.changed_at) {
            return;
        }
        support.canaries.remove(at);
    }
    if changed_at.signed_duration_since(created_at) >= LONG_AFTER {
        let place = support.canaries.partition_point(|other| other.changed_at > changed_at);
        if place < CANARIES {
            let (conversation_id, said) = (copy.conversation_id.to_owned(), copy.updated_at.is_some());
            support.canaries.insert(place, Canary { conversation_id, created_at, changed_at, said });
            support.canaries.truncate(CANARIES);
        }
    }
}

/// Takes note of the answer that a walk which began at `asked_at` came to.
pub(super) fn settle(support: &mut FilterSupport, verdict: Support, asked_at: DateTime<Utc>) {
    support.known = Some(verdict);
    support.proven_at = match verdict {
        Support::Honored => support.proven_at.max(Some(asked_at)),
        Support::Ignored => None,
    };
}

/// Takes note of a sign that it is ignored; against a proof it only calls for another one.
fn doubt(support: &mut FilterSupport) {
    support.known.get_or_insert(Support::Ignored);
    support.proven_at = None;
}

/// The answer, as far as it can be relied on at `now`: that it is honoured counts only for some time.
pub(super) fn known(support: &FilterSupport, now: DateTime<Utc>) -> Option<Support> {
    let is_proven = support.proven_at.is_some_and(|at| now.signed_duration_since(at) < PROOF_LASTS);
    support.known.filter(|verdict| *verdict == Support::Ignored || is_proven)
}

/// Whether so many absent canaries disprove that it is honoured.
fn disproves(absent: usize) -> bool {
    absent >= ABSENCES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TimestampFilter;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(secs, 0).unwrap()
    }

    fn observed(conversation_id: &str, created: i64, updated: i64) -> Observation<'_> {
        let (created_at, updated_at) = (Some(at(created)), Some(at(updated)));
        Observation { conversation_id, created_at, updated_at, changed_at: updated_at }
    }

    fn verdict(window: &Window, created: i64, updated: i64) -> Option<Support> {
        let mut support = FilterSupport::default();
        observe(&mut support, window, at(1_000_000), &observed("a", created, updated));
        support.known
    }

    #[test]
    fn a_row_from_before_the_window_that_changed_inside_proves_it() {
        let increment = Window { from: Some(at(10_000)), ..Window::EVERYTHING };
        assert_eq!(verdict(&increment, 9_000, 10_500), Some(Support::Honored));
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
        assert_eq!(verdict(&range, 15_000, 30_000), Some(Support::Ignored));
        assert_eq!(verdict(&range, 15_000, 999_999), None, "it may have changed while it was sent");
        assert_eq!(verdict(&range, 15_000, 16_000), None);
        assert_eq!(verdict(&range, 5_000, 30_000), None, "a server that knows no bounds");
    }

    #[test]
    fn canaries_are_the_last_that_changed_long_after_they_began_each_as_it_is_now() {
        let mut support = FilterSupport::default();
        let mut seen = |id: &str, created, updated| {
            observe(&mut support, &Window::EVERYTHING, at(1_000_000), &observed(id, created, updated));
            support.canaries.iter().map(|w| (w.conversation_id.clone(), w.changed_at.timestamp())).collect::<Vec<_>>()
        };
        assert_eq!(seen("quick", 0, 60), []);
        for number in 1..=7_i32 {
            seen(&number.to_string(), 0, 10_000 * i64::from(number));
        }
        let ids = |list: &[(String, i64)]| list.iter().map(|(id, _)| id.clone()).collect::<String>();
        assert_eq!(ids(&seen("old", 0, 9_000)), "76543");
        assert_eq!(seen("5", 0, 90_000)[0], ("5".to_owned(), 90_000), "it changed again");
        assert_eq!(ids(&seen("5", 0, 50_000)), "57643", "an older copy of it");
    }
}
