//! The parts of a lake's address, because each engine writes the same place differently.
//!
//! Names are those of the objects: percent-encoding is decoded, as the lake itself does.

use url::Url;

use crate::error::{Error, Result};

/// The address of a lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LakeAddress {
    /// A folder on this machine, as an absolute path.
    Local(String),
    /// A bucket or container, its account if the address names one, and the prefix in it, which may be empty.
    Store { kind: CloudKind, bucket: String, account: Option<String>, prefix: String },
}

/// The kind of an object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloudKind {
    S3,
    Gcs,
    Azure,
}

impl LakeAddress {
    /// Parses an address that [`crate::lake::Lake`] has accepted.
    pub(super) fn parse(address: &str) -> Result<Self> {
        // A one-letter scheme is a drive.
        let url = match Url::parse(address) {
            Ok(url) if url.scheme().len() > 1 => url,
            _ => return Ok(LakeAddress::Local(address.trim_end_matches('/').to_owned())),
        };
        let wrong = || Error::usage(format!("cannot find the bucket in --lake {address}"));
        let host = url.host_str().unwrap_or_default();
        let path = object_store::path::Path::from_url_path(url.path()).map_err(|error| wrong().caused_by(error))?;
        let path = path.as_ref();
        // The first part of the path names the bucket if the host does not.
        let in_path = || path.split_once('/').unwrap_or((path, ""));
        let (kind, bucket, account, prefix) = match url.scheme() {
            "s3" | "s3a" => (CloudKind::S3, host, None, path),
            "gs" => (CloudKind::Gcs, host, None, path),
            "https" if host.ends_with(".amazonaws.com") => match host.split_once(".s3.").or(host.split_once(".s3-")) {
                Some((bucket, _)) => (CloudKind::S3, bucket, None, path),
                None => (CloudKind::S3, in_path().0, None, in_path().1),
            },
            "https" if host.ends_with(".r2.cloudflarestorage.com") => (CloudKind::S3, in_path().0, None, in_path().1),
            "https" => (CloudKind::Azure, in_path().0, host.split('.').next(), in_path().1),
            // abfss://container@account.dfs.core.windows.net/prefix, or the short az://container/prefix.
            _ if !url.username().is_empty() => (CloudKind::Azure, url.username(), host.split('.').next(), path),
            _ => (CloudKind::Azure, host, None, path),
        };
        if bucket.is_empty() {
            return Err(wrong());
        }
        let account = account.map(str::to_owned);
        Ok(LakeAddress::Store { kind, bucket: bucket.to_owned(), account, prefix: prefix.to_owned() })
    }

    /// The address as `scheme://bucket/prefix`, without a slash at its end; a local path unchanged.
    pub(super) fn url(&self) -> String {
        match self {
            LakeAddress::Local(path) => path.clone(),
            LakeAddress::Store { kind: CloudKind::S3, .. } => self.below("s3"),
            LakeAddress::Store { kind: CloudKind::Gcs, .. } => self.below("gs"),
            LakeAddress::Store { kind: CloudKind::Azure, .. } => self.below("az"),
        }
    }

    /// The address with another scheme.
    pub(super) fn below(&self, scheme: &str) -> String {
        match self {
            LakeAddress::Local(path) => path.clone(),
            LakeAddress::Store { bucket, prefix, .. } => {
                format!("{scheme}://{bucket}/{prefix}").trim_end_matches('/').to_owned()
            }
        }
    }

    /// The address with `scheme` for an engine that reads only one kind of store.
    ///
    /// # Errors
    /// Kind `Usage` if the lake is in another kind.
    pub(super) fn only(&self, needed: CloudKind, engine: &str, scheme: &str) -> Result<String> {
        match self {
            LakeAddress::Store { kind, .. } if *kind == needed => Ok(self.below(scheme)),
            _ => Err(cannot_read(engine, self, &format!("{scheme}://"))),
        }
    }
}

/// The error that an engine cannot read a lake there.
pub(super) fn cannot_read(engine: &str, place: &LakeAddress, reads: &str) -> Error {
    Error::usage(format!("{engine} cannot read the lake {}", place.url()))
        .with_hint(format!("use a lake at {reads}, or `--engine duckdb` or `--engine spark`, which read any"))
}

/// The error that an engine needs the account of an Azure lake, which only the environment names.
pub(super) fn needs_account(place: &LakeAddress) -> Error {
    Error::usage(format!("the lake {} does not name its account", place.url()))
        .with_hint("use --lake abfss://container@account.dfs.core.windows.net/prefix")
}
