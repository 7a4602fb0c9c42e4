//! The statements for DuckDB.
//!
//! `read_parquet` refuses a pattern that matches no file, and there are often no staged files. So one pattern covers
//! table files and staged files, and file names distinguish them; DuckDB skips the files that names and dates exclude
//! without opening them. Sources: duckdb.org/docs/stable/data/parquet/overview, …/data/partitioning/hive_partitioning,
//! …/core_extensions/httpfs/s3api and …/core_extensions/azure; tests/e2e/test_readers.py runs all of them.

use super::latest::{Date, Dialect, before_partition, columns, listed};
use super::place::{CloudKind, LakeAddress};
use super::text::{LATEST, NO_TABLES, TableFiles, about, comment, pruned, quoted};
use crate::lake::Format;
use crate::layout;
use crate::model::{LakeColumns, PartitionBy, TableColumns};

fn dialect(by: PartitionBy) -> Dialect {
    Dialect {
        schema: "",
        by,
        newest_of: |times| format!("greatest({})", times.join(", ")),
        // Evaluated once, with the filters of both readers.
        date: Date::Nullable("MATERIALIZED (FROM newest_copies)"),
    }
}

/// Reads the partition column from the path only, as a date.
fn hive(by: PartitionBy) -> String {
    format!("\n  hive_partitioning = true, hive_types = {{'{}': DATE}}", by.column())
}

/// Finds the columns of all files, because older ones lack the newest. DuckDB opens every file for that.
const ALL_COLUMNS: &str = ", union_by_name = true";

pub(super) fn statements(
    place: &LakeAddress,
    format: Format,
    by: PartitionBy,
    of: &LakeColumns,
    files: TableFiles,
) -> String {
    let has_tables = files != TableFiles::None;
    let lake = match place {
        LakeAddress::Store { kind: CloudKind::Azure, account: Some(account), bucket, prefix } => {
            format!("abfss://{account}.dfs.core.windows.net/{bucket}/{prefix}").trim_end_matches('/').to_owned()
        }
        place => place.url(),
    };
    let mut text = about(place, "DuckDB");
    text.push_str(&comment(needs(place)));
    if format == Format::Delta {
        text.push_str(&comment(&["The tables are Delta tables: INSTALL delta; LOAD delta;"]));
    }
    text.push_str(&comment(LATEST));
    text.push_str(&comment(&[&pruned(by)]));
    if !has_tables {
        text.push_str(&comment(NO_TABLES));
    }
    let tables =
        |table: &TableColumns| if has_tables { compacted(&lake, table, format, by, files) } else { String::new() };
    let copies = |table: &TableColumns| copies(&lake, table, format, by);
    text.push_str(&dialect(by).statements(of, tables, &landed_files(&lake, by), copies));
    text
}

/// What the statements need, as comments.
fn needs(place: &LakeAddress) -> &'static [&'static str] {
    const KEEP: &str = "Keep the views in a database file: decagon-lake views --engine duckdb | duckdb support.duckdb";
    match place {
        LakeAddress::Local(_) => &[KEEP],
        LakeAddress::Store { kind: CloudKind::S3, .. } => &[
            KEEP,
            "Every session needs: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE s3, PROVIDER credential_chain);",
            "for a self-hosted store add to the secret: ENDPOINT 'host:port', URL_STYLE 'path', USE_SSL true.",
        ],
        LakeAddress::Store { kind: CloudKind::Gcs, .. } => &[
            KEEP,
            "Every session needs: INSTALL httpfs; LOAD httpfs; CREATE SECRET (TYPE gcs, KEY_ID '…', SECRET '…');",
            "with an HMAC key of Google Cloud Storage.",
        ],
        LakeAddress::Store { kind: CloudKind::Azure, .. } => &[
            KEEP,
            "Every session needs: INSTALL azure; LOAD azure;",
            "CREATE SECRET (TYPE azure, PROVIDER credential_chain, ACCOUNT_NAME '…');",
        ],
    }
}

fn compacted(lake: &str, table: &TableColumns, format: Format, by: PartitionBy, of: TableFiles) -> String {
    let name = table.name();
    let columns_of_all = if of == TableFiles::Mixed { ALL_COLUMNS } else { "" };
    let read = match format {
        Format::Parquet => {
            let files = quoted(&format!("{}/{name}/*/*.parquet", pattern(lake)));
            format!("FROM read_parquet({files},{}{columns_of_all})", hive(by))
        }
        Format::Delta => format!("FROM delta_scan({})", quoted(&format!("{lake}/{name}"))),
    };
    let columns = listed(columns(table, by));
    let none = no_rows(table, by);
    format!("\nCREATE OR REPLACE VIEW {name} AS\nSELECT {columns}\nFROM ({none}\nUNION ALL BY NAME\n{read});\n")
}

/// No rows, with all columns: a column that no file has yet is null, not an error.
fn no_rows(table: &TableColumns, by: PartitionBy) -> String {
    let typed = table.columns().iter().map(|column| format!("NULL::{} AS {}", column.kind.duckdb_type(), column.name));
    format!("SELECT {} WHERE false", listed(typed.chain([format!("NULL::DATE AS {}", by.column())])))
}

fn landed_files(lake: &str, by: PartitionBy) -> String {
    let before = before_partition(by);
    let commits = quoted(&format!("{}/{}/*.json", pattern(lake), layout::checkpoints()));
    format!(
        "
CREATE OR REPLACE VIEW landed_files AS
WITH newest AS (
  SELECT json_transform(max_by(content, filename),
    '{{\"landed\": [{{\"flush\": {{\"run\": \"VARCHAR\", \"number\": \"UBIGINT\"}}, \"dates\": \"JSON\"}}]}}') AS state
  FROM read_text({commits})
), flushes AS (SELECT unnest(state.landed) AS landed FROM newest)
SELECT format('{before}{{}}/{{}}-{{:04d}}.parquet', unnest(json_keys(landed.dates)), landed.flush.run,
  landed.flush.number) AS file
FROM flushes;
"
    )
}

fn copies(lake: &str, table: &TableColumns, format: Format, by: PartitionBy) -> String {
    let name = table.name();
    let files = quoted(&format!("{}/**/{name}/{}=*/*.parquet", pattern(lake), by.column()));
    let landing = quoted(&format!("{lake}/{}/{name}/", layout::landing()));
    let files = format!("FROM read_parquet({files},{}{ALL_COLUMNS}, filename = true)", hive(by));
    let is_landed = format!("filename IN (SELECT {landing} || file FROM landed_files)");
    let none = no_rows(table, by);
    let read = match format {
        Format::Parquet => format!(
            "{none}\nUNION ALL BY NAME\nSELECT * EXCLUDE (filename), starts_with(filename, {landing}) AS landed\n{files}\n\
             WHERE starts_with(filename, {})\n  OR {is_landed}",
            quoted(&format!("{lake}/{name}/"))
        ),
        Format::Delta => format!(
            "{none}\nUNION ALL BY NAME\nSELECT *, false AS landed FROM {name}\nUNION ALL BY NAME\n\
             SELECT * EXCLUDE (filename), true AS landed\n{files}\nWHERE starts_with(filename, {landing}) AND {is_landed}"
        ),
    };
    format!("\nCREATE OR REPLACE VIEW {name}_copies AS\n{read};\n")
}

/// A glob pattern that matches exactly this path.
fn pattern(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '*' | '?' | '[' => pattern.extend(['[', letter, ']']),
            _ => pattern.push(letter),
        }
    }
    pattern
}
