//! What a checkpoint says of an unfinished reconciliation: its walk, what was compared, and which objects hold the ids
//! that the API returned.
//!
//! Guarantees: everything here is pure. It names no person and no conversation: ids are keyed hashes in objects of their
//! own. Must not depend on: how ids are hashed and compared.

use chrono::{DateTime, Utc};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::walk::Walk;
use crate::layout::{self, FlushId};

/// An unfinished reconciliation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// The range as the user gave it, which identifies it: the end of its window may be another one on each run.
    pub asked: Asked,
    /// Its walk.
    pub walk: Walk,
    /// Whether the walk is complete.
    #[serde(default)]
    pub is_walked: bool,
    /// The key of the hashes of ids.
    pub hash_key: u64,
    /// The flushes whose objects hold the hashes of the ids that came.
    pub seen: Vec<FlushId>,
    /// What was compared.
    pub compared: Compared,
}

/// The range that a user asked to reconcile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The first instant inside.
    pub from: Option<DateTime<Utc>>,
    /// The first instant after it.
    pub to: Option<DateTime<Utc>>,
}

/// How the conversations that came compare with the lake's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Those that the lake lacked.
    pub missing: u64,
    /// Those of which the lake had an older version.
    pub stale: u64,
    /// Those that the lake had marked as deleted.
    pub returned: u64,
    /// Ids that came; some may have come twice.
    pub ids: u64,
    /// Malformed entries, which may be any conversation.
    pub malformed: u64,
}

/// What a flush of a reconciliation's walk noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlushNotes {
    /// How its conversations compare.
    pub compared: Compared,
    /// The hashes of their ids, as the flush's object holds them.
    pub hashes: Vec<u8>,
}

impl Compared {
    fn add(&mut self, other: Compared) {
        let Compared { missing, stale, returned, ids, malformed } = other;
        self.missing = self.missing.saturating_add(missing);
        self.stale = self.stale.saturating_add(stale);
        self.returned = self.returned.saturating_add(returned);
        self.ids = self.ids.saturating_add(ids);
        self.malformed = self.malformed.saturating_add(malformed);
    }
}

impl Reconciliation {
    /// Begins one of the range that was `asked` for.
    pub fn new(asked: Asked, walk: Walk, hash_key: u64) -> Self {
        let (seen, compared) = (Vec::new(), Compared::default());
        Reconciliation { asked, walk, is_walked: false, hash_key, seen, compared }
    }

    /// The keys of its objects.
    pub fn keys(&self) -> impl Iterator<Item = Path> {
        self.seen.iter().map(layout::seen)
    }

    /// Records the progress of its walk. A walk that began again knows nothing of what came before.
    pub(super) fn advance(&mut self, walk: &Walk) {
        if self.walk.started_at != walk.started_at {
            (self.seen, self.compared) = (Vec::new(), Compared::default());
        }
        self.walk = walk.clone();
    }

    /// Adds what a flush noted.
    pub(super) fn note(&mut self, flush: &FlushId, noted: FlushNotes) {
        if !noted.hashes.is_empty() {
            self.seen.push(flush.clone());
        }
        self.compared.add(noted.compared);
    }
}
