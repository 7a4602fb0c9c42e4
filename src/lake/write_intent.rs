//! What is on its way into tables that take more than one put to change, as a checkpoint names it.
//!
//! Promises: who finds one in a checkpoint can carry it out, again if need be, with nothing but what it says. Must not
//! know: how tables are changed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::FlushId;
use crate::model::{CreatedDate, PerTable};

/// New objects of some dates, which are written and take the places of others in all four tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteIntent {
    /// The number of the checkpoint that named it first: a table that has taken one up has taken up all with lower ones.
    pub number: u64,
    /// What becomes of which date.
    pub dates: BTreeMap<CreatedDate, Replacement>,
}

impl WriteIntent {
    /// When the newest of its objects was written.
    ///
    /// # Errors
    /// If it has none, which is a bug.
    pub fn written_at(&self) -> Result<DateTime<Utc>> {
        let newest = self.dates.values().map(|it| it.written_at).max();
        newest.ok_or_else(|| Error::bug("a write intent names no date"))
    }
}

/// The new objects of one date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// What they are called by.
    pub file: FlushId,
    /// When they were written.
    pub written_at: DateTime<Utc>,
    /// What they hold.
    pub extent: Extent,
    /// The keys of those that they were made of, and take the place of.
    pub replaces: PerTable<Option<String>>,
    /// The flushes whose landing is in them.
    pub landed: Vec<FlushId>,
}

/// How much there is of something in each table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Rows.
    pub rows: PerTable<u64>,
    /// Bytes of Parquet.
    pub bytes: PerTable<u64>,
}

impl Extent {
    /// Adds `other`.
    pub fn add(&mut self, other: &Extent) {
        self.rows.add(&other.rows);
        self.bytes.add(&other.bytes);
    }
}
