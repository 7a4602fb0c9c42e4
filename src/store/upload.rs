//! An object that is written from a blocking thread; it may be large and may take the place of another.
//!
//! Promises: it becomes visible whole, when it is finished, and only in the place of what was there when it was begun. A
//! writer that has lost its right to write replaces nothing. Small objects go up in one conditional put. Of a large one the
//! last, short request makes it visible; it knows no condition, so the right is proven right before it, and whoever takes
//! over ends what is on its way. Must not depend on: what it holds, and how the right is proven.

use std::io::Write;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectMeta};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::recorded;
use super::store::Store;
use crate::error::Result;

/// Objects up to this size go up in one put, larger ones in parts of it.
const PART_BYTES: usize = if cfg!(test) { 4 << 10 } else { 10 << 20 };
/// How many parts of one object are on their way at a time.
const PARTS_IN_FLIGHT: usize = 2;

/// An object being written. Dropped without being finished, it leaves the object as it was. Must not be used on an async
/// thread.
pub struct Upload {
    store: Store,
    key: Path,
    /// Where it is on record while it goes up in parts.
    record: Path,
    /// What it takes the place of.
    found: Option<ObjectMeta>,
    runtime: Handle,
    waiting: Vec<u8>,
    parts: Option<UploadParts>,
    bytes: u64,
}

/// The parts of a large object that were sent so far.
struct UploadParts {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Begins an object in the place of what was `found` there; nothing is sent yet. If it goes up in parts, it is kept on
    /// `record`.
    pub fn begin(store: &Store, key: Path, record: Path, found: Option<ObjectMeta>, runtime: Handle) -> Self {
        let store = store.clone();
        Upload { store, key, record, found, runtime, waiting: Vec::new(), parts: None, bytes: 0 }
    }

    /// Whether it is so large that it goes up in parts.
    pub fn is_in_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Ends the object and returns its size in bytes. `prove` shows that nobody else has taken over.
    ///
    /// # Errors
    /// Those of the store and of `prove`; the object is then as it was before.
    pub fn finish(mut self, prove: impl AsyncFn() -> Result<()>) -> Result<u64> {
        let rest = Bytes::from(std::mem::take(&mut self.waiting));
        let (runtime, parts) = (self.runtime.clone(), self.parts.take());
        runtime.block_on(async {
            match parts {
                None => {
                    if self.store.is_local() {
                        // There it knows no condition either.
                        prove().await?;
                    }
                    self.store.replace(&self.key, self.found.as_ref(), rest).await?;
                }
                Some(mut parts) => {
                    if let Err(error) = self.complete(&mut parts, rest, &prove).await {
                        self.take_back(parts).await;
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
        let rest = self.waiting.split_off(PART_BYTES);
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

    async fn take_back(&self, mut parts: UploadParts) {
        parts.sending.shutdown().await;
        if let Err(error) = parts.upload.abort().await {
            tracing::warn!("cannot take back the upload of {}/{}: {error}", self.store.url(), self.key);
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

    /// Waits until no more than `left` parts are on their way.
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
            self.runtime.clone().block_on(self.take_back(parts));
        }
    }
}

impl Write for Upload {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(buffer);
        self.bytes = self.bytes.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        while self.waiting.len() >= PART_BYTES {
            self.send_part().map_err(std::io::Error::other)?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
