"""Polars: scans the pages with a given schema, keeps each conversation's latest version and writes the four tables.

    python polars_lazy.py PAGES.jsonl OUT

Measured and slower: one lazy plan from the scan to all four sinks (twice the time); times as times in the schema. No
faster: a semi-join to find the latest versions; a conversation a line in place of a page; the streaming engine.
"""

import sys
from datetime import datetime, timezone

import polars as pl

TEXT, INT, TIME = pl.String, pl.Int32, pl.Datetime("us", "UTC")
# JSON of any shape is read as text. Times are read as text and parsed by one format.
MESSAGE = {"role": TEXT, "text": TEXT, "created_at": TEXT, "id": TEXT}
TAG = {"id": TEXT, "name": TEXT, "level": INT}
LOG = {"text": TEXT, "payload": TEXT, "created_at": TEXT}
CONVERSATION = {
    "conversation_id": TEXT, "user_id": TEXT, "destination": TEXT, "created_at": TEXT, "updated_at": TEXT,
    "last_message_at": TEXT, "last_user_message_at": TEXT, "undeflected": pl.Boolean, "summary": TEXT,
    "resolution": TEXT, "csat_rating": INT, "csat": INT, "csat_role": TEXT, "csat_resolved": pl.Boolean,
    "customer_feedback": TEXT, "flow_type": TEXT, "notes": TEXT, "metadata": TEXT,
    "conversation_url": TEXT, "all_tags": TEXT, "watchtower_reviews": TEXT,
    "messages": pl.List(pl.Struct(MESSAGE)), "tags": pl.List(pl.Struct(TAG)), "audit_logs": pl.List(pl.Struct(LOG)),
}
PROVENANCE = [pl.lit("polars").alias("_run_id"), pl.col("_seq").cast(pl.Int64)]
NO_EXTRA = pl.lit(None, TEXT).alias("extra")


def time(name):
    return pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC")


def newest(path):
    """The latest version of each conversation, in memory: it is read once and written as four tables."""
    pages = pl.scan_ndjson(path, schema={"conversations": pl.List(pl.Struct(CONVERSATION))})
    copies = pages.explode("conversations").unnest("conversations").with_row_index("_seq").collect(engine="in-memory")
    # Text of one form sorts as the times do, and the sort of three columns costs less than one of whole rows.
    last = copies.lazy().select("conversation_id", "updated_at", "_seq").sort("updated_at", "_seq")
    kept = last.group_by("conversation_id").agg(pl.col("_seq").last()).select(pl.col("_seq").sort()).collect()
    rows = copies[kept["_seq"]].lazy().with_columns(time("created_at"))
    return rows.with_columns(pl.col("created_at").dt.date().alias("created_date"))


def conversations(rows):
    return rows.select(
        "conversation_id", "user_id", "destination", "created_at",
        *(time(name) for name in ("updated_at", "last_message_at", "last_user_message_at")),
        "undeflected", "summary", "resolution", "csat_rating", "csat", "csat_role", "csat_resolved",
        "customer_feedback", "flow_type", "notes", "metadata",
        pl.col("messages").list.len().cast(INT).alias("message_count"),
        "conversation_url", "all_tags", "watchtower_reviews", NO_EXTRA,
        pl.lit(datetime.now(timezone.utc)).cast(TIME).alias("_exported_at"), *PROVENANCE, "created_date",
    )


def children(rows, table, index, *columns):
    """One row per element of `table`, with its place in it."""
    return (
        rows.select(
            "conversation_id", pl.int_ranges(0, pl.col(table).list.len(), dtype=INT).alias(index), table, "_seq",
            "created_date",
        )
        .filter(pl.col(table).list.len() > 0)
        .explode(index, table)
        .unnest(table)
        .select("conversation_id", index, *columns, NO_EXTRA, *PROVENANCE, "created_date")
    )


def main():
    path, out = sys.argv[1:]
    rows = newest(path)
    tables = {
        "conversations": conversations(rows),
        "messages": children(rows, "messages", "message_index", "role", "text", time("created_at"),
                             pl.col("id").alias("message_id")),
        "tags": children(rows, "tags", "tag_index", pl.col("id").alias("tag_id"), "name", "level"),
        "audit_logs": children(rows, "audit_logs", "log_index", "text", "payload", time("created_at")),
    }
    pl.collect_all([
        table.sink_parquet(
            pl.PartitionBy(f"{out}/{name}", key="created_date", include_key=False),
            compression="zstd", compression_level=3, mkdir=True, lazy=True,
        )
        for name, table in tables.items()
    ])


if __name__ == "__main__":
    main()
