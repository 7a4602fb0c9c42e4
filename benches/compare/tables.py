"""The tables as each tool left them, as DuckDB views that can be compared: the same columns, JSON without spaces."""

import importlib.util
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

import duckdb

COLUMNS = {
    "conversations": """conversation_id, user_id, destination, created_at, updated_at, last_message_at,
        last_user_message_at, undeflected, summary, resolution, csat_rating, csat, csat_role, csat_resolved,
        customer_feedback, flow_type, notes, json(metadata) AS metadata, message_count,
        conversation_url, json(all_tags) AS all_tags, json(watchtower_reviews) AS watchtower_reviews, extra,
        created_date""",
    "messages": "conversation_id, message_index, role, text, created_at, message_id, extra, created_date",
    "tags": "conversation_id, tag_index, tag_id, name, level, extra, created_date",
    "audit_logs": """conversation_id, log_index, text, json(payload) AS payload, created_at, extra, created_date""",
}
KEYS = {"conversations": "conversation_id", "messages": "conversation_id, message_index",
        "tags": "conversation_id, tag_index", "audit_logs": "conversation_id, log_index"}

# dlt's tables, brought into the same form: elements know their conversation by dlt's own id alone.
DLT = {
    "conversations": """
        SELECT c.*, coalesce(m.count, 0) AS message_count, NULL::VARCHAR AS extra
        FROM newest c LEFT JOIN (SELECT _dlt_parent_id, count(*) AS count FROM raw_messages GROUP BY ALL) m
            ON m._dlt_parent_id = c._dlt_id""",
    "messages": "e._dlt_list_idx AS message_index, role, text, e.created_at, e.id AS message_id",
    "tags": "_dlt_list_idx AS tag_index, e.id AS tag_id, name, level",
    "audit_logs": "_dlt_list_idx AS log_index, text, payload, e.created_at",
}


def connect():
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    return duck


def load(duck, extension):
    """Loads one of DuckDB's extensions from its package; nothing is fetched."""
    package = Path(importlib.util.find_spec(f"duckdb_extension_{extension}").origin).parent
    file = next(package.glob(f"extensions/*/{extension}.duckdb_extension"))
    duck.execute(f"LOAD '{file}'")


def load_s3(duck):
    """Lets DuckDB use the S3 that the environment names."""
    load(duck, "httpfs")
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
    duck.execute(f"""CREATE SECRET (
        TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}', SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}',
        REGION '{os.environ["AWS_REGION"]}', URL_STYLE 'path', USE_SSL {endpoint.scheme == "https"},
        ENDPOINT '{endpoint.netloc}')""")


def files(kind, out, table):
    """The Parquet files that are the table's now: a Delta table keeps those of earlier versions beside them."""
    if kind in ("dlt-append", "dlt-upsert"):
        name = "conversations" if table == "conversations" else f"conversations__{table}"
        if kind == "dlt-append":
            return sorted(Path(out, "lake", name).glob("*.parquet"))
        from deltalake import DeltaTable

        return [Path(file.removeprefix("file://")) for file in DeltaTable(f"{out}/lake/{name}").file_uris()]
    return sorted(Path(out, table).glob("*/*.parquet"))


def size(kind, out):
    """The bytes of all tables' files."""
    return sum(file.stat().st_size for table in COLUMNS for file in files(kind, out, table))


def view(duck, kind, out, name):
    """Makes views `{name}_{table}` of what is in `out`."""
    dated = ", hive_partitioning = true, hive_types = {created_date: DATE}"
    if not kind.startswith("dlt-"):
        for table, columns in COLUMNS.items():
            source = f"read_parquet('{out}/{table}/*/*.parquet'{dated})"
            duck.execute(f"CREATE VIEW {name}_{table} AS SELECT {columns} FROM {source}")
        return
    for table in COLUMNS:
        paths = [str(path) for path in files(kind, out, table)]
        duck.execute(f"CREATE VIEW raw_{table} AS FROM read_parquet({paths}{dated if kind == 'dlt-upsert' else ''})")
    columns = "*" if kind == "dlt-upsert" else "*, created_at::DATE AS created_date"
    duck.execute(f"""
        CREATE TABLE newest AS SELECT {columns} FROM raw_conversations
        QUALIFY row_number() OVER (PARTITION BY conversation_id ORDER BY updated_at DESC, _seq DESC) = 1""")
    for table, columns in COLUMNS.items():
        query = DLT[table]
        if table != "conversations":
            query = f"""SELECT conversation_id, {query}, NULL::VARCHAR AS extra, n.created_date
                FROM raw_{table} e JOIN newest n ON n._dlt_id = e._dlt_parent_id"""
        duck.execute(f"CREATE VIEW {name}_{table} AS SELECT {columns} FROM ({query})")


if __name__ == "__main__":
    print(size(*sys.argv[1:]))
