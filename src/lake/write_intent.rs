//! The write intent for Delta tables, recorded in a checkpoint before it is applied so that any later run can replay
//! it.
//!
//! Guarantees: it names everything that a replay needs; its number makes the replay idempotent.
//! Must not depend on: how tables change.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::FlushId;
use crate::model::{CreatedDate, PerTable, RowTimes};

/// The new table files of some partitions, already written, and the files that they replace in all four tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteIntent {
    /// The number of the checkpoint that first named it. A table that has applied it has applied all with lower
    /// numbers.
    pub number: u64,
    /// The change of each partition.
    pub dates: BTreeMap<CreatedDate, Replacement>,
}

impl WriteIntent {
    /// When the newest of its files was written.
    ///
    /// # Errors
    /// Kind `Bug` if it names no partition.
    pub fn written_at(&self) -> Result<DateTime<Utc>> {
        let newest = self.dates.values().map(|it| it.written_at).max();
        newest.ok_or_else(|| Error::bug("a write intent names no partition"))
    }
}

/// The new table files of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The id in their names.
    pub file: FlushId,
    /// When they were written.
    pub written_at: DateTime<Utc>,
    /// How much they hold.
    pub extent: Extent,
    /// Their ETags, as the store answered; not of use in Delta tables.
    #[serde(default)]
    pub etags: PerTable<Option<String>>,
    /// The form of their columns and encodings; see [`PartitionEntry`](super::PartitionEntry).
    #[serde(default)]
    pub form: u32,
    /// The times of their conversations.
    #[serde(default)]
    pub times: RowTimes,
    /// The keys of the table files that they were merged from, and replace.
    pub replaces: PerTable<Option<String>>,
    /// The flushes whose staged rows are in them.
    #[serde(rename = "landed")]
    pub flushes: Vec<FlushId>,
}

/// Rows and bytes in each table.
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
