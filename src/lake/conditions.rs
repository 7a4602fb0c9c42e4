//! Whether a store keeps the conditions of a put, on which commits, leases and the replacing of tables are built.
//!
//! Some stores that speak S3 take such a put and ignore its condition: two runs at once would then lose each other's
//! rows, and nothing would tell. So it is tried before a run does anything, by a put that has to be refused. Two that
//! arrive at the same instant are another matter, which `check` tries. Must not know: what the puts are for.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, UpdateVersion};

use super::Lake;
use super::diagnose::{Told, is_unknown_to_store};
use crate::error::{Error, Result};

/// A version that no object has.
fn stale() -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(format!("\"{:032}\"", 0)), version: Some("1".to_owned()) })
}

/// What became of a put whose condition does not hold.
enum Fate {
    Refused,
    Put,
}

impl Lake {
    /// Makes sure that the store refuses to put `body` over itself at `key` on conditions that do not hold. Returns false
    /// where somebody has removed it in the meantime; it may be there again then.
    ///
    /// # Errors
    /// Kind `Store` where the store does not refuse it, or fails.
    pub(super) async fn prove_conditions(&self, key: &Path, body: &[u8]) -> Result<bool> {
        if let Fate::Put = self.put_against(key, body, PutMode::Create).await? {
            return match self.put_against(key, body, PutMode::Create).await? {
                Fate::Refused => Ok(false),
                Fate::Put => Err(self.lacks_conditions("puts an object over one where there must be none")),
            };
        }
        match self.put_against(key, body, stale()).await? {
            Fate::Refused => Ok(true),
            Fate::Put => Err(self.lacks_conditions("puts an object in the place of another one than it was told to")),
        }
    }

    async fn put_against(&self, key: &Path, body: &[u8], mode: PutMode) -> Result<Fate> {
        match self.store.put_opts(key, Bytes::copy_from_slice(body).into(), mode.into()).await {
            Ok(_) => Ok(Fate::Put),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Fate::Refused)
            }
            Err(error) if is_unknown_to_store(&error) => {
                Err(self.lacks_conditions("does not know them").caused_by(Told::briefly(&error)))
            }
            Err(error) => Err(self.failed("write", key, error)),
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
