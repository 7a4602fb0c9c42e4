//! What a file's footer says without its rows: how many there are, their times, and whether the file is current.
//!
//! Must not depend on: how a footer is fetched.

use parquet::file::metadata::ParquetMetaData;

use super::promote::{has_columns_of, has_table_encoding, range};
use super::writer::{is_own, row_policy};
use crate::model::{LakeColumns, RowTimes, Table, TableColumns, column};

/// The encodings of the table files that this release writes: a number that grows when they change.
const ENCODINGS: u32 = 1;
/// The number of policies up to which forms tell them apart.
const MOST_POLICIES: u32 = 4_000;

/// The form of the table files that this release writes to a lake with these columns. It grows with the columns and the
/// encodings, and with each policy of the lake; 0 stands for all older ones, and for files of other programs.
pub fn current_form(columns: &LakeColumns) -> u32 {
    oldest_form_of_policy(columns) + ENCODINGS * 10_000 + columns.count()
}

/// The form before all those of files whose rows follow the lake's policy.
pub fn oldest_form_of_policy(columns: &LakeColumns) -> u32 {
    columns.policies().min(MOST_POLICIES) * 1_000_000
}

/// What a footer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// The rows.
    pub rows: u64,
    /// The times of the conversations, if it is a file of conversations that this program wrote.
    pub times: RowTimes,
    /// Whether it has the columns and encodings that this release writes.
    pub is_current: bool,
}

impl Footer {
    /// Reads the footer of a file of `table`; `None` if it claims an impossible number of rows.
    pub(super) fn of(table: &TableColumns, metadata: &ParquetMetaData) -> Option<Self> {
        let rows = u64::try_from(metadata.file_metadata().num_rows()).ok()?;
        let groups = metadata.row_groups();
        let is_own = is_own(metadata);
        let is_current = is_own
            && row_policy(metadata) == *table.policy()
            && has_columns_of(table, metadata)
            && groups.iter().all(has_table_encoding);
        // Another program may count time in other units.
        let has_times = is_own && table.table() == Table::Conversations;
        let range = |name| if has_times { range(groups, name).flatten() } else { None };
        let times = RowTimes { created_at: range(column::CREATED_AT), updated_at: range(column::UPDATED_AT) };
        Some(Footer { rows, times, is_current })
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{RecordBatch, TimestampMicrosecondArray};
    use bytes::Bytes;
    use parquet::file::metadata::ParquetMetaDataReader;

    use super::*;
    use crate::files::{WrittenFor, encode, samples};

    fn footer(table: Table, purpose: WrittenFor, rows: &RecordBatch) -> Footer {
        let lake = LakeColumns::default();
        let file = Bytes::from(encode(lake.of(table), purpose, std::slice::from_ref(rows), &[]).unwrap());
        Footer::of(lake.of(table), &ParquetMetaDataReader::new().parse_and_finish(&file).unwrap()).unwrap()
    }

    #[test]
    fn a_footer_tells_rows_times_and_whether_the_file_is_current() {
        // More than one row group.
        let rows = samples::rows(Table::Conversations, 0..40_000);
        let found = footer(Table::Conversations, WrittenFor::Table, &rows);
        assert_eq!((found.rows, found.is_current), (40_000, true));
        assert_eq!(found.times, RowTimes::of(&rows));
        assert!(found.times.created_at.is_some());
        assert!(!footer(Table::Conversations, WrittenFor::Staging, &rows).is_current, "Snappy");
        assert!(footer(Table::Tags, WrittenFor::Table, &samples::rows(Table::Tags, 0..9)).is_current);
    }

    #[test]
    fn the_form_grows_with_the_columns() {
        let forms =
            [LakeColumns::of_schema(1, &[]), LakeColumns::default(), LakeColumns::new(&["plan".parse().unwrap()])];
        assert!(forms.map(|columns| current_form(&columns)).is_sorted_by(|before, after| before < after));
    }

    #[test]
    fn a_column_without_times_has_no_span() {
        let rows = samples::rows(Table::Conversations, 0..9);
        let (schema, mut columns) = (rows.schema(), rows.columns().to_vec());
        let place = schema.index_of("updated_at").unwrap();
        columns[place] = std::sync::Arc::new(TimestampMicrosecondArray::new_null(9).with_timezone("UTC"));
        let found = footer(Table::Conversations, WrittenFor::Table, &RecordBatch::try_new(schema, columns).unwrap());
        assert_eq!(found.times.updated_at, None);
        assert_eq!(footer(Table::Conversations, WrittenFor::Table, &rows.slice(0, 0)).times, RowTimes::default());
    }
}
