//! Queries for a given lake, to paste into DuckDB and Spark.

use crate::model::PartitionBy;

/// Statements for DuckDB.
pub(super) fn duckdb(lake: &str, by: PartitionBy) -> String {
    let partition = by.column();
    let lake = lake.replace('\'', "''");
    format!(
        "
-- DuckDB
CREATE VIEW conversations AS FROM read_parquet('{lake}/conversations/*/*.parquet', hive_partitioning = true,
  union_by_name = true);
CREATE VIEW messages AS FROM read_parquet('{lake}/messages/*/*.parquet', hive_partitioning = true,
  union_by_name = true);
CREATE VIEW tags AS FROM read_parquet('{lake}/tags/*/*.parquet', hive_partitioning = true,
  union_by_name = true);
-- Without those that `decagon-lake reconcile --on-deleted mark` has marked.
SELECT count(*) AS conversations, sum(message_count) AS messages FROM conversations WHERE deleted_at IS NULL;
SELECT {partition}, count(*) AS conversations, round(avg((NOT undeflected)::INT), 3) AS deflection_rate
FROM conversations GROUP BY {partition} ORDER BY {partition} DESC LIMIT 7;
SELECT name AS tag, count(csat_rating) AS ratings, round(avg(csat_rating), 2) AS csat
FROM conversations JOIN tags USING ({partition}, conversation_id) GROUP BY tag ORDER BY ratings DESC;"
    )
}

/// Statements for PySpark.
pub(super) fn spark(lake: &str, by: PartitionBy) -> String {
    let partition = by.column();
    let lake = lake.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "
# Spark
conversations = spark.read.parquet(\"{lake}/conversations\")
messages = spark.read.parquet(\"{lake}/messages\")
conversations.groupBy(\"{partition}\").count().orderBy(\"{partition}\").show()
conversations.join(messages, [\"{partition}\", \"conversation_id\"]).groupBy(\"destination\").count().show()"
    )
}
