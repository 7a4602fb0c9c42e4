"""DuckDB: reads the pages with given types, keeps each conversation's newest copy and copies the four tables out.

    python duckdb_sql.py PAGES.jsonl OUT [THREADS]     OUT is a folder, or s3://… of the environment's store

The cursor of a page is its number, which gives each copy's place without a window function: with one, the pages are not
read on all cores, and everything takes nearly twice the time. Measured and slower: `QUALIFY row_number()` over whole
rows; a second table of the kept rows; a conversation a line in place of a page, by as much as it takes to number them.
Without the order of insertion it is no faster, and the files get larger.
"""

import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tables import load_s3  # noqa: E402

CONVERSATION = """
    conversation_id VARCHAR, user_id VARCHAR, destination VARCHAR, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ,
    last_message_at TIMESTAMPTZ, last_user_message_at TIMESTAMPTZ, undeflected BOOLEAN, summary VARCHAR,
    resolution VARCHAR, csat_rating INTEGER, csat INTEGER, csat_role VARCHAR, csat_resolved BOOLEAN,
    customer_feedback VARCHAR, flow_type VARCHAR, notes VARCHAR, metadata JSON, conversation_url VARCHAR,
    all_tags JSON, watchtower_reviews JSON,
    messages STRUCT(role VARCHAR, "text" VARCHAR, created_at TIMESTAMPTZ, id VARCHAR)[],
    tags STRUCT(id VARCHAR, name VARCHAR, level INTEGER)[],
    audit_logs STRUCT("text" VARCHAR, payload JSON, created_at TIMESTAMPTZ)[]
"""
PROVENANCE = "'duckdb' AS _run_id, _seq, strftime(created_at, '%Y-%m-%d') AS created_date"


def child(table, index, columns):
    return f"""
        SELECT conversation_id, {index}, {columns}, NULL::VARCHAR AS extra, _run_id, _seq, created_date
        FROM (
            SELECT conversation_id, unnest(range(len({table})))::INTEGER AS {index}, unnest({table}) AS e, {PROVENANCE}
            FROM newest
        )"""


TABLES = {
    "conversations": f"""
        SELECT conversation_id, user_id, destination, created_at, updated_at, last_message_at, last_user_message_at,
            undeflected, summary, resolution, csat_rating, csat, csat_role, csat_resolved, customer_feedback,
            flow_type, notes, metadata::VARCHAR AS metadata, len(messages)::INTEGER AS message_count,
            conversation_url, all_tags::VARCHAR AS all_tags, watchtower_reviews::VARCHAR AS watchtower_reviews,
            NULL::VARCHAR AS extra, now() AS _exported_at, {PROVENANCE}
        FROM newest""",
    "messages": child("messages", "message_index", "e.role, e.text, e.created_at, e.id AS message_id"),
    "tags": child("tags", "tag_index", "e.id AS tag_id, e.name, e.level"),
    "audit_logs": child("audit_logs", "log_index", "e.text, e.payload::VARCHAR AS payload, e.created_at"),
}


def main():
    path, out, *threads = sys.argv[1:]
    duck = duckdb.connect(config={"threads": int(threads[0])} if threads else {})
    if out.startswith("s3://"):
        load_s3(duck)
    duck.execute("SET TimeZone = 'UTC'; SET partitioned_write_max_open_files = 1000")
    duck.execute(f"""
        CREATE TEMP TABLE copies AS
        SELECT unnest(conversation), page * 1000 + place AS _seq
        FROM (
            SELECT coalesce(next_cursor, 1_000_000_000) AS page, unnest(range(len(conversations))) AS place,
                unnest(conversations) AS conversation
            FROM read_ndjson('{path}', columns = {{
                conversations: 'STRUCT({CONVERSATION})[]', next_cursor: 'BIGINT'}})
        );
        CREATE TEMP TABLE kept AS
        SELECT arg_max(_seq, (updated_at, _seq)) AS _seq FROM copies GROUP BY conversation_id;
        CREATE TEMP VIEW newest AS FROM copies SEMI JOIN kept USING (_seq)""")
    for table, query in TABLES.items():
        duck.execute(f"""COPY ({query}) TO '{out}/{table}' (
            FORMAT parquet, PARTITION_BY created_date, COMPRESSION zstd, COMPRESSION_LEVEL 3)""")


if __name__ == "__main__":
    main()
