//! The statements for BigQuery.
//!
//! A table over a Hive layout finds its partitions itself. Whether a table may have no file at all is not documented,
//! so two patterns read staged files and table files together, and `_FILE_NAME` distinguishes them. Sources:
//! cloud.google.com/bigquery/docs, reference/standard-sql/data-definition-language (CREATE EXTERNAL TABLE),
//! hive-partitioned-queries, create-delta-lake-table, reference/standard-sql/json_functions (JSON_KEYS quotes keys).

use super::latest::{Date, Dialect, before_partition, definitions, listed, names};
use super::place::{self, LakeAddress};
use super::text::{LATEST, UNTRIED, about, comment, escaped};
use crate::error::Result;
use crate::lake::Format;
use crate::layout;
use crate::model::{ColumnKind, LakeColumns, PartitionBy, TableColumns, UNKNOWN_PARTITION};

fn dialect(by: PartitionBy) -> Dialect {
    Dialect {
        schema: "decagon.",
        by,
        newest_of: |times| format!("(SELECT MAX(t) FROM UNNEST([{}]) AS t)", times.join(", ")),
        date: Date::Text,
    }
}

pub(super) fn statements(place: &LakeAddress, format: Format, by: PartitionBy, of: &LakeColumns) -> Result<String> {
    let lake = place.only(place::CloudKind::Gcs, "BigQuery", "gs")?;
    let mut text = about(place, "BigQuery");
    text.push_str(&comment(&[
        UNTRIED,
        "",
        "The tables are created in the dataset decagon, which must be in the bucket's location: CREATE SCHEMA decagon",
        "OPTIONS (location = '…'). If BigQuery refuses a pattern without a file, such as _landing before the first",
        "export, omit the pattern from the …_files tables and create them again later. A filter by",
        &format!("{} reads only those partitions of the four tables; whether also of the", by.column()),
        "…_files tables is up to BigQuery.",
    ]));
    if format == Format::Delta {
        text.push_str(&comment(&["Replace CONNECTION by the name of your connection to Cloud Storage."]));
    }
    text.push_str(&comment(LATEST));
    let tables = |table: &TableColumns| compacted(&lake, table, format, by);
    let copies = |table: &TableColumns| copies(&lake, table, format, by);
    text.push_str(&dialect(by).statements(of, tables, &landed_files(&lake, by), copies));
    Ok(text)
}

fn compacted(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let name = table.name();
    let folder = format!("{lake}/{name}");
    match format {
        Format::Parquet => format!(
            "
CREATE OR REPLACE EXTERNAL TABLE decagon.{name} (
{columns})
WITH PARTITION COLUMNS ({partition} DATE)
OPTIONS (
  format = 'PARQUET',
  uris = [{files}],
  hive_partition_uri_prefix = {folder},
  require_hive_partition_filter = false);
",
            columns = definitions(table, "", type_of),
            partition = by.column(),
            files = escaped(&format!("{folder}/*")),
            folder = escaped(&folder),
        ),
        Format::Delta => format!(
            "\nCREATE OR REPLACE EXTERNAL TABLE decagon.{name}\nWITH CONNECTION `CONNECTION`\n\
             OPTIONS (format = 'DELTA_LAKE', uris = [{}]);\n",
            escaped(&folder)
        ),
    }
}

fn type_of(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Id | ColumnKind::Json => "STRING",
        ColumnKind::Int | ColumnKind::BigInt => "INT64",
        ColumnKind::Double => "FLOAT64",
        ColumnKind::Bool => "BOOL",
        ColumnKind::Time => "TIMESTAMP",
    }
}

fn landed_files(lake: &str, by: PartitionBy) -> String {
    let before = before_partition(by);
    let commits = escaped(&format!("{lake}/{}/*", layout::checkpoints()));
    format!(
        "
-- Each checkpoint is one line, read as CSV of one column, because JSON never contains the delimiter.
CREATE OR REPLACE EXTERNAL TABLE decagon.checkpoints (line STRING)
OPTIONS (format = 'CSV', field_delimiter = '\\x01', quote = '', uris = [{commits}]);

CREATE OR REPLACE VIEW decagon.landed_files AS
WITH newest AS (SELECT MAX_BY(line, _FILE_NAME) AS state FROM decagon.checkpoints)
SELECT FORMAT('{before}%s/%s-%04d.parquet', TRIM(date, '\"'), JSON_VALUE(landed, '$.flush.run'),
  CAST(JSON_VALUE(landed, '$.flush.number') AS INT64)) AS file
FROM newest, UNNEST(JSON_QUERY_ARRAY(state, '$.landed')) AS landed,
  UNNEST(JSON_KEYS(PARSE_JSON(JSON_QUERY(landed, '$.dates')), 1)) AS date;
"
    )
}

fn copies(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let (name, landing, unknown, partition) = (table.name(), layout::landing(), UNKNOWN_PARTITION, by.column());
    let names = listed(names(table));
    let of_files = format!(
        "SELECT {names}, SAFE_CAST(day AS DATE) AS {partition}, day, landed
FROM (
  SELECT *, REGEXP_EXTRACT(_FILE_NAME, r'({partition}=[^/]*/[^/]*)$') AS file,
    REGEXP_EXTRACT(_FILE_NAME, r'{partition}=([^/]*)/[^/]*$') AS day,
    REGEXP_CONTAINS(_FILE_NAME, r'/{landing}/{name}/{partition}=[^/]*/[^/]*$') AS landed
  FROM decagon.{name}_files)
WHERE"
    );
    let is_landed = "file IN (SELECT file FROM decagon.landed_files)";
    let read = match format {
        Format::Parquet => format!("{of_files} NOT landed OR {is_landed}"),
        Format::Delta => format!(
            "SELECT {names}, {partition},
  COALESCE(CAST({partition} AS STRING), '{unknown}') AS day, false AS landed
FROM decagon.{name}
UNION ALL
{of_files} landed AND {is_landed}"
        ),
    };
    format!(
        "
CREATE OR REPLACE EXTERNAL TABLE decagon.{name}_files (
{columns})
OPTIONS (format = 'PARQUET', uris = [{files}, {landed}]);

CREATE OR REPLACE VIEW decagon.{name}_copies AS
{read};
",
        columns = definitions(table, "", type_of),
        files = escaped(&format!("{lake}/{name}/{partition}=*")),
        landed = escaped(&format!("{lake}/{landing}/{name}/{partition}=*")),
    )
}
