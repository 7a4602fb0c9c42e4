//! Finds out whether the API honors `timestamp_filter`, or bounds `created_at` whatever the filter says.
//!
//! Canaries are conversations that changed long after they were created. First, the second in which a canary changed is
//! requested by `updated_at`: a server that honors the filter returns it, unless it changed again or was erased. Then
//! the second in which it was created is requested: a server that ignores the filter returns it there. After an
//! increment that returned no older conversation, no canary can have changed again, so the absence of several proves
//! the same.

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use crate::api::Client;
use crate::error::{Error, Result};
use crate::flatten::{self, Origin};
use crate::lake::{Canary, FilterSupport, Support};
use crate::model::{LakeColumns, Request, RunId, TimestampFilter, Window};

/// How long after its creation a canary must have changed, so that the two times differ.
const LONG_AFTER: Duration = Duration::hours(1);
/// How many canaries are kept, because some will change again or be erased.
const CANARIES: usize = 5;
/// How many absent canaries prove that the filter is ignored: one or two may have been erased at the source.
const ABSENCES: usize = 3;
/// How long a proof that the filter is honored counts.
const PROOF_LASTS: Duration = Duration::days(7);
/// How many pages of one second are searched.
const PAGES: usize = 4;

/// What the requests for the canaries proved.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether the filter is honored; `None` if unknown.
    support: Option<Support>,
    /// The canaries that came neither for the second in which they changed nor for the one in which they were created.
    absent: Vec<String>,
    /// How many canaries were in a second with too many pages to search.
    unclear: usize,
}

impl Answer {
    /// Records the answer at the end of a walk that `began` then. Canaries that are absent after an increment were
    /// erased, so they are forgotten.
    pub(super) fn record_after(self, filter: &mut FilterSupport, began: DateTime<Utc>, increment: bool) {
        match self.support {
            Some(support) => record(filter, support, began),
            None if !filter.canaries.is_empty() => tracing::warn!(
                "unknown whether the API honors timestamp_filter; if it does not, changes to conversations that are \
                 older than the range are missing"
            ),
            None => {}
        }
        if increment && filter.known != Some(Support::Ignored) {
            filter.canaries.retain(|canary| !self.absent.contains(&canary.conversation_id));
        }
    }

    /// Records the answer before a walk while the filter counts as ignored. Returns whether it no longer does: the API
    /// honors it, or the canaries no longer exist.
    pub(super) fn record_before(self, filter: &mut FilterSupport, began: DateTime<Utc>) -> bool {
        match self.support {
            Some(Support::Honored) => record(filter, Support::Honored, began),
            None if self.unclear == 0 && !is_proof(self.absent.len()) => filter.known = None,
            _ => return false,
        }
        true
    }

    fn of(support: Support) -> Self {
        Answer { support: Some(support), ..Answer::default() }
    }
}

/// Requests the canaries in `filter` until the API returns one. `absence_counts` says whether enough absent canaries
/// prove that the filter is ignored.
///
/// # Errors
/// Those of the client.
pub(super) async fn ask(
    client: &mut Client,
    request: &Request,
    filter: &FilterSupport,
    absence_counts: bool,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut later = Vec::new();
    for canary in &filter.canaries {
        let returned = returns(client, request, canary.changed_at, canary, run_id, shutdown).await?;
        let counts = canary.said && absence_counts;
        match returned {
            Some(true) => return Ok(Answer::of(Support::Honored)),
            // The API is more likely to return the next one, which takes one request.
            Some(false) if counts => {
                later.push(canary);
                continue;
            }
            Some(false) => {}
            None => answer.unclear += 1,
        }
        if !counts {
            match returns(client, request, canary.created_at, canary, run_id, shutdown).await? {
                Some(true) => return Ok(Answer::of(Support::Ignored)),
                Some(false) if returned == Some(false) && canary.said => {
                    answer.absent.push(canary.conversation_id.clone())
                }
                Some(false) => {}
                None => answer.unclear += 1,
            }
        }
    }
    for canary in later {
        match returns(client, request, canary.created_at, canary, run_id, shutdown).await? {
            Some(true) => return Ok(Answer::of(Support::Ignored)),
            Some(false) => answer.absent.push(canary.conversation_id.clone()),
            None => answer.unclear += 1,
        }
    }
    if absence_counts && answer.unclear == 0 && is_proof(answer.absent.len()) {
        answer.support = Some(Support::Ignored);
    }
    Ok(answer)
}

