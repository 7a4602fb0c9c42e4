//! Makes a table's object of a landing object's newest copies, their row groups byte for byte: nothing is decoded.
//!
//! Must not know: when that is all that a date has.

use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;

use super::writer::{WrittenFor, is_used, newest_row_groups, properties};
use crate::error::{Error, Result};
use crate::model::Table;

/// A table's object, made of a landing object.
#[derive(Debug)]
pub struct Promoted {
    /// The Parquet file.
    pub body: Vec<u8>,
    /// Its rows.
    pub rows: u64,
}

/// The newest copies of a `landed` object of `table`, as they would be in the table, whichever version wrote them. `None`
/// where they are encoded otherwise, or have other columns: by an older version, or because they were to be merged; and
/// where the file is damaged, which who decodes it can tell.
///
/// # Errors
/// Only on a bug.
pub fn promote(table: Table, landed: &Bytes) -> Result<Option<Promoted>> {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    let Ok(metadata) = reader.parse_and_finish(landed) else { return Ok(None) };
    let Some(newest) = newest_row_groups(&metadata) else { return Ok(None) };
    let groups = metadata.row_groups().get(..newest).ok_or_else(|| Error::bug("more row groups than a file has"))?;
    if !has_columns_of(table, &metadata) || !groups.iter().all(is_as_in_a_table) {
        return Ok(None);
    }
    let rows = groups.iter().map(|group| u64::try_from(group.num_rows())).sum::<Result<_, _>>();
    let Ok(rows) = rows else { return Ok(None) };
    let properties = properties(table, WrittenFor::Table)?;
    Ok(copy(&metadata, groups, landed, properties).ok().map(|body| Promoted { body, rows }))
}

/// Whether a file's columns are those that files of `table` have today.
fn has_columns_of(table: Table, metadata: &ParquetMetaData) -> bool {
    let wanted = ArrowSchemaConverter::new().convert(&table.schema());
    wanted.is_ok_and(|wanted| wanted.root_schema() == metadata.file_metadata().schema_descr().root_schema())
}

fn is_as_in_a_table(group: &RowGroupMetaData) -> bool {
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
    use crate::model::ColumnKind;

    fn read(table: Table, file: Vec<u8>) -> Vec<RecordBatch> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
        assert_eq!(builder.schema().fields(), table.schema().fields());
        builder.with_batch_size(1 << 20).build().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_newest_copies_are_a_table_as_if_they_had_been_written_alone() {
        for table in Table::ALL {
            let (newest, older) = (rows(table, 0..900), rows(table, 300..340));
            let alone = encode(table, WrittenFor::Table, std::slice::from_ref(&newest), &[]).unwrap();
            for older in [vec![], vec![older]] {
                let landed = encode(table, WrittenFor::Table, std::slice::from_ref(&newest), &older).unwrap().into();
                let Promoted { body, rows } = promote(table, &landed).unwrap().unwrap();
                assert_eq!(rows, newest.num_rows() as u64);
                let read_back = read(table, body);
                assert_eq!(read_back, read(table, alone.clone()));
                assert_eq!(read_back.iter().map(RecordBatch::num_rows).sum::<usize>(), newest.num_rows());
            }
        }
    }

    /// A landing object as an older version wrote it, its texts encoded so.
    fn of_older_version(table: Table, texts: Encoding) -> Bytes {
        let mut properties = properties(table, WrittenFor::Table).unwrap().into_builder();
        properties = properties.set_created_by("decagon-lake 0.1.0".to_owned());
        for column in table.columns().iter().filter(|column| column.kind == ColumnKind::Text) {
            let path = ColumnPath::from(column.name);
            properties = properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, texts);
        }
        let mut file = TableWriter::with_properties(table, properties.build(), Vec::new()).unwrap();
        file.write(&rows(table, 0..9)).unwrap();
        file.ends_newest().unwrap();
        file.into_inner().unwrap().into()
    }

    #[test]
    fn what_an_older_version_has_landed_is_adopted_if_it_is_encoded_as_today_and_else_merged() {
        for table in Table::ALL {
            let promoted =
                |texts| promote(table, &of_older_version(table, texts)).unwrap().map(|promoted| promoted.body);
            let file = Bytes::from(promoted(Encoding::PLAIN).expect("it is what a table has"));
            let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).unwrap();
            assert_eq!(metadata.file_metadata().created_by(), Some(CREATED_BY), "it is of the version that made it");
            assert!(promoted(Encoding::DELTA_LENGTH_BYTE_ARRAY).is_none(), "Spark 3.3 cannot read it");
            assert!(promoted(Encoding::DELTA_BYTE_ARRAY).is_none());
        }
    }

    #[test]
    fn what_has_other_columns_is_not_adopted() {
        let landed = encode(Table::Tags, WrittenFor::Table, &[rows(Table::Tags, 0..9)], &[]).unwrap().into();
        assert!(promote(Table::Tags, &landed).unwrap().is_some());
        assert!(promote(Table::Messages, &landed).unwrap().is_none());
    }

    #[test]
    fn what_was_to_be_merged_or_is_damaged_is_not_adopted() {
        let table = Table::Messages;
        let batch = [rows(table, 0..9)];
        let promoted = |landed: Vec<u8>| promote(table, &landed.into()).unwrap().is_some();
        assert!(!promoted(encode(table, WrittenFor::Staging, &batch, &[]).unwrap()));
        let mut landed = encode(table, WrittenFor::Table, &batch, &[]).unwrap();
        assert!(promoted(landed.clone()));
        landed.truncate(landed.len() - 1);
        assert!(!promoted(landed));
        assert!(!promoted(Vec::new()));
    }
}
