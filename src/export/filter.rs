//! Asks the API whether it bounds the time that `timestamp_filter` names.
//!
//! Conversations are known that changed long after they were created. The second in which one changed is asked for by
//! `updated_at`: a server that honours the filter sends it, unless it changed again. After an increment in which nothing
//! older came, no witness has changed again, or it would have come: there its absence says enough. Elsewhere the second in
//! which it was created is asked for too: a server that bounds `created_at` sends it there.

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

/// Asks for the witnesses in `evidence` until one is there. Where all are absent, `absence_disproves` tells whether that
/// says that the filter is ignored. `None` where it cannot be told.
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
) -> Result<Option<Verdict>> {
    let (mut absent, mut unclear) = (0, 0);
    for witness in &evidence.witnesses {
        let changed = Request { window: second_of(witness.changed_at), ..request.clone() };
        let there = is_there(client, &changed, witness, run_id, shutdown).await?;
        if there == Some(true) {
            return Ok(Some(Verdict::Honoured));
        }
        if witness.said && absence_disproves {
            match there {
                Some(_) => absent += 1,
                None => unclear += 1,
            }
            continue;
        }
        let created = Request { window: second_of(witness.created_at), ..request.clone() };
        if is_there(client, &created, witness, run_id, shutdown).await? == Some(true) {
            return Ok(Some(Verdict::Ignored));
        }
    }
    Ok((absent > 0 && unclear == 0).then_some(Verdict::Ignored))
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
