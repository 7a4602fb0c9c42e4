//! Asks the API again for the conversations that did not come in a walk.
//!
//! Guarantees: a conversation counts as gone only if complete answers for the time around its `created_at` lack it too,
//! and if the API returned another one for the second of its creation: an API that bounds another time would not have.
//! Must not depend on: the lake.

use std::collections::HashSet;

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use super::hashes::IdHasher;
use super::survey::{Missed, Survey};
use crate::api::Client;
use crate::counted::counted;
use crate::error::Result;
use crate::export::look;
use crate::model::{Request, RunId, Window, from_micros};

/// The most windows that are asked for. If the conversations lie further apart, the windows get longer.
const WINDOWS: usize = if cfg!(test) { 3 } else { 300 };
/// The longest time between two conversations of one window, in microseconds, if there are few.
const NEAR: i64 = 60_000_000;

/// What the second look proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgment {
    /// These conversations are gone; by the hashes of their ids.
    Gone(HashSet<u64>),
    /// Nothing, for this reason.
    Unknown(&'static str),
}

/// Looks again for what the `survey` missed. `request` is that of the walk.
///
/// # Errors
/// Those of the client; kind `Api` if an answer breaks off; `Interrupted`.
pub async fn second_look(
    client: &mut Client,
    request: &Request,
    survey: &Survey,
    hasher: IdHasher,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Judgment> {
    // Nothing of the range contradicts the walk.
    let mut is_proven = survey.missed.is_empty() && survey.witnesses.is_empty();
    for witness in &survey.witnesses {
        if is_proven {
            break;
        }
        let window = windowed(request, witness.created_at, witness.created_at);
        look(client, &window, run_id, shutdown, |id| is_proven |= hasher.hash(id) == witness.hash).await?;
    }
    if !is_proven {
        return Ok(Judgment::Unknown(match survey.witnesses.is_empty() {
            true => "no conversation of the range can show that the API bounds created_at",
            false => "the API does not return conversations by their created_at",
        }));
    }
    if survey.missed.is_empty() {
        return Ok(Judgment::Gone(HashSet::new()));
    }
    let windows = windows(&survey.missed);
    tracing::info!(
        "{} of the lake did not come; asking for them again in {}",
        counted(survey.missed.len(), "conversation"),
        counted(windows.len(), "window")
    );
    let mut gone: HashSet<u64> = survey.missed.iter().map(|missed| missed.hash).collect();
    for (first, last) in windows {
        let window = windowed(request, first, last);
        let came = |id: &str| {
            gone.remove(&hasher.hash(id));
        };
        let looked = look(client, &window, run_id, shutdown, came).await?;
        if looked.malformed > 0 {
            return Ok(Judgment::Unknown("the API sent malformed entries, which may be any conversation"));
        }
    }
    Ok(Judgment::Gone(gone))
}

/// The request for conversations that were created from `first` to `last`, in whole seconds.
fn windowed(request: &Request, first: i64, last: i64) -> Request {
    let second = |micros: i64| from_micros(micros).and_then(|time| DateTime::from_timestamp(time.timestamp(), 0));
    let after = |time: DateTime<Utc>| time.checked_add_signed(Duration::seconds(1));
    let window = Window { from: second(first), to: second(last).and_then(after), ..request.window };
    Request { window, ..request.clone() }
}

/// Windows that cover all of `missed`, which is in order: near ones share a window, and the gaps between windows are the
/// longest ones.
fn windows(missed: &[Missed]) -> Vec<(i64, i64)> {
    let gap = |pair: &[Missed]| match pair {
        [one, next] => next.created_at.saturating_sub(one.created_at),
        _ => 0,
    };
    let mut gaps: Vec<_> = missed.windows(2).map(gap).filter(|gap| *gap > NEAR).collect();
    gaps.sort_unstable_by(|one, other| other.cmp(one));
    // A window ends at a gap that is longer than this.
    let longest = gaps.get(WINDOWS - 1).copied().unwrap_or(NEAR);
    let mut windows: Vec<(i64, i64)> = Vec::new();
    for Missed { created_at, .. } in missed {
        match windows.last_mut() {
            Some((_, last)) if created_at.saturating_sub(*last) <= longest => *last = *created_at,
            _ => windows.push((*created_at, *created_at)),
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_conversations_share_a_window_and_the_longest_gaps_part_windows() {
        let of = |secs: &[i64]| {
            let missed: Vec<_> = secs.iter().map(|at| Missed { created_at: at * 1_000_000, hash: 0 }).collect();
            windows(&missed).into_iter().map(|(one, other)| (one / 1_000_000, other / 1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[5]), [(5, 5)]);
        assert_eq!(of(&[5, 50, 200]), [(5, 50), (200, 200)]);
        // Five would be too many.
        assert_eq!(of(&[0, 100, 300, 600, 1_000]), [(0, 300), (600, 600), (1_000, 1_000)]);
        assert!(of(&[0, 100, 200, 300, 400]).len() <= WINDOWS);
    }

    #[test]
    fn a_window_is_whole_seconds_that_hold_the_time() {
        let request = Request { window: Window::EVERYTHING, user_filters: None };
        let Window { from, to, .. } = windowed(&request, 1_500_000, 2_000_001).window;
        assert_eq!((from.unwrap().timestamp(), to.unwrap().timestamp()), (1, 3));
    }
}
