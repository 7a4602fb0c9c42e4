//! The texts for engines and stores that tests cannot run. tests/e2e/test_readers.py runs DuckDB's and Spark's.

use super::text::UNTRIED;
use super::*;
use crate::model::{PartitionBy, SCHEMA_VERSION};
use chrono::DateTime;

const ENGINES: [Engine; 5] = [Engine::Duckdb, Engine::Spark, Engine::Athena, Engine::Bigquery, Engine::Snowflake];

fn kept(format: Format, partition_by: PartitionBy) -> Identity {
    Identity {
        format_version: 3,
        suppresses: false,
        base_url: "https://api".to_owned(),
        user_filters: None,
        format,
        partition_by,
        schema_version: SCHEMA_VERSION,
        metadata_columns: Vec::new(),
        policies: Vec::new(),
        policy_key_check: None,
        created_at: DateTime::UNIX_EPOCH,
    }
}

fn by_day(format: Format) -> Identity {
    kept(format, PartitionBy::Day)
}

fn parquet(url: &str, engine: Engine) -> String {
    statements(url, engine, &by_day(Format::Parquet), TableFiles::Alike).unwrap()
}

/// An address of a store that the engine reads.
fn home(engine: Engine) -> &'static str {
    match engine {
        Engine::Bigquery => "gs://bucket/lake",
        _ => "s3://bucket/lake",
    }
}

