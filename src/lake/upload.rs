//! An object being written from a blocking thread: a table's, which may be large and takes the place of another.
//!
//! Promises: it becomes visible whole, when it is finished, and only in the place of what was there when it was begun;
//! a run that has lost the lake replaces nothing. Small objects go up in one conditional put. Of a large one the last,
//! short request makes it visible, and that is sent only while the lease is certain. Must not know: what it holds.

use std::io::Write;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt, WriteMultipart};
use tokio::runtime::Handle;

use super::{Lake, Lease};
use crate::error::{Error, Result};

/// Objects up to this size go up in one put, larger ones in parts of it.
const PART_BYTES: usize = if cfg!(test) { 4 << 10 } else { 10 << 20 };
/// How many parts of one object are on their way at a time.
const PARTS_IN_FLIGHT: usize = 2;

/// An object being written. Dropped without being finished, it leaves the object as it was. Must not be used on an async
/// thread.
pub struct Upload {
    lake: Lake,
    key: Path,
    /// What it takes the place of.
    found: Option<ObjectMeta>,
    runtime: Handle,
    waiting: Vec<u8>,
    parts: Option<WriteMultipart>,
    bytes: u64,
}

impl Upload {
    /// Begins an object in the place of what was `found` there; nothing is sent yet.
    pub fn begin(lake: &Lake, key: Path, found: Option<ObjectMeta>, runtime: Handle) -> Self {
        Upload { lake: lake.clone(), key, found, runtime, waiting: Vec::new(), parts: None, bytes: 0 }
    }

    /// Ends the object and returns its size in bytes.
    ///
    /// # Errors
    /// Where the store fails, and kind `Held` where another run has the lake; the object is then as it was before.
    pub fn finish(mut self, lease: &Lease) -> Result<u64> {
        let rest = Bytes::from(std::mem::take(&mut self.waiting));
        let (runtime, parts) = (self.runtime.clone(), self.parts.take());
        runtime.block_on(async {
            let done = match parts {
                None => {
                    lease.confirm().await?;
                    let mode = self.lake.in_place_of(self.found.as_ref());
                    self.lake.store().put_opts(&self.key, rest.into(), mode.into()).await
                }
                Some(mut parts) => {
                    parts.put(rest);
                    let sent = parts.wait_for_capacity(0).await;
                    match sent.map_err(|error| self.failed(error)).and(lease.confirm().await) {
                        Ok(()) => parts.finish().await,
                        Err(error) => {
                            self.take_back(parts).await;
                            return Err(error);
                        }
                    }
                }
            };
            done.map(|_| self.bytes).map_err(|error| self.failed(error))
        })
    }

    fn send_part(&mut self) -> object_store::Result<()> {
        let part = Bytes::from(std::mem::take(&mut self.waiting));
        self.runtime.clone().block_on(async {
            let parts = match &mut self.parts {
                Some(parts) => parts,
                none => {
                    let upload = self.lake.store().put_multipart(&self.key).await?;
                    none.insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES))
                }
            };
            parts.wait_for_capacity(PARTS_IN_FLIGHT).await?;
            parts.put(part);
            Ok(())
        })
    }

    async fn take_back(&self, parts: WriteMultipart) {
        if let Err(error) = parts.abort().await {
            tracing::warn!("cannot take back the upload of {}/{}: {error}", self.lake.url(), self.key);
        }
    }

    fn failed(&self, error: StoreError) -> Error {
        match error {
            StoreError::Precondition { .. } | StoreError::AlreadyExists { .. } => {
                Error::held(format!("another run has replaced {}/{}", self.lake.url(), self.key))
                    .with_hint("let one run at a time write to a lake; run this again")
            }
            error => self.lake.failed("write", &self.key, error),
        }
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
        if self.waiting.len() >= PART_BYTES {
            self.send_part()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
