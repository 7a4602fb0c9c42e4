//! Asks the API whether it bounds the time that `timestamp_filter` names.
//!
//! Conversations are known that changed long after they were created. The second in which one changed is asked for by
//! `updated_at`: a server that honours the filter sends it, unless it changed again or was erased. Then the second in
//! which it was created is asked for: a server that bounds `created_at` sends it there, which is a positive sign. After an
//! increment in which nothing older came, no witness has changed again, or it would have come: there the absence of several
//! says enough, too.

use chrono::{DateTime, Duration, Utc};
use tokio_util::sync::CancellationToken;

use super::inspect::ids;
use crate::api::Client;
use crate::error::{Error, Result};
use crate::flatten::{self, Origin};
use crate::lake::{Evidence, Verdict, Witness};
use crate::model::{Request, RunId, TimestampFilter, Window};

/// How many pages of one second are looked at.
const PAGES: usize = 4;

/// What the witnesses say.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Whether the filter is honoured; `None` if it cannot be told.
    verdict: Option<Verdict>,
    /// The witnesses that came neither for the second in which they changed nor for that in which they were created.
    absent: Vec<String>,
    /// How many had too much beside them to be looked for.
    unclear: usize,
}

impl Answer {
    /// Takes note of what a walk that `began` then has found out at its end. After an increment, witnesses that are absent
    /// were erased, and are not asked for again.
    pub(super) fn note(self, evidence: &mut Evidence, began: DateTime<Utc>, increment: bool) {
        match self.verdict {
            Some(verdict) => evidence.settle(verdict, began),
            None if !evidence.witnesses.is_empty() => tracing::warn!(
                "it cannot be told whether the API honours timestamp_filter; if it does not, changes to conversations \
                 that are older than the range are missing"
            ),
            None => {}
        }
        if increment && evidence.verdict != Some(Verdict::Ignored) {
            evidence.witnesses.retain(|witness| !self.absent.contains(&witness.conversation_id));
        }
    }

    /// Takes note of what is found out before a walk where the filter counts as ignored; returns whether it does not any
    /// more: because it is honoured, or because that was said of conversations that are not there any more.
    pub(super) fn clears(self, evidence: &mut Evidence, began: DateTime<Utc>) -> bool {
        match self.verdict {
            Some(Verdict::Honoured) => evidence.settle(Verdict::Honoured, began),
            None if self.unclear == 0 && !Evidence::disproves(self.absent.len()) => evidence.verdict = None,
            _ => return false,
        }
        true
    }

    fn verdict(verdict: Verdict) -> Self {
        Answer { verdict: Some(verdict), ..Answer::default() }
    }
}

/// Asks for the witnesses in `evidence` until one is there. Where all are absent, `absence_disproves` tells whether that
/// says that the filter is ignored, if there are enough of them.
///
/// # Errors
/// Those of the client.
pub(super) async fn ask(
    client: &mut Client,
    request: &Request,
    evidence: &Evidence,
    absence_disproves: bool,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Answer> {
    let mut answer = Answer::default();
    let mut later = Vec::new();
    for witness in &evidence.witnesses {
        let changed = Request { window: second_of(witness.changed_at), ..request.clone() };
        let there = is_there(client, &changed, witness, run_id, shutdown).await?;
        let counts = witness.said && absence_disproves;
        match there {
            Some(true) => return Ok(Answer::verdict(Verdict::Honoured)),
            // The next one is more likely to be there, and that takes one request.
            Some(false) if counts => {
                later.push(witness);
                continue;
            }
            Some(false) => {}
            None => answer.unclear += 1,
        }
        if !counts {
            let created = is_there_by_creation(client, request, witness, run_id, shutdown).await?;
            match created {
                Some(true) => return Ok(Answer::verdict(Verdict::Ignored)),
                Some(false) if there == Some(false) && witness.said => {
                    answer.absent.push(witness.conversation_id.clone())
                }
                Some(false) => {}
                None => answer.unclear += 1,
            }
        }
    }
    for witness in later {
        match is_there_by_creation(client, request, witness, run_id, shutdown).await? {
            Some(true) => return Ok(Answer::verdict(Verdict::Ignored)),
            Some(false) => answer.absent.push(witness.conversation_id.clone()),
            None => answer.unclear += 1,
        }
    }
    if absence_disproves && answer.unclear == 0 && Evidence::disproves(answer.absent.len()) {
        answer.verdict = Some(Verdict::Ignored);
    }
    Ok(answer)
}

/// Whether the witness comes for the second in which it was created, as only a server sends it that bounds that time.
async fn is_there_by_creation(
    client: &mut Client,
    request: &Request,
    witness: &Witness,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Option<bool>> {
    let created = Request { window: second_of(witness.created_at), ..request.clone() };
    is_there(client, &created, witness, run_id, shutdown).await
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

/// Whether the witness is among what the API sends; `None` where that is too much to look at.
async fn is_there(
    client: &mut Client,
    request: &Request,
    witness: &Witness,
    run_id: &RunId,
    shutdown: &CancellationToken,
) -> Result<Option<bool>> {
    let mut cursor = None;
    for _ in 0..PAGES {
        let page = client.fetch(request, cursor.as_ref(), shutdown).await?.page;
        let origin = Origin { run_id, exported_at: DateTime::<Utc>::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten::flatten(page.conversations(), &origin)?;
        if ids(&batch)?.iter().flatten().any(|id| id == witness.conversation_id) {
            return Ok(Some(true));
        }
        match page.next() {
            Some(next) if cursor.as_ref() != Some(next) => cursor = Some(next.clone()),
            _ => return Ok(Some(false)),
        }
    }
    Ok(None)
}
