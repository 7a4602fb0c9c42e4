//! Promotes a staged file to a table file by copying the encoded row groups of its latest versions; decodes nothing.
//!
//! Must not depend on: whether the date has other files.

use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;

use super::writer::{WrittenFor, is_used, latest_row_groups, properties, row_policy};
use crate::error::{Error, Result};
use crate::model::{RowTimes, TableColumns, TimeRange, column};

/// A table file made from a staged file.
#[derive(Debug)]
pub struct Promoted {
    /// The Parquet file.
    pub body: Vec<u8>,
    /// Its rows.
    pub rows: u64,
    /// The earliest and latest `created_at` and `updated_at`, of conversations.
    pub times: RowTimes,
}

/// Promotes a `staged` file of `table`. `None` if its encoding or columns differ from a table file's: an older release
/// wrote it, it was staged for a merge or before the lake's policy, or it is damaged, which the reader that decodes it
/// reports.
///
/// # Errors
/// Only on a bug.
pub fn promote(table: &TableColumns, staged: &Bytes) -> Result<Option<Promoted>> {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    let Ok(metadata) = reader.parse_and_finish(staged) else { return Ok(None) };
    let Some(latest) = latest_row_groups(&metadata) else { return Ok(None) };
    let groups = metadata.row_groups().get(..latest).ok_or_else(|| Error::bug("more row groups than a file has"))?;
    if row_policy(&metadata) != *table.policy()
        || !has_columns_of(table, &metadata)
        || !groups.iter().all(has_table_encoding)
    {
        return Ok(None);
    }
    let rows = groups.iter().map(|group| u64::try_from(group.num_rows())).sum::<Result<_, _>>();
    let Ok(rows) = rows else { return Ok(None) };
    let properties = properties(table, WrittenFor::Table)?;
    let range = |name| range(groups, name);
    let (Some(created_at), Some(updated_at)) = (range(column::CREATED_AT), range(column::UPDATED_AT)) else {
        return Ok(None);
    };
    let times = RowTimes { created_at, updated_at };
    Ok(copy(&metadata, groups, staged, properties).ok().map(|body| Promoted { body, rows, times }))
}

/// The range of the times in a column, if any; `None` if its row groups have no statistics.
pub(super) fn range(groups: &[RowGroupMetaData], name: &str) -> Option<Option<TimeRange>> {
    let columns =
        groups.iter().flat_map(RowGroupMetaData::columns).filter(|column| column.column_path().string() == name);
    let mut whole: Option<TimeRange> = None;
    for column in columns {
        let Some(Statistics::Int64(values)) = column.statistics() else { return None };
        let range = match (values.min_opt(), values.max_opt()) {
            (Some(first), Some(last)) => Some(TimeRange { first: *first, last: *last }),
            _ if values.null_count_opt() == u64::try_from(column.num_values()).ok() => None,
            _ => return None,
        };
        whole = whole.into_iter().chain(range).reduce(TimeRange::join);
    }
    Some(whole)
}

/// Whether a file has the columns that this release writes for `table`.
pub(super) fn has_columns_of(table: &TableColumns, metadata: &ParquetMetaData) -> bool {
    let wanted = ArrowSchemaConverter::new().convert(&table.schema());
    wanted.is_ok_and(|wanted| wanted.root_schema() == metadata.file_metadata().schema_descr().root_schema())
}

pub(super) fn has_table_encoding(group: &RowGroupMetaData) -> bool {
    group
        .columns()
        .iter()
        .all(|column| matches!(column.compression(), Compression::ZSTD(_)) && column.encodings().all(is_used))
}

