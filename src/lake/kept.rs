//! Keeps just staged files in memory, so that a compaction of the same run need not fetch them.
//!
//! Guarantees: bounded bytes. A file that is kept is the one in the store, because its key is used once and it is kept
//! after its upload.
//! Must not depend on: what is staged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use object_store::path::Path;

/// The most bytes that are kept.
const MOST_BYTES: usize = 32 << 20;

/// The files that are kept. A clone has the same.
#[derive(Debug, Clone, Default)]
pub struct KeptFiles(Arc<Mutex<KeptBytes>>);

#[derive(Debug, Default)]
struct KeptBytes {
    files: HashMap<Path, Bytes>,
    bytes: usize,
}

impl KeptFiles {
    /// Keeps a file that was uploaded, if there is room for it.
    pub fn keep(&self, key: Path, body: Bytes) {
        let mut kept = self.kept();
        if kept.bytes.saturating_add(body.len()) <= MOST_BYTES {
            kept.bytes = kept.bytes.saturating_add(body.len());
            kept.files.insert(key, body);
        }
    }

    /// Takes a file out; `None` if it is not kept.
    pub fn take(&self, key: &Path) -> Option<Bytes> {
        let mut kept = self.kept();
        let body = kept.files.remove(key)?;
        kept.bytes = kept.bytes.saturating_sub(body.len());
        Some(body)
    }

    fn kept(&self) -> MutexGuard<'_, KeptBytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_while_there_is_room_and_taken_once() {
        let kept = KeptFiles::default();
        let (one, other) = (Path::from("one"), Path::from("other"));
        kept.keep(one.clone(), vec![1; MOST_BYTES].into());
        kept.keep(other.clone(), vec![2].into());
        assert_eq!(kept.take(&other), None, "there was no room for it");
        assert_eq!(kept.take(&one).unwrap().len(), MOST_BYTES);
        assert_eq!(kept.take(&one), None);
        kept.keep(other.clone(), vec![2].into());
        assert_eq!(kept.take(&other).unwrap().as_ref(), [2]);
    }
}
