//! The statements for Snowflake.
//!
//! They are views over a stage, because external tables see a new or replaced file only after a refresh, while each
//! query lists a stage. Sources: docs.snowflake.com/en, user-guide/querying-stage, user-guide/querying-metadata,
//! sql-reference/sql/create-stage, sql-reference/sql/create-file-format, sql-reference/sql/create-iceberg-table-delta.

use super::latest::{Date, Dialect, before_partition, columns, listed};
use super::place::{self, LakeAddress, cannot_read, needs_account};
use super::text::{LATEST, UNTRIED, about, comment, escaped};
use crate::error::Result;
use crate::lake::Format;
use crate::layout;
use crate::model::{ColumnKind, LakeColumns, PartitionBy, TableColumns, UNKNOWN_PARTITION};

fn dialect(by: PartitionBy) -> Dialect {
    let newest_of = |times: &[&str]| format!("GREATEST_IGNORE_NULLS({})", times.join(", "));
    Dialect { schema: "", by, newest_of, date: Date::Text }
}

pub(super) fn statements(place: &LakeAddress, format: Format, by: PartitionBy, of: &LakeColumns) -> Result<String> {
    let lake = match place {
        LakeAddress::Local(_) => return Err(cannot_read("Snowflake", place, "s3://, gs:// or Azure")),
        LakeAddress::Store { kind: place::CloudKind::S3, .. } => place.below("s3"),
        LakeAddress::Store { kind: place::CloudKind::Gcs, .. } => place.below("gcs"),
        LakeAddress::Store { kind: place::CloudKind::Azure, account: None, .. } => return Err(needs_account(place)),
        LakeAddress::Store { kind: place::CloudKind::Azure, account: Some(account), bucket, prefix } => {
            format!("azure://{account}.blob.core.windows.net/{bucket}/{prefix}").trim_end_matches('/').to_owned()
        }
    };
    let mut text = about(place, "Snowflake");
    text.push_str(&comment(&[
        UNTRIED,
        "",
        "Replace INTEGRATION by the name of your storage integration. Times are UTC, without a zone. Each query lists",
        &format!(
            "the stage, so no partition has to be registered; how much a filter by {} saves is up to Snowflake.",
            by.column()
        ),
    ]));
    if format == Format::Delta {
        text.push_str(&comment(&[
            "Replace VOLUME by your external volume of the lake, and CATALOG_INTEGRATION by your catalog integration",
            "for Delta.",
        ]));
    }
    text.push_str(&comment(LATEST));
    text.push_str(&format!(
        "
CREATE FILE FORMAT IF NOT EXISTS decagon_parquet TYPE = PARQUET USE_LOGICAL_TYPE = TRUE;
CREATE FILE FORMAT IF NOT EXISTS decagon_json TYPE = JSON;
CREATE STAGE IF NOT EXISTS decagon_lake URL = {} STORAGE_INTEGRATION = INTEGRATION;
",
        escaped(&format!("{lake}/"))
    ));
    let tables = |table: &TableColumns| compacted(table, format, by);
    text.push_str(&dialect(by).statements(of, tables, &landed_files(by), |table| copies(table, by)));
    Ok(text)
}

/// A table's files in a folder of the stage.
fn read(table: &TableColumns, folder: &str, by: PartitionBy) -> String {
    let partition = by.column();
    let columns = table.columns().iter();
    let columns: Vec<_> = columns.map(|c| format!("  $1:{}::{} AS {}", c.name, type_of(c.kind), c.name)).collect();
    format!(
        "SELECT\n{},\n  TRY_TO_DATE(REGEXP_SUBSTR(METADATA$FILENAME, '{partition}=([^/]*)/', 1, 1, 'e')) AS {partition}\n\
         FROM @decagon_lake/{folder}/ (FILE_FORMAT => 'decagon_parquet', PATTERN => '.*[.]parquet')",
        columns.join(",\n")
    )
}

fn type_of(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Id | ColumnKind::Json => "VARCHAR",
        ColumnKind::Int => "INT",
        ColumnKind::BigInt => "BIGINT",
        ColumnKind::Double => "DOUBLE",
        ColumnKind::Bool => "BOOLEAN",
        ColumnKind::Time => "TIMESTAMP_NTZ",
    }
}

fn compacted(table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let name = table.name();
    match format {
        Format::Parquet => format!("\nCREATE OR REPLACE VIEW {name} AS\n{};\n", read(table, name, by)),
        Format::Delta => format!(
            "\nCREATE OR REPLACE ICEBERG TABLE {name}\n  EXTERNAL_VOLUME = 'VOLUME' CATALOG = 'CATALOG_INTEGRATION'\n  \
             BASE_LOCATION = '{name}/' AUTO_REFRESH = TRUE;\n"
        ),
    }
}

fn landed_files(by: PartitionBy) -> String {
    let before = before_partition(by);
    format!(
        "
CREATE OR REPLACE VIEW landed_files AS
WITH commits AS (
  SELECT $1 AS state, METADATA$FILENAME AS name
  FROM @decagon_lake/{}/ (FILE_FORMAT => 'decagon_json', PATTERN => '.*[.]json')
), newest AS (SELECT MAX_BY(state, name) AS state FROM commits)
SELECT '{before}' || dates.key || '/' || landed.value:flush:run::VARCHAR || '-'
  || LPAD(landed.value:flush:number::VARCHAR, GREATEST(4, LENGTH(landed.value:flush:number::VARCHAR)), '0')
  || '.parquet' AS file
FROM newest, LATERAL FLATTEN(INPUT => newest.state:landed) landed, LATERAL FLATTEN(INPUT => landed.value:dates) dates;
",
        layout::checkpoints()
    )
}

fn copies(table: &TableColumns, by: PartitionBy) -> String {
    let (name, partition, columns) = (table.name(), by.column(), listed(columns(table, by)));
    let day = format!("COALESCE(TO_CHAR({partition}, 'YYYY-MM-DD'), '{UNKNOWN_PARTITION}') AS day");
    let folder = format!("{}/{name}", layout::landing());
    format!(
        "
CREATE OR REPLACE VIEW {name}_copies AS
SELECT {columns},
  {day}, false AS landed
FROM {name}
UNION ALL
SELECT {columns},
  {day}, true AS landed
FROM (
{landed}
WHERE REGEXP_SUBSTR(METADATA$FILENAME, '{partition}=[^/]*/[^/]*$') IN (SELECT file FROM landed_files));
",
        landed = read(table, &folder, by),
    )
}