fn copy(
    metadata: &ParquetMetaData,
    groups: &[RowGroupMetaData],
    file: &Bytes,
    properties: WriterProperties,
) -> std::result::Result<Vec<u8>, ParquetError> {
    let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(Vec::with_capacity(file.len()), schema, Arc::new(properties))?;
    for (number, group) in groups.iter().enumerate() {
        let index = metadata.page_index_for_row_group(number);
        let mut copied = writer.next_row_group()?;
        for (position, column) in group.columns().iter().enumerate() {
            let close = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size())?,
                rows_written: u64::try_from(group.num_rows())?,
                metadata: column.clone(),
                bloom_filter: None,
                column_index: index.column_index(position).cloned(),
                offset_index: index.offset_index(position).cloned(),
            };
            copied.append_column(file, close)?;
        }
        copied.close()?;
    }
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::Encoding;
    use parquet::schema::types::ColumnPath;

    use super::*;
    use crate::files::CREATED_BY;
    use crate::files::samples::rows;
    use crate::files::{TableWriter, encode};
    use crate::model::{ColumnKind, LakeColumns, Table};

    fn columns(table: Table) -> Arc<TableColumns> {
        Arc::clone(LakeColumns::default().of(table))
    }

    fn read(table: Table, file: Vec<u8>) -> Vec<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
        assert_eq!(builder.schema().fields(), columns(table).schema().fields());
        builder.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_promoted_file_has_the_latest_versions_only() {
        for table in Table::ALL {
            let (latest, older) = (rows(table, 0..900), rows(table, 300..340));
            let expected = encode(&columns(table), WrittenFor::Table, std::slice::from_ref(&latest), &[]).unwrap();
            for older in [vec![], vec![older]] {
                let staged =
                    encode(&columns(table), WrittenFor::Table, std::slice::from_ref(&latest), &older).unwrap().into();
                let Promoted { body, rows, times } = promote(&columns(table), &staged).unwrap().unwrap();
                assert_eq!(times, RowTimes::of(&latest), "{}", table.name());
                assert_eq!(rows, latest.num_rows() as u64);
                let read_back = read(table, body);
                assert_eq!(read_back, read(table, expected.clone()));
                assert_eq!(read_back.iter().map(RecordBatch::num_rows).sum::<usize>(), latest.num_rows());
            }
        }
    }

    /// A staged file of an older release, with this encoding of texts.
    fn of_older_release(table: Table, texts: Encoding) -> Bytes {
        let mut properties = properties(&columns(table), WrittenFor::Table).unwrap().into_builder();
        properties = properties.set_created_by("decagon-lake 0.1.0".to_owned());
        for column in table.columns().iter().filter(|column| column.kind == ColumnKind::Text) {
            let path = ColumnPath::from(column.name.as_ref());
            properties = properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, texts);
        }
        let mut file = TableWriter::with_properties(&columns(table), properties.build(), Vec::new()).unwrap();
        file.write(&rows(table, 0..9)).unwrap();
        file.end_latest().unwrap();
        file.into_inner().unwrap().into()
    }

    #[test]
    fn a_staged_file_of_an_older_release_is_promoted_only_if_its_encoding_is_current() {
        for table in Table::ALL {
            let promoted = |texts| {
                promote(&columns(table), &of_older_release(table, texts)).unwrap().map(|promoted| promoted.body)
            };
            let file = Bytes::from(promoted(Encoding::PLAIN).expect("the current encoding"));
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
            assert_eq!(metadata.file_metadata().created_by(), Some(CREATED_BY), "the release that promoted it");
            assert!(promoted(Encoding::DELTA_LENGTH_BYTE_ARRAY).is_none(), "Spark 3.3 cannot read it");
            assert!(promoted(Encoding::DELTA_BYTE_ARRAY).is_none());
        }
    }

    #[test]
    fn a_file_with_other_columns_is_not_promoted() {
        let staged = encode(&columns(Table::Tags), WrittenFor::Table, &[rows(Table::Tags, 0..9)], &[]).unwrap().into();
        assert!(promote(&columns(Table::Tags), &staged).unwrap().is_some());
        assert!(promote(&columns(Table::Messages), &staged).unwrap().is_none());
        let (first, table) = (LakeColumns::of_schema(1, &[]), Table::Messages);
        let older = encode(first.of(table), WrittenFor::Table, &[], &[]).unwrap().into();
        assert!(promote(first.of(table), &older).unwrap().is_some());
        assert!(promote(&columns(table), &older).unwrap().is_none(), "its rows have to be filled");
    }

    #[test]
    fn a_file_that_is_damaged_or_staged_for_a_merge_is_not_promoted() {
        let table = Table::Messages;
        let batch = [rows(table, 0..9)];
        let promoted = |staged: Vec<u8>| promote(&columns(table), &staged.into()).unwrap().is_some();
        assert!(!promoted(encode(&columns(table), WrittenFor::Staging, &batch, &[]).unwrap()));
        let mut staged = encode(&columns(table), WrittenFor::Table, &batch, &[]).unwrap();
        assert!(promoted(staged.clone()));
        staged.truncate(staged.len() - 1);
        assert!(!promoted(staged));
        assert!(!promoted(Vec::new()));
    }
}
