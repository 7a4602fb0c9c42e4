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

impl Lake {
    /// Makes sure that the store refuses to put `body` over itself at `key` on conditions that do not hold.
    ///
    /// # Errors
    /// Kind `Store` where it does not, or fails.
    pub(super) async fn prove_conditions(&self, key: &Path, body: &[u8]) -> Result<()> {
        for (mode, fault) in [
            (PutMode::Create, "puts an object over one where there must be none"),
            (stale(), "puts an object in the place of another one than it was told to"),
        ] {
            let body = Bytes::copy_from_slice(body);
            match self.store.put_opts(key, body.into(), mode.into()).await {
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Ok(_) => return Err(self.lacks_conditions(fault)),
                Err(error) if is_unknown_to_store(&error) => {
                    return Err(self.lacks_conditions("does not know them").caused_by(Told::briefly(&error)));
                }
                Err(error) => return Err(self.failed("write", key, error)),
            }
        }
        Ok(())
    }

    /// A store that cannot keep two runs apart.
    pub(super) fn lacks_conditions(&self, fault: &str) -> Error {
        Error::store(format!("the store of {} lacks conditional puts: it {fault}", self.url())).with_hint(
            "without them two runs at once lose rows; use another store, or see to it yourself that one runs at a time \
             and give --unsafe-no-lock",
        )
    }
}
