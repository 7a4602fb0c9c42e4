//! The statements for Spark.
//!
//! They are views over files, because a Spark table keeps a list of files or partitions that needs a statement to be
//! updated, while each query lists a path in a view. A pattern with `{a,b}` may match only one of both, so an empty
//! `_landing` is no error. Spark cannot find partitions in two folders at once, so the date comes from the file's name,
//! by which Spark skips files without reading them. Names that begin with `_` are hidden only below the given path.
//! Sources: spark.apache.org/docs/latest, sql-data-sources-file-metadata… and sql-ref-syntax-qry-select-file;
//! docs.delta.io/latest/quick-start. tests/e2e/test_readers.py runs all but Delta.

use super::latest::{Date, Dialect, before_partition, listed, names};
use super::place::{CloudKind, LakeAddress, needs_account};
use super::text::{LATEST, NO_TABLES, about, comment, pruned};
use crate::error::Result;
use crate::lake::Format;
use crate::layout;
use crate::model::{LakeColumns, PartitionBy, TableColumns, UNKNOWN_PARTITION};

fn dialect(by: PartitionBy) -> Dialect {
    Dialect { schema: "", by, newest_of: |times| format!("greatest({})", times.join(", ")), date: Date::Text }
}

pub(super) fn statements(
    place: &LakeAddress,
    format: Format,
    by: PartitionBy,
    of: &LakeColumns,
    has_tables: bool,
) -> Result<String> {
    let lake = match place {
        LakeAddress::Local(path) => path.clone(),
        LakeAddress::Store { kind: CloudKind::S3, .. } => place.below("s3a"),
        LakeAddress::Store { kind: CloudKind::Gcs, .. } => place.below("gs"),
        LakeAddress::Store { kind: CloudKind::Azure, account: None, .. } => return Err(needs_account(place)),
        LakeAddress::Store { kind: CloudKind::Azure, account: Some(account), bucket, prefix } => {
            format!("abfss://{bucket}@{account}.dfs.core.windows.net/{prefix}").trim_end_matches('/').to_owned()
        }
    };
    let mut text = about(place, "Spark");
    text.push_str(&comment(&[
        "Without a metastore the views last as long as the session. Times are instants, shown in the session's time",
        "zone; SET TIME ZONE 'UTC' shows them in UTC. The session needs the store's connector (hadoop-aws for s3a://,",
        "hadoop-azure for abfss://, the GCS connector for gs://) and its credentials. It also needs the setting below,",
        "because older files lack the newest columns. A column that no file has yet is an error: sync first.",
    ]));
    if format == Format::Delta {
        text.push_str(&comment(&["The tables are Delta tables: the session needs delta-spark and its extension."]));
    }
    text.push_str(&comment(LATEST));
    text.push_str(&comment(&[&pruned(by)]));
    if !has_tables {
        text.push_str(&comment(NO_TABLES));
    }
    text.push_str("\nSET spark.sql.parquet.mergeSchema = true;\n");
    let tables = |table: &TableColumns| if has_tables { compacted(&lake, table, format, by) } else { String::new() };
    let copies = |table: &TableColumns| copies(&lake, table, format, by);
    text.push_str(&dialect(by).statements(of, tables, &landed_files(&lake, by), copies));
    Ok(text)
}

fn compacted(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let (name, partition) = (table.name(), by.column());
    let names = listed(names(table));
    let read = match format {
        Format::Parquet => path("parquet", &format!("{}/{name}", pattern(lake))),
        Format::Delta => path("delta", &format!("{lake}/{name}")),
    };
    format!(
        "\nCREATE OR REPLACE VIEW {name} AS\nSELECT {names}, CAST({partition} AS DATE) AS {partition}\nFROM {read};\n"
    )
}

fn landed_files(lake: &str, by: PartitionBy) -> String {
    let before = before_partition(by);
    let commits = path("text", &format!("{}/{}/*.json", pattern(lake), layout::checkpoints()));
    format!(
        "
CREATE OR REPLACE VIEW landed_files AS
WITH commits AS (SELECT value, _metadata.file_name AS name FROM {commits}),
newest AS (SELECT max_by(value, name) AS state FROM commits),
flushes AS (
  SELECT explode(from_json(state,
    'landed ARRAY<STRUCT<flush: STRUCT<run: STRING, number: BIGINT>, dates: MAP<STRING, STRING>>>').landed) AS landed
  FROM newest
)
SELECT format_string('{before}%s/%s-%04d.parquet', date, landed.flush.run, landed.flush.number) AS file
FROM flushes LATERAL VIEW explode(map_keys(landed.dates)) AS date;
"
    )
}

fn copies(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let name = table.name();
    let names = listed(names(table));
    let (landing, unknown, partition) = (layout::landing(), UNKNOWN_PARTITION, by.column());
    let files = path("parquet", &format!("{}/{{{name},{landing}/{name}}}/{partition}=*", pattern(lake)));
    let files = format!(
        "files AS (
  SELECT {names},
    regexp_extract(_metadata.file_path, '({partition}=[^/]*/[^/]*)$', 1) AS file,
    regexp_extract(_metadata.file_path, '{partition}=([^/]*)/[^/]*$', 1) AS day,
    _metadata.file_path RLIKE '/{landing}/{name}/{partition}=[^/]*/[^/]*$' AS landed
  FROM {files}
)"
    );
    let of_files = format!("SELECT {names}, try_cast(day AS DATE) AS {partition}, day, landed\nFROM files\nWHERE");
    let is_landed = "file IN (SELECT file FROM landed_files)";
    let read = match format {
        Format::Parquet => format!("WITH {files}\n{of_files} NOT landed OR {is_landed}"),
        Format::Delta => format!(
            "WITH {files}\nSELECT {names}, {partition},\n  coalesce(CAST({partition} AS STRING), '{unknown}') AS day, \
             false AS landed\nFROM {name}\nUNION ALL\n{of_files} landed AND {is_landed}"
        ),
    };
    format!("\nCREATE OR REPLACE VIEW {name}_copies AS\n{read};\n")
}

/// A path as a table of a format.
fn path(format: &str, path: &str) -> String {
    format!("{format}.`{}`", path.replace('`', "``"))
}

/// A Hadoop glob pattern that matches exactly this path.
fn pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for letter in path.chars() {
        if "{}[]*?\\,".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}
