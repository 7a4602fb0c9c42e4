//! Whether a full last page without a cursor is the end, or one whose cursor has a name that is not known here.
//!
//! One request from the newest change seen on tells: where it brings a conversation that the walk has not shown, there was
//! more. Guarantees: what changed while the question was asked proves nothing. Must not know: how pages are landed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use super::inspect::ChangeTimes;
use crate::api::Client;
use crate::error::{Error, Result};
use crate::flatten::{self, Origin};
use crate::model::{Request, RunId, Window};

/// For how long before the newest change the conversations that were shown are remembered: the API's bounds are whole
/// seconds.
const REMEMBERED: Duration = Duration::seconds(2);
/// What changed within this time before the last page came may have been published after it. A later run fetches it: the
/// watermark is no newer than what was seen.
const MAY_BE_LATE: Duration = Duration::seconds(60);

/// The conversations that a walk has shown, as far as they are among the newest.
#[derive(Debug, Default)]
pub(super) struct Shown {
    hasher: RandomState,
    /// Hashes of their ids, and when they changed.
    ids: HashMap<u64, DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl Shown {
    /// Takes note of a conversation that changed at `time`, and came at `answered_at`.
    pub(super) fn note(&mut self, id: &str, time: Option<DateTime<Utc>>, answered_at: DateTime<Utc>) {
        // What is said to change later than now has no place in the order.
        let Some(time) = time.filter(|time| *time <= answered_at) else { return };
        if self.newest.is_none_or(|newest| newest < time) {
            self.newest = Some(time);
            self.ids.retain(|_, other| time.signed_duration_since(*other) <= REMEMBERED);
        }
        if self.newest.is_some_and(|newest| newest.signed_duration_since(time) <= REMEMBERED) {
            self.ids.insert(self.hasher.hash_one(id), time);
        }
    }

    fn has(&self, id: &str) -> bool {
        self.ids.contains_key(&self.hasher.hash_one(id))
    }
}

/// A full last page without a cursor.
#[derive(Debug)]
pub(super) struct LastPage {
    /// How many conversations it has.
    pub(super) rows: usize,
    /// When it came.
    pub(super) answered_at: DateTime<Utc>,
    /// The names of its fields that are not known here.
    pub(super) others: Vec<String>,
    /// How new the walk was when this run went on with it: what it had shown by then is not known.
    pub(super) resumed_at: Option<DateTime<Utc>>,
}

impl LastPage {
    /// Asks whether there was more behind it.
    ///
    /// # Errors
    /// Kind `Api` where there was; those of the client.
    pub(super) async fn ask(
        &self,
        client: &mut Client,
        request: &Request,
        shown: &Shown,
        run_id: &RunId,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let Some(from) = shown.newest else {
            tracing::warn!(
                conversations = self.rows,
                "the export ends with a full page and no cursor for another one, and no conversation says when it \
                 changed; should any be missing, the API may have renamed its cursor (the response's other fields: {})",
                self.others()
            );
            return Ok(());
        };
        let window = Window { from: Some(from), ..request.window };
        if window.to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        tracing::debug!("asking whether the full last page without a cursor was the end");
        let page = client.fetch(&Request { window, ..request.clone() }, None, shutdown).await?.page;
        let origin = Origin { run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten::flatten(page.conversations(), &origin)?;
        let times = ChangeTimes::of(&batch, &window)?;
        for row in 0..times.len() {
            let (id, time) = times.get(row)?;
            let proves = |time: DateTime<Utc>| {
                window.contains(time)
                    && time <= self.answered_at - MAY_BE_LATE
                    && self.resumed_at.is_none_or(|before| before < time)
            };
            if time.is_some_and(proves) && !shown.has(id) {
                return Err(self.cut_off(id));
            }
        }
        Ok(())
    }

    fn cut_off(&self, id: &str) -> Error {
        Error::api(format!(
            "the API has more conversations ({id:?}) than it gives a cursor for: its last page is full and has none that \
             is known here; the response's other fields: {}",
            self.others()
        ))
        .with_hint(
            "the API may have renamed its cursor: use a newer decagon-lake; until then what came is landed, and \
             `backfill` over short ranges of time brings the rest",
        )
    }

    fn others(&self) -> String {
        if self.others.is_empty() { "none".to_owned() } else { self.others.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_remembered() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let mut shown = Shown::default();
        for (id, millis) in
            [("old", 1_000), ("a", 10_000), ("b", 11_500), ("c", 12_000), ("late", 9_999), ("future", 99_000)]
        {
            shown.note(id, Some(at(millis)), at(50_000));
        }
        shown.note("never", None, at(50_000));
        let there: Vec<_> =
            ["old", "a", "b", "c", "late", "future", "never"].into_iter().filter(|id| shown.has(id)).collect();
        assert_eq!((there, shown.newest), (vec!["a", "b", "c"], Some(at(12_000))));
    }
}
