//! The first commit of a Delta table, which creates it without rows.
//!
//! Guarantees: every reader and writer since 2020 can use the table, because its protocol is (1, 2). `delta_kernel`
//! would require table features (reader version 3, writer version 7) that the table does not use. An existing table
//! keeps its protocol.
//! Must not depend on: the rows of the table.

use chrono::{DateTime, Utc};
use delta_kernel::schema::StructType;
use serde_json::json;

use super::log::DeltaTable;
use crate::error::{Error, Result};
use crate::files::CREATED_BY;
use crate::layout;

impl DeltaTable {
    /// Creates the table, unless another writer has just done so; the caller has to read it again.
    ///
    /// # Errors
    /// If the store fails; the table may have been created nevertheless.
    pub(super) fn create(&self, now: DateTime<Utc>) -> Result<()> {
        let key = layout::numbered(&layout::delta_log(self.table), 0);
        let commit = first_commit(self.schema()?.as_ref(), self.partition_by.column(), now)?;
        self.runtime.block_on(self.store.create(&key, commit)).map(drop)
    }
}

/// The lines of the first commit of a table with these columns, one of which is the `partition`.
fn first_commit(schema: &StructType, partition: &str, now: DateTime<Utc>) -> Result<Vec<u8>> {
    let schema = serde_json::to_string(schema)
        .map_err(|error| Error::bug("cannot write the columns as a Delta schema").caused_by(error))?;
    let now = now.timestamp_millis();
    let actions = [
        json!({"commitInfo": {
            "timestamp": now, "operation": "CREATE TABLE", "operationParameters": {}, "engineInfo": CREATED_BY,
        }}),
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": random_id(), "format": {"provider": "parquet", "options": {}}, "schemaString": schema,
            "partitionColumns": [partition], "configuration": {}, "createdTime": now,
        }}),
    ];
    Ok(actions.iter().map(|action| format!("{action}\n")).collect::<String>().into_bytes())
}

/// A random UUID (version 4), the id of a table.
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
