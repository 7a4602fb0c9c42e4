//! What a store may keep of deleted and replaced objects, which only its administrator can erase.
//!
//! Must not depend on: what is stored.

use object_store::path::Path;
use serde::Serialize;

use super::answers::Backend;
use super::store::Store;
use crate::error::Result;

/// Something that could not be erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// What it is.
    pub what: String,
    /// How to erase it.
    pub remedy: String,
}

impl Store {
    /// What the store may keep of objects that were deleted or replaced. The object under `key`, best one just written, tells
    /// whether the bucket has versions.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn remains(&self, key: &Path) -> Result<Vec<Remains>> {
        let remains = |what: &str, remedy: String| vec![Remains { what: what.to_owned(), remedy }];
        let bucket = self.bucket();
        Ok(match self.backend {
            // A bucket that never had versions names none.
            Backend::S3 if self.has_versions(key).await? => remains(
                "noncurrent versions in a versioned bucket",
                format!(
                    "aws s3api put-bucket-lifecycle-configuration --bucket {bucket} --lifecycle-configuration \
                     '{{\"Rules\": [{{\"ID\": \"erase\", \"Status\": \"Enabled\", \"Filter\": {{\"Prefix\": \"\"}}, \
                     \"NoncurrentVersionExpiration\": {{\"NoncurrentDays\": 1}}}}]}}' (it replaces the bucket's other \
                     rules: merge them)"
                ),
            ),
            Backend::S3 => Vec::new(),
            Backend::Gcs => remains(
                "noncurrent versions and soft-deleted objects, if the bucket keeps them (soft deletion is on by default, \
                 for 7 days)",
                format!(
                    "gcloud storage buckets update gs://{bucket} --clear-soft-delete; gcloud storage ls --all-versions \
                     gs://{bucket}"
                ),
            ),
            Backend::Azure => remains(
                "soft-deleted blobs and earlier versions, if the account keeps them",
                format!(
                    "az storage blob list --container-name {bucket} --include dv; az storage blob delete each of them"
                ),
            ),
            Backend::Local => remains(
                "snapshots and backups of the disk, if there are any",
                "delete them, or let them expire".to_owned(),
            ),
        })
    }

    /// The bucket or container, from the store's address.
    fn bucket(&self) -> &str {
        let (scheme, inside) = self.url().split_once("://").unwrap_or_default();
        let host_parts = usize::from(scheme == "https");
        inside.split(['/', '@']).nth(host_parts).filter(|bucket| !bucket.is_empty()).unwrap_or("BUCKET")
    }

    /// Whether the store names a version of the object.
    async fn has_versions(&self, key: &Path) -> Result<bool> {
        let object = self.head(key).await?;
        Ok(object.and_then(|object| object.version).is_some_and(|version| version != "null"))
    }
}
