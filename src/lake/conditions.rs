//! Whether a store keeps the conditions of a put, on which commits, leases and the replacing of tables are built.
//!
//! Some stores that speak S3 take such a put and ignore its condition: two runs at once would then lose each other's
//! rows, and nothing would tell. So it is tried before a run does anything, by a put that has to be refused. Two that
//! arrive at the same instant are another matter, which `check` tries. Must not know: what the puts are for.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, UpdateVersion};

use super::Lake;
use super::diagnose::{Told, answer_is_lost, is_unknown_to_store};
use crate::error::{Error, Result};

/// A version that no object has.
fn stale() -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(format!("\"{:032}\"", 0)), version: Some("1".to_owned()) })
}

/// How often a conditional put is sent whose answer was lost.
const PUT_TRIES: usize = 3;

/// What became of a put on a condition.
pub(super) enum Fate {
    /// It holds, and the object is there now.
    Put,
    /// It does not hold.
    Refused,
}

impl Lake {
    /// Makes sure that the store refuses to put `body` over itself at `key` on conditions that do not hold. Returns false
    /// where somebody has removed it in the meantime; it may be there again then.
    ///
    /// # Errors
    /// Kind `Store` where the store does not refuse it, or fails.
    pub(super) async fn prove_conditions(&self, key: &Path, body: &[u8]) -> Result<bool> {
        let put = async |mode| self.put_on(key, Bytes::copy_from_slice(body), mode).await;
        if let Fate::Put = put(PutMode::Create).await? {
            return match put(PutMode::Create).await? {
                Fate::Refused => Ok(false),
                Fate::Put => Err(self.lacks_conditions("puts an object over one where there must be none")),
            };
        }
        match put(stale()).await? {
            Fate::Refused => Ok(true),
            Fate::Put => Err(self.lacks_conditions("puts an object in the place of another one than it was told to")),
        }
    }

    /// Puts an object on a condition. An answer that was lost leaves open whether the put got through; it is sent again
    /// then, and may be refused because it has.
    ///
    /// # Errors
    /// Where the store fails, or does not know conditions; the object may have been written all the same.
    pub(super) async fn put_on(&self, key: &Path, body: Bytes, mode: PutMode) -> Result<Fate> {
        let mut tries = 1..=PUT_TRIES;
        loop {
            tries.next();
            match self.store.put_opts(key, body.clone().into(), mode.clone().into()).await {
                Ok(_) => return Ok(Fate::Put),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    return Ok(Fate::Refused);
                }
                Err(error) if answer_is_lost(&error) && !tries.is_empty() => {
                    tracing::debug!("the answer to a put of {key} was lost; putting it again");
                }
                Err(error) if mode != PutMode::Overwrite && is_unknown_to_store(&error) => {
                    return Err(self.lacks_conditions("does not know them").caused_by(Told::briefly(&error)));
                }
                Err(error) => return Err(self.failed("write", key, error)),
            }
        }
    }

    /// A store that cannot keep two runs apart.
    pub(super) fn lacks_conditions(&self, fault: &str) -> Error {
        Error::store(format!("the store of {} lacks conditional puts: it {fault}", self.url())).with_hint(
            "without them two runs at once lose rows; use another store, or see to it yourself that one runs at a time \
             and give --unsafe-no-lock",
        )
    }
}
