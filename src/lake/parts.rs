//! Uploads in parts to object stores, each on record until it has ended.
//!
//! What makes a large object visible is a request that knows no condition. A run that slept right before it could put an
//! old table in the place of a newer one; so whoever takes over a lake ends the uploads that are on record first, and
//! what such a run has sent is gone with them. On Azure an upload cannot be ended; there its blocks are gone once
//! anybody else writes the object, which is when they could do harm (Azure's documentation of Put Block List and Put Blob;
//! its emulator Azurite keeps them, so that no test shows it). Must not know: what is uploaded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartId, MultipartUpload, ObjectStoreExt, PutPayload, PutResult, Result as StoreResult,
    UploadPart,
};
use serde::{Deserialize, Serialize};

use super::Lake;
use super::bounded::Limit;
use super::calls::Call;
use super::store::to_json;
use crate::error::Result;
use crate::layout;
use crate::model::RunId;

/// A store that takes objects in parts, under ids that can be written down.
#[derive(Clone)]
pub(super) struct PartedStore {
    pub(super) store: Arc<dyn MultipartStore>,
    /// Where the lake begins in it.
    pub(super) prefix: Path,
    pub(super) limit: Limit,
}

/// An upload on record.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: String,
    upload_id: MultipartId,
}

impl std::fmt::Debug for PartedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartedStore({})", self.prefix)
    }
}

impl PartedStore {
    fn path(&self, key: &Path) -> Path {
        self.prefix.parts().chain(key.parts()).collect()
    }

    async fn abort(&self, key: &Path, id: &MultipartId) -> StoreResult<()> {
        match self.limit.on(Call::Multipart, self.store.abort_multipart(&self.path(key), id)).await {
            // It has ended already.
            Err(StoreError::NotFound { .. }) => Ok(()),
            aborted => aborted,
        }
    }
}

impl Lake {
    /// Begins an upload to `key`, and puts it on record for the time it takes.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn begin_parts(&self, key: &Path, run: &RunId) -> Result<Box<dyn MultipartUpload>> {
        let failed = |error| self.failed("write", key, error);
        let Some(parted) = &self.parted else {
            return self.store.put_multipart(key).await.map_err(failed);
        };
        let path = parted.path(key);
        let begun = parted.limit.on(Call::Multipart, parted.store.create_multipart(&path)).await;
        let upload_id = begun.map_err(failed)?;
        let record = layout::upload_record(run, key);
        let body = to_json(&Record { key: key.to_string(), upload_id: upload_id.clone() })?;
        if let Err(error) = self.put(&record, body).await {
            parted.abort(key, &upload_id).await.map_err(failed)?;
            return Err(error);
        }
        let (lake, parted, key) = (self.clone(), parted.clone(), key.clone());
        Ok(Box::new(Upload { lake, parted, key, upload_id, record, arrived: Arc::default() }))
    }

    /// Ends an upload that a run has left on `record`.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn end_upload(&self, record: Path) -> Result<()> {
        let Some(bytes) = self.get(&record).await? else { return Ok(()) };
        let Record { key, upload_id } = self.parse(&record, &bytes)?;
        let key = Path::from(key);
        if let Some(parted) = &self.parted {
            parted.abort(&key, &upload_id).await.map_err(|error| self.failed("end an upload to", &key, error))?;
        }
        self.delete(vec![record]).await
    }
}

/// An upload under way.
struct Upload {
    lake: Lake,
    parted: PartedStore,
    key: Path,
    upload_id: MultipartId,
    record: Path,
    /// The parts, once they have arrived.
    arrived: Arc<Mutex<Vec<Option<PartId>>>>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({})", self.key)
    }
}

impl Upload {
    fn arrived(&self) -> MutexGuard<'_, Vec<Option<PartId>>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn off_record(&self) -> StoreResult<()> {
        self.lake.store.delete(&self.record).await
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.arrived().len();
        self.arrived().push(None);
        let (parted, path, id) = (self.parted.clone(), self.parted.path(&self.key), self.upload_id.clone());
        let arrived = Arc::clone(&self.arrived);
        Box::pin(async move {
            let part = parted.limit.on(Call::Part, parted.store.put_part(&path, &id, number, data)).await?;
            if let Some(place) = arrived.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                *place = Some(part);
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let parts: Option<Vec<PartId>> = self.arrived().iter().cloned().collect();
        let parts =
            parts.ok_or_else(|| StoreError::Generic { store: "lake", source: "a part has not arrived".into() })?;
        let path = self.parted.path(&self.key);
        let completed = self.parted.store.complete_multipart(&path, &self.upload_id, parts);
        let done = self.parted.limit.on(Call::Multipart, completed).await?;
        self.off_record().await?;
        Ok(done)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.parted.abort(&self.key, &self.upload_id).await?;
        self.off_record().await
    }
}
