//! Multipart uploads, each with a record in the store until it ends.
//!
//! The request that completes a multipart upload cannot be conditional, so a writer that paused right before it could
//! replace a newer object by an old one. Guarantees: a run that takes over first aborts the recorded uploads, which
//! discards their parts. Azure cannot abort an upload; there a write of the object by another writer discards the
//! blocks, so they do no harm (Azure's documentation of Put Block List and Put Blob; the emulator Azurite keeps them,
//! so no test covers this). Must not depend on: what is uploaded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    Error as StoreError, MultipartId, MultipartUpload, ObjectStoreExt, PutPayload, PutResult, Result as StoreResult,
    UploadPart,
};
use serde::{Deserialize, Serialize};

use super::calls::Call;
use super::parted::PartedStore;
use super::store::{Store, to_json};
use crate::error::Result;

/// The record of an upload.
#[derive(Debug, Serialize, Deserialize)]
struct UploadRecord {
    key: String,
    upload_id: MultipartId,
}

/// Begins an upload to `key`, which has its record at `record` until it ends.
///
/// # Errors
/// If the store fails.
pub(super) async fn begin(store: &Store, key: &Path, record: &Path) -> Result<Box<dyn MultipartUpload>> {
    let failed = |error| store.failed("write", key, error);
    let Some(parted) = store.parted() else {
        return store.objects().put_multipart(key).await.map_err(failed);
    };
    let path = parted.path(key);
    let begun = parted.limit.run(Call::Multipart, parted.store.create_multipart(&path)).await;
    let upload_id = begun.map_err(failed)?;
    let body = to_json(&UploadRecord { key: key.to_string(), upload_id: upload_id.clone() })?;
    if let Err(error) = store.put(record, body).await {
        parted.abort(key, &upload_id).await.map_err(failed)?;
        return Err(error);
    }
    let (store, parted, key, record) = (store.clone(), parted.clone(), key.clone(), record.clone());
    Ok(Box::new(RecordedUpload { store, parted, key, upload_id, record, arrived: Arc::default() }))
}

/// Aborts the upload that another writer recorded at `record`.
///
/// # Errors
/// If the store fails.
pub async fn end_upload(store: &Store, record: Path) -> Result<()> {
    let Some(bytes) = store.get(&record).await? else { return Ok(()) };
    let UploadRecord { key, upload_id } = store.parse(&record, &bytes)?;
    let key = Path::from(key);
    if let Some(parted) = store.parted() {
        parted.abort(&key, &upload_id).await.map_err(|error| store.failed("abort an upload to", &key, error))?;
    }
    store.delete(vec![record]).await
}

/// An upload under way.
struct RecordedUpload {
    store: Store,
    parted: PartedStore,
    key: Path,
    upload_id: MultipartId,
    record: Path,
    /// The parts; `None` until one has arrived.
    arrived: Arc<Mutex<Vec<Option<PartId>>>>,
}

impl std::fmt::Debug for RecordedUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordedUpload({})", self.key)
    }
}

impl RecordedUpload {
    fn arrived(&self) -> MutexGuard<'_, Vec<Option<PartId>>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete_record(&self) -> StoreResult<()> {
        self.store.objects().delete(&self.record).await
    }
}

#[async_trait]
impl MultipartUpload for RecordedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.arrived().len();
        self.arrived().push(None);
        let (parted, path, id) = (self.parted.clone(), self.parted.path(&self.key), self.upload_id.clone());
        let arrived = Arc::clone(&self.arrived);
        Box::pin(async move {
            let part = parted.limit.run(Call::Part, parted.store.put_part(&path, &id, number, data)).await?;
            if let Some(place) = arrived.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                *place = Some(part);
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let parts: Option<Vec<PartId>> = self.arrived().iter().cloned().collect();
        let parts =
            parts.ok_or_else(|| StoreError::Generic { store: "store", source: "a part has not arrived".into() })?;
        let path = self.parted.path(&self.key);
        let completed = self.parted.store.complete_multipart(&path, &self.upload_id, parts);
        let done = self.parted.limit.run(Call::Multipart, completed).await?;
        self.delete_record().await?;
        Ok(done)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.parted.abort(&self.key, &self.upload_id).await?;
        self.delete_record().await
    }
}
