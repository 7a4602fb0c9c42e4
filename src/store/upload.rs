//! Writes an object, which may be large and may replace another, from a blocking thread.
//!
//! Guarantees: the object becomes visible as a whole, and replaces only the one found at the start. A fenced writer
//! replaces nothing: a small object is one conditional put. The request that completes a large one, and a local put,
//! cannot be conditional, so `prove` runs right before it, and a run that takes over aborts recorded uploads. Must not
//! depend on: what is written, or how `prove` works.

use std::io::Write;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectMeta};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::recorded;
use super::store::Store;
use crate::error::Result;

/// How many parts of one object are sent concurrently.
const PARTS_IN_FLIGHT: usize = 2;

/// An object being written. If it is dropped unfinished, the object stays as it was. Must not be used on an async
/// thread.
pub struct Upload {
    store: Store,
    key: Path,
    /// The key of the record of a multipart upload.
    record: Path,
    /// The object that it replaces.
    found: Option<ObjectMeta>,
    runtime: Handle,
    waiting: Vec<u8>,
    parts: Option<UploadParts>,
    bytes: u64,
}

/// The parts of a large object sent so far.
struct UploadParts {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Begins an object that replaces the `found` one; sends nothing yet. A multipart upload has its record at
    /// `record`.
    pub fn begin(store: &Store, key: Path, record: Path, found: Option<ObjectMeta>, runtime: Handle) -> Self {
        let store = store.clone();
        Upload { store, key, record, found, runtime, waiting: Vec::new(), parts: None, bytes: 0 }
    }

    /// Whether the object is so large that it is uploaded in parts.
    pub fn is_in_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Makes the object visible and returns its size in bytes. `prove` fails if another run has taken over.
    ///
    /// # Errors
    /// If the store or `prove` fails; the object then stays as it was.
    pub fn finish(mut self, prove: impl AsyncFn() -> Result<()>) -> Result<u64> {
        let rest = Bytes::from(std::mem::take(&mut self.waiting));
        let (runtime, parts) = (self.runtime.clone(), self.parts.take());
        runtime.block_on(async {
            match parts {
                None => {
                    if self.store.is_local() {
                        // Local puts are not conditional either.
                        prove().await?;
                    }
                    self.store.replace(&self.key, self.found.as_ref(), rest).await?;
                }
                Some(mut parts) => {
                    if let Err(error) = self.complete(&mut parts, rest, &prove).await {
                        self.abort(parts).await;
                        return Err(error);
                    }
                }
            }
            Ok(self.bytes)
        })
    }

    async fn complete(&self, parts: &mut UploadParts, rest: Bytes, prove: &impl AsyncFn() -> Result<()>) -> Result<()> {
        let failed = |error| self.store.failed("write", &self.key, error);
        if !rest.is_empty() {
            parts.send(rest).await.map_err(failed)?;
        }
        parts.wait_for(0).await.map_err(failed)?;
        prove().await?;
        parts.upload.complete().await.map(drop).map_err(failed)
    }

    fn send_part(&mut self) -> Result<()> {
        let rest = self.waiting.split_off(self.store.part_bytes);
        let part = Bytes::from(std::mem::replace(&mut self.waiting, rest));
        self.runtime.clone().block_on(async {
            let parts = match &mut self.parts {
                Some(parts) => parts,
                none => {
                    let upload = recorded::begin(&self.store, &self.key, &self.record).await?;
                    none.insert(UploadParts { upload, sending: JoinSet::new() })
                }
            };
            parts.send(part).await.map_err(|error| self.store.failed("write", &self.key, error))
        })
    }

    async fn abort(&self, mut parts: UploadParts) {
        parts.sending.shutdown().await;
        if let Err(error) = parts.upload.abort().await {
            tracing::warn!("cannot abort the upload of {}/{}: {error}", self.store.url(), self.key);
        }
    }
}

impl UploadParts {
    /// Sends a part; all but the last have the same size.
    async fn send(&mut self, part: Bytes) -> object_store::Result<()> {
        self.wait_for(PARTS_IN_FLIGHT - 1).await?;
        self.sending.spawn(self.upload.put_part(part.into()));
        Ok(())
    }

    /// Waits until at most `left` parts are being sent.
    async fn wait_for(&mut self, left: usize) -> object_store::Result<()> {
        while self.sending.len() > left {
            match self.sending.join_next().await {
                Some(Ok(sent)) => sent?,
                Some(Err(source)) => return Err(object_store::Error::JoinError { source }),
                None => {}
            }
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            self.runtime.clone().block_on(self.abort(parts));
        }
    }
}

impl Write for Upload {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(buffer);
        self.bytes = self.bytes.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        while self.waiting.len() >= self.store.part_bytes {
            self.send_part().map_err(std::io::Error::other)?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
