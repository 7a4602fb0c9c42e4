//! Keyed hashes of ids, and the objects of a reconciliation that hold them.
//!
//! Guarantees: a hash is the same in every release, because a reconciliation may be resumed by another one.
//! Must not depend on: what is compared.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::layout::{self, FlushId};

/// The bit that says whether a conversation was inside the range; it is 0 in every hash.
const INSIDE: u64 = 1;
/// The bytes of a hash.
const BYTES: usize = 8;

/// Hashes ids with the key of a reconciliation.
#[derive(Debug, Clone, Copy)]
pub struct IdHasher {
    key: u64,
}

impl IdHasher {
    /// A hasher with this key.
    pub fn new(key: u64) -> Self {
        IdHasher { key }
    }

    /// The hash of an id.
    pub fn hash(self, id: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key, !self.key);
        hasher.write(id.as_bytes());
        hasher.finish() & !INSIDE
    }
}

/// Adds a hash to those of a flush, and whether its conversation is `inside` the range.
pub(super) fn push(hashes: &mut Vec<u8>, hash: u64, inside: bool) {
    hashes.extend_from_slice(&(hash | if inside { INSIDE } else { 0 }).to_le_bytes());
}

/// A part of the hashes that a walk has noted.
pub(super) struct Seen {
    /// In ascending order; of a conversation that came inside the range and outside of it, both.
    sorted: Vec<u64>,
}

impl Seen {
    /// Reads the hashes of `flushes` that leave the remainder `part` when divided by `parts`. Must not be called on an
    /// async thread.
    ///
    /// # Errors
    /// If the store fails; kind `Integrity` if an object is missing or damaged.
    pub(super) fn read(lake: &Lake, flushes: &[FlushId], parts: u64, part: u64, runtime: &Handle) -> Result<Self> {
        let mut sorted = Vec::new();
        for flush in flushes {
            let key = layout::seen(flush);
            let damaged = |how: &str| {
                Error::integrity(format!("{}/{key} {how}", lake.url()))
                    .with_hint("run `reconcile --restart`, which walks the range again")
            };
            let bytes = runtime.block_on(lake.store().get(&key))?.ok_or_else(|| damaged("is missing"))?;
            let (hashes, rest) = bytes.as_chunks::<BYTES>();
            if !rest.is_empty() {
                return Err(damaged("is damaged"));
            }
            let hashes = hashes.iter().map(|bytes| u64::from_le_bytes(*bytes));
            sorted.extend(hashes.filter(|hash| is_in(*hash, parts, part)));
        }
        sorted.sort_unstable();
        sorted.dedup();
        Ok(Seen { sorted })
    }

    /// Whether a conversation with this hash came.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.has_inside(hash) || self.sorted.binary_search(&hash).is_ok()
    }

    /// Whether it came inside the range.
    pub(super) fn has_inside(&self, hash: u64) -> bool {
        self.sorted.binary_search(&(hash | INSIDE)).is_ok()
    }

    /// How many conversations came inside the range.
    pub(super) fn inside(&self) -> u64 {
        self.sorted.iter().filter(|hash| **hash & INSIDE != 0).count() as u64
    }
}

/// Whether a hash belongs to `part` of `parts`.
pub(super) fn is_in(hash: u64, parts: u64, part: u64) -> bool {
    (hash >> 1) % parts.max(1) == part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_and_never_changes() {
        assert_eq!(IdHasher::new(7).hash("c1"), IdHasher::new(7).hash("c1"));
        assert_ne!(IdHasher::new(7).hash("c1"), IdHasher::new(8).hash("c1"));
        assert_ne!(IdHasher::new(7).hash("c1"), IdHasher::new(7).hash("c2"));
        assert_eq!(IdHasher::new(7).hash("c1") & INSIDE, 0);
    }

    #[test]
    fn a_conversation_that_came_outside_the_range_came() {
        let mut bytes = Vec::new();
        push(&mut bytes, 40, true);
        push(&mut bytes, 40, false);
        push(&mut bytes, 60, false);
        let mut sorted: Vec<_> = bytes.as_chunks::<BYTES>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        sorted.sort_unstable();
        let seen = Seen { sorted };
        assert_eq!((seen.has(40), seen.has(60), seen.has(20)), (true, true, false));
        assert_eq!((seen.has_inside(40), seen.has_inside(60), seen.inside()), (true, false, 1));
    }
}
