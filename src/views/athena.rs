//! The statements for Athena.
//!
//! Partition projection computes the partitions, so none has to be registered: those of months in steps from a first
//! day of a month. A projected value must be a date, so
//! conversations without a known date are not visible. Sources: docs.aws.amazon.com/athena/latest/ug,
//! partition-projection-supported-types (ranges, `NOW+1DAYS`), tables-location-format (no underscores in locations),
//! delta-lake-tables-getting-started (nothing but LOCATION and table_type), data-types (timestamps in milliseconds).

use super::latest::{Date, Dialect, before_partition, columns, definitions, listed};
use super::place::{self, LakeAddress};
use super::text::{LATEST, UNTRIED, about, comment, quoted};
use crate::error::Result;
use crate::lake::Format;
use crate::layout;
use crate::model::{ColumnKind, LakeColumns, PartitionBy, TableColumns};

fn dialect(by: PartitionBy) -> Dialect {
    Dialect {
        schema: "",
        by,
        newest_of: |times| format!("array_max(filter(ARRAY[{}], t -> t IS NOT NULL))", times.join(", ")),
        date: Date::Nullable("(SELECT * FROM newest_copies)"),
    }
}

pub(super) fn statements(place: &LakeAddress, format: Format, by: PartitionBy, of: &LakeColumns) -> Result<String> {
    let lake = place.only(place::CloudKind::S3, "Athena", "s3")?;
    let mut text = about(place, "Athena");
    text.push_str(&comment(&[
        UNTRIED,
        "",
        &format!("Run them one by one, in the database for the tables. {} is projected from 2015 to", by.column()),
        "tomorrow, so no partition has to be registered. Conversations without a created_at are not visible here: their",
        &format!("partition, {}, is not a date and cannot be projected.", by.unknown().folder()),
        "Times are UTC, cut to milliseconds. Of versions that changed in the same one, the last committed counts.",
    ]));
    text.push_str(&comment(LATEST));
    text.push_str(&comment(&[
        "They read folders whose names begin with _, which Athena's documentation advises against. Check first that",
        "this works: SELECT count(*) FROM decagon_checkpoints must not return 0.",
    ]));
    let tables = |table: &TableColumns| {
        let landed = projected(&lake, &format!("{}_landing", table.name()), &landing(table), table, by);
        compacted(&lake, table, format, by) + &landed
    };
    text.push_str(&dialect(by).statements(of, tables, &landed_files(&lake, by), |table| copies(table, by)));
    Ok(text)
}

fn landing(table: &TableColumns) -> String {
    format!("{}/{}", layout::landing(), table.name())
}

fn compacted(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let name = table.name();
    match format {
        Format::Parquet => projected(lake, name, name, table, by),
        Format::Delta => format!(
            "\nCREATE EXTERNAL TABLE IF NOT EXISTS `{name}`\nLOCATION {}\nTBLPROPERTIES ('table_type' = 'DELTA');\n",
            quoted(&format!("{lake}/{name}/"))
        ),
    }
}

fn projected(lake: &str, name: &str, folder: &str, table: &TableColumns, by: PartitionBy) -> String {
    let partition = by.column();
    let unit = match by {
        PartitionBy::Day => "DAYS",
        PartitionBy::Month => "MONTHS",
    };
    format!(
        "
CREATE EXTERNAL TABLE IF NOT EXISTS `{name}` (
{columns})
PARTITIONED BY (`{partition}` date)
STORED AS PARQUET
LOCATION {location}
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.{partition}.type' = 'date',
  'projection.{partition}.format' = 'yyyy-MM-dd',
  'projection.{partition}.range' = '2015-01-01,NOW+1DAYS',
  'projection.{partition}.interval' = '1',
  'projection.{partition}.interval.unit' = '{unit}',
  'storage.location.template' = {template});
",
        columns = definitions(table, "`", hive_type),
        location = quoted(&format!("{lake}/{folder}/")),
        template = quoted(&format!("{lake}/{folder}/{partition}=${{{partition}}}")),
    )
}

fn hive_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Id | ColumnKind::Json => "string",
        ColumnKind::Int => "int",
        ColumnKind::BigInt => "bigint",
        ColumnKind::Double => "double",
        ColumnKind::Bool => "boolean",
        ColumnKind::Time => "timestamp",
    }
}

fn landed_files(lake: &str, by: PartitionBy) -> String {
    let before = before_partition(by);
    let commits = quoted(&format!("{lake}/{}/", layout::checkpoints()));
    format!(
        "
CREATE EXTERNAL TABLE IF NOT EXISTS `decagon_checkpoints` (`line` string)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\001' LINES TERMINATED BY '\\n'
LOCATION {commits};

CREATE OR REPLACE VIEW landed_files AS
WITH newest AS (SELECT json_parse(max_by(line, \"$path\")) AS state FROM decagon_checkpoints),
flushes AS (
  SELECT landed FROM newest CROSS JOIN UNNEST(CAST(json_extract(state, '$.landed') AS array(json))) AS u (landed)
), dates AS (
  SELECT landed, d FROM flushes
  CROSS JOIN UNNEST(map_keys(CAST(json_extract(landed, '$.dates') AS map(varchar, json)))) AS u (d)
)
SELECT format('{before}%s/%s-%04d.parquet', d, json_extract_scalar(landed, '$.flush.run'),
  CAST(json_extract_scalar(landed, '$.flush.number') AS bigint)) AS file
FROM dates;
"
    )
}

fn copies(table: &TableColumns, by: PartitionBy) -> String {
    let (name, partition, columns) = (table.name(), by.column(), listed(columns(table, by)));
    format!(
        "
CREATE OR REPLACE VIEW {name}_copies AS
SELECT {columns}, false AS landed
FROM {name}
UNION ALL
SELECT {columns}, true AS landed
FROM {name}_landing
WHERE regexp_extract(\"$path\", '{partition}=[^/]*/[^/]*$') IN (SELECT file FROM landed_files);
"
    )
}
