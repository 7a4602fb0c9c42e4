//! Writes an object, which may be large and may replace another: its bytes from a blocking thread, the last request on
//! an async one.
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

/// An object being written. If it is dropped before it is closed, the object stays as it was. Must not be used on an
/// async thread.
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

    /// Writes the bytes of `body`, without copying them if they are all.
    ///
    /// # Errors
    /// If the store fails.
    pub fn write_owned(&mut self, body: Vec<u8>) -> std::io::Result<()> {
        if !self.waiting.is_empty() || self.parts.is_some() || body.len() >= self.store.part_bytes {
            return self.write_all(&body);
        }
        self.bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
        self.waiting = body;
        Ok(())
    }

    /// Ends the bytes of the object.
    pub fn close(mut self) -> ClosedUpload {
        ClosedUpload {
            store: self.store.clone(),
            key: self.key.clone(),
            found: self.found.take(),
            rest: Bytes::from(std::mem::take(&mut self.waiting)),
            parts: self.parts.take(),
            bytes: self.bytes,
        }
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
}

/// An object whose bytes are all there, but which is not visible yet. If it is dropped unfinished, the object stays as
/// it was, and the next run aborts an upload in parts.
pub struct ClosedUpload {
    store: Store,
    key: Path,
    found: Option<ObjectMeta>,
    /// The bytes that were not sent yet.
    rest: Bytes,
    parts: Option<UploadParts>,
    bytes: u64,
}

/// An object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Its size.
    pub bytes: u64,
    /// Its ETag, if the store has ETags.
    pub e_tag: Option<String>,
}

impl ClosedUpload {
    /// Whether the object is so large that it is uploaded in parts.
    pub fn is_in_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Makes the object visible. `prove` fails if another run has taken over; it runs right before, if need be.
    ///
    /// # Errors
    /// If the store or `prove` fails; the object then stays as it was.
    pub async fn finish(mut self, prove: impl Future<Output = Result<()>>) -> Result<Uploaded> {
        let rest = std::mem::take(&mut self.rest);
        let e_tag = match self.parts.take() {
            None => {
                if self.store.is_local() {
                    // Local puts are not conditional either.
                    prove.await?;
                }
                self.store.replace(&self.key, self.found.as_ref(), rest).await?
            }
            Some(mut parts) => match parts.complete(rest, prove, &self.store, &self.key).await {
                Ok(e_tag) => e_tag,
                Err(error) => {
                    parts.abort(&self.store, &self.key).await;
                    return Err(error);
                }
            },
        };
        Ok(Uploaded { bytes: self.bytes, e_tag })
    }

    /// Gives the object up.
    pub async fn abort(mut self) {
        if let Some(parts) = self.parts.take() {
            parts.abort(&self.store, &self.key).await;
        }
    }
}

impl UploadParts {
    async fn complete(
        &mut self,
        rest: Bytes,
        prove: impl Future<Output = Result<()>>,
        store: &Store,
        key: &Path,
    ) -> Result<Option<String>> {
        let failed = |error| store.failed("write", key, error);
        if !rest.is_empty() {
            self.send(rest).await.map_err(failed)?;
        }
        self.wait_for(0).await.map_err(failed)?;
        prove.await?;
        self.upload.complete().await.map(|put| put.e_tag).map_err(failed)
    }

    async fn abort(mut self, store: &Store, key: &Path) {
        self.sending.shutdown().await;
        if let Err(error) = self.upload.abort().await {
            tracing::warn!("cannot abort the upload of {}/{key}: {error}", store.url());
        }
    }

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
            self.runtime.clone().block_on(parts.abort(&self.store, &self.key));
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
