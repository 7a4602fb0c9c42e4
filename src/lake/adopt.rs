//! Makes a table's object of a landing object's newest copies, their row groups byte for byte: nothing is decoded.
//!
//! Must not know: when that is all that a date has.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::file_writer::{CREATED_BY, Lifetime, newest_row_groups, properties};
use crate::error::{Error, Result};
use crate::model::Table;

/// A table's object, made of a landing object.
#[derive(Debug)]
pub struct Adopted {
    /// The Parquet file.
    pub body: Vec<u8>,
    /// Its rows.
    pub rows: u64,
}

/// The newest copies of a `landed` object of `table`, as they would be in the table. `None` where they are encoded
/// otherwise, by another version or because they were to be merged; and where the file is damaged, which who decodes it
/// can tell.
///
/// # Errors
/// Only on a bug.
pub fn adopt(table: Table, landed: &Bytes) -> Result<Option<Adopted>> {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    let Ok(metadata) = reader.parse_and_finish(landed) else { return Ok(None) };
    let Some(newest) = newest_row_groups(&metadata) else { return Ok(None) };
    let groups = metadata.row_groups().get(..newest).ok_or_else(|| Error::bug("more row groups than a file has"))?;
    if metadata.file_metadata().created_by() != Some(CREATED_BY) || !groups.iter().all(is_as_in_a_table) {
        return Ok(None);
    }
    let rows = groups.iter().map(|group| u64::try_from(group.num_rows())).sum::<Result<_, _>>();
    let Ok(rows) = rows else { return Ok(None) };
    let properties = properties(table, Lifetime::Lasting)?;
    Ok(copy(&metadata, groups, landed, properties).ok().map(|body| Adopted { body, rows }))
}

fn is_as_in_a_table(group: &RowGroupMetaData) -> bool {
    group.columns().iter().all(|column| matches!(column.compression(), Compression::ZSTD(_)))
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
    use chrono::DateTime;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::flatten::{Origin, flatten};
    use crate::lake::encode;
    use crate::model::RunId;

    fn rows(table: Table, ids: std::ops::Range<u32>) -> RecordBatch {
        let json: Vec<_> = ids
            .map(|id| {
                format!(r#"{{"conversation_id": "c{id:05}", "messages": [{{"text": "of {id}"}}, {{"text": "é"}}]}}"#)
            })
            .collect();
        let run_id = RunId::new(DateTime::UNIX_EPOCH, 1);
        let origin = Origin { run_id: &run_id, exported_at: DateTime::UNIX_EPOCH, first_seq: 0 };
        let batch = flatten(json.iter().map(String::as_str), &origin).unwrap();
        batch.tables.get(table).as_ref().clone()
    }

    fn read(table: Table, file: Vec<u8>) -> Vec<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
        assert_eq!(builder.schema().fields(), table.schema().fields());
        builder.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_newest_copies_are_a_table_as_if_they_had_been_written_alone() {
        for table in Table::ALL {
            let (newest, older) = (rows(table, 0..900), rows(table, 300..340));
            let alone = encode(table, Lifetime::Lasting, std::slice::from_ref(&newest), &[]).unwrap();
            for older in [vec![], vec![older]] {
                let landed = encode(table, Lifetime::Lasting, std::slice::from_ref(&newest), &older).unwrap().into();
                let Adopted { body, rows } = adopt(table, &landed).unwrap().unwrap();
                assert_eq!(rows, newest.num_rows() as u64);
                let read_back = read(table, body);
                assert_eq!(read_back, read(table, alone.clone()));
                assert_eq!(read_back.iter().map(RecordBatch::num_rows).sum::<usize>(), newest.num_rows());
            }
        }
    }

    #[test]
    fn what_was_to_be_merged_or_is_damaged_is_not_adopted() {
        let table = Table::Messages;
        let batch = [rows(table, 0..9)];
        let adopted = |landed: Vec<u8>| adopt(table, &landed.into()).unwrap().is_some();
        assert!(!adopted(encode(table, Lifetime::Passing, &batch, &[]).unwrap()));
        let mut landed = encode(table, Lifetime::Lasting, &batch, &[]).unwrap();
        assert!(adopted(landed.clone()));
        landed.truncate(landed.len() - 1);
        assert!(!adopted(landed));
        assert!(!adopted(Vec::new()));
    }
}
