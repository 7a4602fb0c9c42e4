//! Checks that a full last page without a cursor is the end, because the API may have renamed its cursor.
//!
//! One request asks for conversations from the newest change seen. If it returns one that the walk has not seen, the
//! walk is incomplete. Guarantees: changes during the check prove nothing, because only those a minute before the last
//! page count. Must not depend on: how pages are staged.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use super::inspect::change_time;
use crate::api::Client;
use crate::error::{Error, Result};
use crate::flatten::{self, Origin};
use crate::model::{LakeColumns, Request, RunId, Window};

/// How long before the newest change conversations are remembered: the API's bounds are whole seconds.
const REMEMBERED: Duration = Duration::seconds(2);
/// The API may publish a change this long after it happened, and so after the last page. A later run fetches it,
/// because the watermark is no newer than the newest change seen.
const MAY_BE_LATE: Duration = Duration::seconds(60);

/// The newest conversations that a walk has seen.
#[derive(Debug, Default)]
pub(super) struct NewestSeen {
    hasher: RandomState,
    /// Hashes of the ids, and when each conversation changed.
    ids: HashMap<u64, DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl NewestSeen {
    /// Remembers a conversation that changed at `time` and came in a response of `answered_at`.
    pub(super) fn note(&mut self, id: &str, time: Option<DateTime<Utc>>, answered_at: DateTime<Utc>) {
        // A change in the future has no place in the order.
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
    /// When the API sent it.
    pub(super) answered_at: DateTime<Utc>,
    /// The names of its unknown fields, one of which may be the cursor.
    pub(super) other_fields: Vec<String>,
    /// The newest change when this run resumed the walk: the conversations that came before are not remembered.
    pub(super) resumed_at: Option<DateTime<Utc>>,
}

impl LastPage {
    /// Checks that no conversation comes after it.
    ///
    /// # Errors
    /// Kind `Api` if one does; those of the client.
    pub(super) async fn check_is_end(
        &self,
        client: &mut Client,
        request: &Request,
        seen: &NewestSeen,
        run_id: &RunId,
        shutdown: &CancellationToken,
    ) -> Result<()> {
        let Some(from) = seen.newest else {
            tracing::warn!(
                conversations = self.rows,
                "the last page of the export is full and has no known cursor, and no conversation has a time to check \
                 with; if conversations are missing, the API may have renamed its cursor (other fields: {})",
                self.list_other_fields()
            );
            return Ok(());
        };
        let window = Window { from: Some(from), ..request.window };
        if window.to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        tracing::debug!("checking that the full last page without a cursor is the end");
        let page = client.fetch(&Request { window, ..request.clone() }, None, shutdown).await?.page;
        let origin = Origin { run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten::flatten(page.conversations(), &LakeColumns::default(), &origin)?;
        for (row, id) in batch.conversation_ids()?.iter().flatten().enumerate() {
            let is_proof = |time: DateTime<Utc>| {
                window.contains(time)
                    && time <= self.answered_at - MAY_BE_LATE
                    && self.resumed_at.is_none_or(|before| before < time)
            };
            if change_time(&batch, &window, row)?.is_some_and(is_proof) && !seen.has(id) {
                return Err(self.incomplete(id));
            }
        }
        Ok(())
    }

    fn incomplete(&self, id: &str) -> Error {
        Error::api(format!(
            "the export is incomplete: conversation {id:?} comes after its last page, which is full and has no known \
             cursor; other fields: {}",
            self.list_other_fields()
        ))
        .with_hint(
            "the API may have renamed its cursor: install a newer decagon-lake; until then, fetch the rest with \
             `backfill` over short ranges (the pages so far are staged)",
        )
    }

    fn list_other_fields(&self) -> String {
        if self.other_fields.is_empty() { "none".to_owned() } else { self.other_fields.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_conversations_are_remembered() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let mut seen = NewestSeen::default();
        for (id, millis) in
            [("old", 1_000), ("a", 10_000), ("b", 11_500), ("c", 12_000), ("late", 9_999), ("future", 99_000)]
        {
            seen.note(id, Some(at(millis)), at(50_000));
        }
        seen.note("never", None, at(50_000));
        let there: Vec<_> =
            ["old", "a", "b", "c", "late", "future", "never"].into_iter().filter(|id| seen.has(id)).collect();
        assert_eq!((there, seen.newest), (vec!["a", "b", "c"], Some(at(12_000))));
    }
}