/// The failure of a walk that needs the filter.
pub(super) fn ignored() -> Error {
    Error::api(
        "the API ignores timestamp_filter and bounds created_at: it does not return conversations that changed in the \
         range but were created before it",
    )
    .with_hint(
        "report it to the vendor; until then, fetch the whole history each time with --on-ignored-filter full \
         (`export`, `sync`), or pass --timestamp-filter created_at (`backfill`)",
    )
}

fn second_of(time: DateTime<Utc>) -> Window {
    let from = DateTime::from_timestamp(time.timestamp(), 0);
    let to = from.and_then(|from| from.checked_add_signed(Duration::seconds(1)));
    Window { filter: TimestampFilter::UpdatedAt, from, to }
}

/// Whether the API returns the canary for the second of `time`: of the one in which it was created, only a server that
/// bounds that time does. `None` if there are too many pages to search.
async fn returns(
    client: &mut Client,
    request: &Request,
    time: DateTime<Utc>,
    canary: &Canary,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Option<bool>> {
    let request = Request { window: second_of(time), ..request.clone() };
    let mut cursor = None;
    for _ in 0..PAGES {
        let page = client.fetch(&request, cursor.as_ref(), shutdown).await?.page;
        let origin = Origin { run_id, exported_at: DateTime::<Utc>::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten::flatten(page.conversations(), &LakeColumns::default(), &origin)?;
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

/// The parts of a version that can prove something about the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation<'a> {
    /// `conversation_id`
    pub(super) conversation_id: &'a str,
    /// `created_at`
    pub(super) created_at: Option<DateTime<Utc>>,
    /// `updated_at`
    pub(super) updated_at: Option<DateTime<Utc>>,
    /// When the version last changed, by all its times.
    pub(super) changed_at: Option<DateTime<Utc>>,
}

/// Records what a version proves that the API returned for `window` in a walk that began at `asked_at`, and keeps it as
/// a canary if it can be one.
pub(super) fn observe(filter: &mut FilterSupport, window: &Window, asked_at: DateTime<Utc>, version: &Observation<'_>) {
    let (Some(created_at), Some(changed_at)) = (version.created_at, version.changed_at) else { return };
    if window.depends_on_filter() {
        let created_before = window.min_timestamp().is_some_and(|asked| created_at.timestamp() < asked.0);
        // A server that ignores all bounds also returns changes from before the window.
        if created_before && window.contains(changed_at) {
            record(filter, Support::Honored, asked_at);
        }
        // A recent change may have happened after the server selected the conversation.
        let long_past = version.updated_at.is_some_and(|time| time < asked_at - LONG_AFTER && !window.asks_for(time));
        if long_past && window.to.is_some() && window.contains(created_at) {
            doubt(filter);
        }
    }
    // An older version of a canary does not say how it is now.
    if let Some(at) = filter.canaries.iter().position(|earlier| earlier.conversation_id == version.conversation_id) {
        if filter.canaries.get(at).is_some_and(|earlier| changed_at < earlier.changed_at) {
            return;
        }
        filter.canaries.remove(at);
    }
    if changed_at.signed_duration_since(created_at) >= LONG_AFTER {
        let place = filter.canaries.partition_point(|other| other.changed_at > changed_at);
        if place < CANARIES {
            let (conversation_id, said) = (version.conversation_id.to_owned(), version.updated_at.is_some());
            filter.canaries.insert(place, Canary { conversation_id, created_at, changed_at, said });
            filter.canaries.truncate(CANARIES);
        }
    }
}

/// Records what a walk that began at `asked_at` proved.
fn record(filter: &mut FilterSupport, support: Support, asked_at: DateTime<Utc>) {
    filter.known = Some(support);
    filter.proven_at = match support {
        Support::Honored => filter.proven_at.max(Some(asked_at)),
        Support::Ignored => None,
    };
}

/// Records a sign that the filter is ignored. If it was proven to be honored, it must only be proven again.
fn doubt(filter: &mut FilterSupport) {
    filter.known.get_or_insert(Support::Ignored);
    filter.proven_at = None;
}

/// Returns the filter support that can be relied on at `now`: a proof that the filter is honored expires.
pub(super) fn at(filter: &FilterSupport, now: DateTime<Utc>) -> Option<Support> {
    let is_proven = filter.proven_at.is_some_and(|at| now.signed_duration_since(at) < PROOF_LASTS);
    filter.known.filter(|support| *support == Support::Ignored || is_proven)
}

/// Whether this number of absent canaries proves that the filter is ignored.
fn is_proof(absent: usize) -> bool {
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

    fn proven(window: &Window, created: i64, updated: i64) -> Option<Support> {
        let mut filter = FilterSupport::default();
        observe(&mut filter, window, at(1_000_000), &observed("a", created, updated));
        filter.known
    }

    #[test]
    fn a_row_created_before_the_window_that_changed_inside_proves_it_honored() {
        let increment = Window { from: Some(at(10_000)), ..Window::EVERYTHING };
        assert_eq!(proven(&increment, 9_000, 10_500), Some(Support::Honored));
        assert_eq!(proven(&increment, 10_100, 10_500), None, "created inside: any server returns it");
        assert_eq!(proven(&increment, 9_999, 10_500), None, "the bounds sent are a second too wide");
        assert_eq!(proven(&increment, 8_000, 9_000), None, "a server that ignores all bounds");
        assert_eq!(proven(&Window::EVERYTHING, 9_000, 10_500), None);
        let by_creation = Window { filter: TimestampFilter::CreatedAt, ..increment };
        assert_eq!(proven(&by_creation, 9_000, 10_500), None);
    }

    #[test]
    fn a_row_created_inside_that_changed_long_outside_proves_it_ignored() {
        let range = Window { from: Some(at(10_000)), to: Some(at(20_000)), ..Window::EVERYTHING };
        assert_eq!(proven(&range, 15_000, 30_000), Some(Support::Ignored));
        assert_eq!(proven(&range, 15_000, 999_999), None, "it may have changed while the server answered");
        assert_eq!(proven(&range, 15_000, 16_000), None);
        assert_eq!(proven(&range, 5_000, 30_000), None, "a server that ignores all bounds");
    }

    #[test]
    fn canaries_are_the_latest_versions_that_changed_long_after_their_creation() {
        let mut filter = FilterSupport::default();
        let mut seen = |id: &str, created, updated| {
            observe(&mut filter, &Window::EVERYTHING, at(1_000_000), &observed(id, created, updated));
            filter.canaries.iter().map(|w| (w.conversation_id.clone(), w.changed_at.timestamp())).collect::<Vec<_>>()
        };
        assert_eq!(seen("quick", 0, 60), []);
        for number in 1..=7_i32 {
            seen(&number.to_string(), 0, 10_000 * i64::from(number));
        }
        let ids = |list: &[(String, i64)]| list.iter().map(|(id, _)| id.clone()).collect::<String>();
        assert_eq!(ids(&seen("old", 0, 9_000)), "76543");
        assert_eq!(seen("5", 0, 90_000)[0], ("5".to_owned(), 90_000), "it changed again");
        assert_eq!(ids(&seen("5", 0, 50_000)), "57643", "an older version of it");
    }
}
