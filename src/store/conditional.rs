//! Conditional puts, which keep two writers apart.
//!
//! Guarantees: a put whose answer is lost is sent again, so the second answer shows whether the first try succeeded.
//! Must not depend on: what the puts are for.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, PutMode, UpdateVersion};

use super::diagnose::{answer_is_lost, is_unsupported};

/// How often a conditional put is sent if its answers are lost.
const PUT_TRIES: usize = 3;

/// The outcome of a conditional put.
pub(super) enum PutOutcome {
    /// The condition held, and the object is written; with its ETag, if the store has ETags.
    Put(Option<String>),
    /// The condition did not hold.
    Refused,
    /// The store does not support conditions.
    Unsupported(object_store::Error),
}

/// A condition that holds for no object.
pub(super) fn if_stale() -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(format!("\"{:032}\"", 0)), version: Some("1".to_owned()) })
}

/// The condition that an object is still as it was `found`.
pub(super) fn if_unchanged(found: Option<&ObjectMeta>) -> PutMode {
    match found {
        None => PutMode::Create,
        Some(ObjectMeta { e_tag, version, .. }) => {
            PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
        }
    }
}

/// Puts an object on a condition. A put whose answer is lost is sent again, and may be refused because it had
/// succeeded.
///
/// # Errors
/// If the store fails; the object may still have been written.
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
            Ok(put) => return Ok(PutOutcome::Put(put.e_tag)),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                return Ok(PutOutcome::Refused);
            }
            Err(error) if answer_is_lost(&error) && !tries.is_empty() => {
                tracing::debug!("the answer to a put of {key} was lost; putting it again");
            }
            Err(error) if *mode != PutMode::Overwrite && is_unsupported(&error) => {
                return Ok(PutOutcome::Unsupported(error));
            }
            Err(error) => return Err(error),
        }
    }
}