#[test]
fn every_engine_has_its_own_form_of_an_address() {
    const AZURE: &str = "abfss://box@acc.dfs.core.windows.net/a/b";
    for (url, engine, form) in [
        ("/data/lake", Engine::Duckdb, "'/data/lake/messages/*/*.parquet'"),
        ("s3://bucket/a/b", Engine::Duckdb, "'s3://bucket/a/b/messages/*/*.parquet'"),
        ("az://box/a", Engine::Duckdb, "'az://box/a/messages/*/*.parquet'"),
        (AZURE, Engine::Duckdb, "'abfss://acc.dfs.core.windows.net/box/a/b/messages/*/*.parquet'"),
        ("/data/lake", Engine::Spark, "parquet.`/data/lake/messages`"),
        ("s3://bucket", Engine::Spark, "parquet.`s3a://bucket/messages`"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/a", Engine::Spark, "parquet.`s3a://bucket/a/messages`"),
        ("https://s3.eu-west-1.amazonaws.com/bucket/a", Engine::Spark, "parquet.`s3a://bucket/a/messages`"),
        ("https://id.r2.cloudflarestorage.com/bucket/a", Engine::Spark, "parquet.`s3a://bucket/a/messages`"),
        ("gs://bucket/a", Engine::Spark, "parquet.`gs://bucket/a/messages`"),
        (AZURE, Engine::Spark, "parquet.`abfss://box@acc.dfs.core.windows.net/a/b/messages`"),
        ("s3a://bucket/a", Engine::Athena, "'s3://bucket/a/messages/created_date=${created_date}'"),
        ("gs://bucket/a", Engine::Bigquery, "hive_partition_uri_prefix = 'gs://bucket/a/messages'"),
        ("s3://bucket/a", Engine::Snowflake, "URL = 's3://bucket/a/'"),
        ("gs://bucket/a", Engine::Snowflake, "URL = 'gcs://bucket/a/'"),
        ("https://acc.blob.core.windows.net/box/a", Engine::Snowflake, "'azure://acc.blob.core.windows.net/box/a/'"),
    ] {
        let text = parquet(url, engine);
        assert!(text.contains(form), "{url} {engine:?}: {form} is not in\n{text}");
    }
}

#[test]
fn a_lake_that_an_engine_cannot_read_is_refused_with_a_hint() {
    for (url, engine) in [
        ("/data/lake", Engine::Athena),
        ("gs://bucket/lake", Engine::Athena),
        ("s3://bucket/lake", Engine::Bigquery),
        ("/data/lake", Engine::Snowflake),
        // Only the environment names the account.
        ("az://box/lake", Engine::Spark),
        ("az://box/lake", Engine::Snowflake),
    ] {
        let error = statements(url, engine, &by_day(Format::Parquet), TableFiles::Alike).unwrap_err();
        assert!(error.kind().exit_code() == 2 && error.hint().is_some(), "{url} {engine:?}");
    }
}

#[test]
fn an_address_stays_in_its_quotes() {
    for (url, engine, quoted) in [
        ("/it's/100%20 [x]", Engine::Duckdb, "'/it''s/100%20 [[]x]/tags/*/*.parquet'"),
        ("/it's `a` {b,c}", Engine::Spark, "parquet.`/it's ``a`` \\{b\\,c\\}/tags`"),
        ("s3://bucket/it's%20100%25", Engine::Athena, "'s3://bucket/it''s 100%/tags/'"),
        ("gs://bucket/it's%20100%25", Engine::Bigquery, "'gs://bucket/it\\'s 100%/tags'"),
        ("s3://bucket/it's", Engine::Snowflake, "'s3://bucket/it\\'s/'"),
    ] {
        let text = parquet(url, engine);
        assert!(text.contains(quoted), "{url} {engine:?}: {quoted} is not in\n{text}");
    }
    let text = parquet("/a\nDROP TABLE x", Engine::Duckdb);
    assert!(text.starts_with("-- The tables of the lake /a DROP TABLE x in DuckDB"), "{text}");
}

#[test]
fn delta_tables_are_read_as_such_and_staged_files_as_parquet() {
    for (engine, table, landing) in [
        (Engine::Duckdb, "FROM delta_scan('s3://bucket/lake/messages')", "'s3://bucket/lake/_landing/messages/'"),
        (Engine::Spark, "FROM delta.`s3a://bucket/lake/messages`", "_landing/messages}/created_date=*`"),
        (Engine::Athena, "'table_type' = 'DELTA'", "LOCATION 's3://bucket/lake/_landing/messages/'"),
        (Engine::Bigquery, "format = 'DELTA_LAKE'", "'gs://bucket/lake/_landing/messages/created_date=*'"),
        (Engine::Snowflake, "CREATE OR REPLACE ICEBERG TABLE messages", "@decagon_lake/_landing/messages/"),
    ] {
        let delta = statements(home(engine), engine, &by_day(Format::Delta), TableFiles::Alike).unwrap();
        assert!(delta.contains(table) && delta.contains(landing), "{engine:?}:\n{delta}");
        assert!(!parquet(home(engine), engine).contains(table), "{engine:?}");
        assert!(statements(home(engine), engine, &by_day(Format::Delta), TableFiles::None).is_err(), "{engine:?}");
    }
}

/// The same statements, but for the partitions: no word of a day is left in a lake by month.
#[test]
fn months_are_read_as_days_are() {
    for format in [Format::Parquet, Format::Delta] {
        for engine in ENGINES {
            let of = |by| statements(home(engine), engine, &kept(format, by), TableFiles::Alike).unwrap();
            let (days, months) = (of(PartitionBy::Day), of(PartitionBy::Month));
            assert!(!months.contains("created_date"), "{engine:?}:\n{months}");
            // The checkpoints of a lake by month write the column themselves.
            let expected = days
                .replace("'created_date={}/{}", "'{}/{}")
                .replace("'created_date=%s/", "'%s/")
                .replace("'created_date=' ||", "'' ||")
                .replace("created_date", "created_month")
                .replace("interval.unit' = 'DAYS'", "interval.unit' = 'MONTHS'");
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
            assert_eq!(words(&months), words(&expected), "{engine:?}");
        }
    }
    let athena =
        statements("s3://bucket/lake", Engine::Athena, &kept(Format::Parquet, PartitionBy::Month), TableFiles::Alike)
            .unwrap();
    for line in [
        "PARTITIONED BY (`created_month` date)",
        "'projection.created_month.type' = 'date'",
        "'projection.created_month.format' = 'yyyy-MM-dd'",
        "'projection.created_month.range' = '2015-01-01,NOW+1DAYS'",
        "'projection.created_month.interval' = '1'",
        "'projection.created_month.interval.unit' = 'MONTHS'",
        "'s3://bucket/lake/_landing/tags/created_month=${created_month}'",
    ] {
        assert!(athena.contains(line), "{line} is not in\n{athena}");
    }
}

#[test]
fn every_engine_can_leave_out_what_is_marked_as_deleted_if_the_lake_has_marks() {
    for engine in ENGINES {
        let of = |schema_version| {
            let identity = Identity { schema_version, ..by_day(Format::Parquet) };
            statements(home(engine), engine, &identity, TableFiles::Alike).unwrap()
        };
        let schema = if engine == Engine::Bigquery { "decagon." } else { "" };
        let current = |text: &str| {
            let view = format!("CREATE OR REPLACE VIEW {schema}conversations_current AS\n");
            let from = format!("FROM {schema}conversations_latest");
            text.split_once(&view).and_then(|(_, view)| Some(view.split_once(&from)?.1.trim().to_owned())).unwrap()
        };
        assert_eq!(current(&of(SCHEMA_VERSION)), "WHERE deleted_at IS NULL;", "{engine:?}");
        assert_eq!(current(&of(2)), ";", "{engine:?}: no file has the column");
    }
}

#[test]
fn every_engine_gets_every_table_with_every_column_and_no_line_that_is_not_sql() {
    for engine in ENGINES {
        let text = parquet(home(engine), engine);
        for table in crate::model::Table::ALL {
            for name in [table.name().to_owned(), format!("{}_latest", table.name())] {
                let made = [" ", " `", " decagon.", " IF NOT EXISTS `"].iter().any(|before| {
                    ["VIEW", "TABLE"].iter().any(|what| {
                        [" AS", "` (", " ("].iter().any(|after| text.contains(&format!("{what}{before}{name}{after}")))
                    })
                });
                assert!(made, "{engine:?} makes no {name}:\n{text}");
            }
            assert!(table.columns().iter().all(|column| text.contains(column.name.as_ref())), "{engine:?}");
        }
        assert_eq!(text.matches(UNTRIED).count(), usize::from(!matches!(engine, Engine::Duckdb | Engine::Spark)));
        for statement in text.split(";\n").map(str::trim) {
            let body = statement.lines().find(|line| !line.starts_with("--") && !line.is_empty());
            let known = |line: &str| ["CREATE ", "SET "].iter().any(|verb| line.starts_with(verb));
            assert!(body.is_none_or(known), "{engine:?}: {statement}");
        }
    }
}
