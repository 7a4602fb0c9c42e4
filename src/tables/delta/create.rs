//! The first commit of a Delta table, which makes it: without rows, and asking no more of its readers than they all can do.
//!
//! It is written here because `delta_kernel` makes tables that ask for table features (reader version 3, writer version 7)
//! though they use none. The protocol of this one is (1, 2), which every reader and writer has known since 2020. A table
//! that is there keeps its protocol. Must not know: what goes into the table.

use chrono::{DateTime, Utc};
use delta_kernel::schema::StructType;
use serde_json::json;

use super::log::DeltaTable;
use crate::error::{Error, Result};
use crate::files::CREATED_BY;
use crate::layout;

impl DeltaTable {
    /// Makes a table without rows, unless another program has just made one: what it is by then has to be looked at.
    ///
    /// # Errors
    /// If the store fails; the table may have been made all the same.
    pub(super) fn create(&self, now: DateTime<Utc>) -> Result<()> {
        let key = layout::numbered(&layout::delta_log(self.table), 0);
        let commit = first_commit(self.schema()?.as_ref(), now)?;
        self.runtime.block_on(self.store.create(&key, commit)).map(drop)
    }
}

/// The lines of the first commit of a table with these columns.
fn first_commit(schema: &StructType, now: DateTime<Utc>) -> Result<Vec<u8>> {
    let schema = serde_json::to_string(schema)
        .map_err(|error| Error::bug("the columns cannot be written as Delta tables have them").caused_by(error))?;
    let now = now.timestamp_millis();
    let actions = [
        json!({"commitInfo": {
            "timestamp": now, "operation": "CREATE TABLE", "operationParameters": {}, "engineInfo": CREATED_BY,
        }}),
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": random_id(), "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": [layout::PARTITION], "configuration": {}, "createdTime": now,
        }}),
    ];
    Ok(actions.iter().map(|action| format!("{action}\n")).collect::<String>().into_bytes())
}

/// A random UUID (version 4), which a table is known by.
fn random_id() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_random_uuids() {
        for _ in 0..100 {
            let id = random_id();
            let parts: Vec<_> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
        }
    }
}
