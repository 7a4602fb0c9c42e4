//! Decides which versions of a walk are staged, for walks that compare them with the lake.
//!
//! Must not depend on: what they are compared with.

use crate::error::Result;
use crate::flatten::Batch;
use crate::lake::FlushNotes;
use crate::model::CreatedDate;

/// What a walk does with each page before its rows are gathered.
pub trait Sieve: Send {
    /// Leaves in `kept`, the rows inside the window with their partitions, those to stage. `malformed` entries came with
    /// them. Runs on a blocking thread.
    ///
    /// # Errors
    /// End the walk; the pages before are staged.
    fn sift(&mut self, batch: &Batch, malformed: u64, kept: &mut Vec<(CreatedDate, usize)>) -> Result<()>;

    /// Takes what it has noted since the last call, to be committed with the pages.
    fn take(&mut self) -> FlushNotes;
}
