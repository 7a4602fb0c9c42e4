//! Queries for a given lake, to paste into DuckDB and Spark.

/// Statements for DuckDB.
pub(super) fn duckdb(lake: &str) -> String {
    let lake = lake.replace('\'', "''");
    format!(
        "
-- DuckDB
CREATE VIEW conversations AS FROM read_parquet('{lake}/conversations/*/*.parquet', hive_partitioning = true);
CREATE VIEW messages AS FROM read_parquet('{lake}/messages/*/*.parquet', hive_partitioning = true);
CREATE VIEW tags AS FROM read_parquet('{lake}/tags/*/*.parquet', hive_partitioning = true);
SELECT count(*) AS conversations, sum(message_count) AS messages FROM conversations;
SELECT created_date, count(*) AS conversations, round(avg((NOT undeflected)::INT), 3) AS deflection_rate
FROM conversations GROUP BY created_date ORDER BY created_date DESC LIMIT 7;
SELECT name AS tag, count(csat_rating) AS ratings, round(avg(csat_rating), 2) AS csat
FROM conversations JOIN tags USING (created_date, conversation_id) GROUP BY tag ORDER BY ratings DESC;"
    )
}

/// Statements for PySpark.
pub(super) fn spark(lake: &str) -> String {
    let lake = lake.replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "
# Spark
conversations = spark.read.parquet(\"{lake}/conversations\")
messages = spark.read.parquet(\"{lake}/messages\")
conversations.groupBy(\"created_date\").count().orderBy(\"created_date\").show()
conversations.join(messages, [\"created_date\", \"conversation_id\"]).groupBy(\"destination\").count().show()"
    )
}
