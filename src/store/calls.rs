//! Counts the calls to a store by kind, because stores charge for them and they slow a run down.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// The entries on one page of a listing (S3 and GCS; Azure has 5,000).
const LISTED_AT_ONCE: u64 = 1_000;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    List,
    Head,
    Get,
    Put,
    Part,
    Multipart,
    Copy,
    Delete,
}

/// The calls made so far; all clones of a store share it.
#[derive(Debug, Default)]
pub(super) struct Counter {
    list: AtomicU64,
    head: AtomicU64,
    get: AtomicU64,
    put: AtomicU64,
    part: AtomicU64,
    multipart: AtomicU64,
    copy: AtomicU64,
    delete: AtomicU64,
}

/// Calls to the store: as many as requests if none was retried, because retries are not counted. Fields are only added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreCalls {
    /// Pages of listings.
    pub list: u64,
    /// Objects whose metadata was read.
    pub head: u64,
    /// Objects read, or ranges of one in one call.
    pub get: u64,
    /// Objects written in one put.
    pub put: u64,
    /// Parts of multipart uploads.
    pub part: u64,
    /// Multipart uploads begun, completed or aborted.
    pub multipart: u64,
    /// Objects copied within the store.
    pub copy: u64,
    /// Objects deleted; S3 deletes up to a thousand in one request.
    pub delete: u64,
}

impl Counter {
    pub(super) fn add(&self, call: Call) {
        let kind = match call {
            Call::List => &self.list,
            Call::Head => &self.head,
            Call::Get => &self.get,
            Call::Put => &self.put,
            Call::Part => &self.part,
            Call::Multipart => &self.multipart,
            Call::Copy => &self.copy,
            Call::Delete => &self.delete,
        };
        kind.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the pages of a listing by its entries; the call itself counts the first page.
    pub(super) fn add_listed(&self, entry: u64) {
        if entry > 0 && entry.is_multiple_of(LISTED_AT_ONCE) {
            self.add(Call::List);
        }
    }

    pub(super) fn so_far(&self) -> StoreCalls {
        let of = |kind: &AtomicU64| kind.load(Ordering::Relaxed);
        StoreCalls {
            list: of(&self.list),
            head: of(&self.head),
            get: of(&self.get),
            put: of(&self.put),
            part: of(&self.part),
            multipart: of(&self.multipart),
            copy: of(&self.copy),
            delete: of(&self.delete),
        }
    }
}
