//! How many calls were made to a lake's store, by kind: what a store charges for, and what slows a run down.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// How many entries a store puts on one page of a listing (S3 and GCS; Azure has 5,000).
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

/// Calls made so far; shared by everything that makes them.
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

/// Calls to the store. Where the store answers them all, as many requests; those it made the client send again are not
/// counted. Fields only get added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StoreCalls {
    /// Pages of listings.
    pub list: u64,
    /// Objects looked at.
    pub head: u64,
    /// Objects read, or some ranges of one at once.
    pub get: u64,
    /// Objects written in one put.
    pub put: u64,
    /// Parts of large objects.
    pub part: u64,
    /// Uploads in parts begun, completed or given up.
    pub multipart: u64,
    /// Objects copied within the store.
    pub copy: u64,
    /// Objects deleted; S3 takes a thousand of them in one request.
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

    /// Counts the pages of a listing as its entries come: the first one with the call itself.
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
