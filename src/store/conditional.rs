//! A put that the store makes only on a condition, which is what keeps two writers apart.
//!
//! Promises: an answer that is lost is asked for again; whether the first try got through then shows in the answer to the
//! second. Must not depend on: what the puts are for.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, PutMode, UpdateVersion};

use super::diagnose::{answer_is_lost, is_unknown_to_store};

/// How often a conditional put is sent if its answers are lost.
const PUT_TRIES: usize = 3;

/// What became of a put on a condition.
pub(super) enum PutOutcome {
    /// The condition holds, and the object is there now.
    Put,
    /// The condition does not hold.
    Refused,
    /// The store does not know conditions.
    Unknown(object_store::Error),
}

/// A version that no object has.
pub(super) fn stale() -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(format!("\"{:032}\"", 0)), version: Some("1".to_owned()) })
}

/// The condition that an object is what was `found`, and nothing else.
pub(super) fn still(found: Option<&ObjectMeta>) -> PutMode {
    match found {
        None => PutMode::Create,
        Some(ObjectMeta { e_tag, version, .. }) => {
            PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
        }
    }
}

/// Puts an object on a condition. A put whose answer is lost is sent again, and may be refused because it got through.
///
/// # Errors
/// If the store fails; the object may have been written all the same.
pub(super) async fn put(
    store: &dyn ObjectStore,
    key: &Path,
    body: &Bytes,
    mode: &PutMode,
) -> object_store::Result<PutOutcome> {
    let mut tries = 1..=PUT_TRIES;
    loop {
        tries.next();
        match store.put_opts(key, body.clone().into(), mode.clone().into()).await {
            Ok(_) => return Ok(PutOutcome::Put),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                return Ok(PutOutcome::Refused);
            }
            Err(error) if answer_is_lost(&error) && !tries.is_empty() => {
                tracing::debug!("the answer to a put of {key} was lost; putting it again");
            }
            Err(error) if *mode != PutMode::Overwrite && is_unknown_to_store(&error) => {
                return Ok(PutOutcome::Unknown(error));
            }
            Err(error) => return Err(error),
        }
    }
}
