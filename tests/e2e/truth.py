"""The rows that the tables must hold, computed from the API's objects, and the rows that they hold, read with DuckDB.

Written apart from the program under test: only the column names and the API's field names are shared.
"""

import json
from datetime import datetime, timezone
from pathlib import Path

import duckdb
from deltalake import DeltaTable

CONVERSATION_FIELDS = {
    "user_id": "text", "destination": "text", "created_at": "time", "updated_at": "time", "last_message_at": "time",
    "last_user_message_at": "time", "undeflected": "bool", "summary": "text", "resolution": "text",
    "csat_rating": "int", "csat": "int", "csat_role": "text", "csat_resolved": "bool", "customer_feedback": "text",
    "flow_type": "text", "notes": "text", "metadata": "json", "conversation_url": "text", "all_tags": "json",
    "watchtower_reviews": "json",
}
CHILD_FIELDS = {
    "messages": ("message_index", {"role": "text", "text": "text", "created_at": "time", "message_id": "id"}),
    "tags": ("tag_index", {"tag_id": "text", "name": "text", "level": "int"}),
    "audit_logs": ("log_index", {"text": "text", "payload": "json", "created_at": "time"}),
}
TABLES = ["conversations", *CHILD_FIELDS]
API_NAME = {"tag_id": "id", "message_id": "id"}
# The partition columns.
COLUMN = {"day": "created_date", "month": "created_month"}
JSON_COLUMNS = {"metadata", "all_tags", "watchtower_reviews", "payload", "extra"}


def instant(text):
    parsed = datetime.fromisoformat(text)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def cell(kind, value):
    """An API value as a test compares it: instants as such, JSON as Python objects, ids as text."""
    if kind == "id" and value is not None:
        return str(value)
    return instant(value) if kind == "time" and value is not None else value


def partition_of(conversation, by):
    """The partition column of a conversation, and its value."""
    created_at = conversation.get("created_at")
    date = instant(created_at).date() if created_at else None
    return {COLUMN[by]: date and (date.replace(day=1) if by == "month" else date)}


def expected_rows(conversations, by="day"):
    """Rows by table, from the API's objects, each without the columns that only the program can know."""
    rows = {table: [] for table in TABLES}
    for conversation in conversations:
        own_id = conversation["conversation_id"]
        known = {"conversation_id", *CONVERSATION_FIELDS, *CHILD_FIELDS}
        rows["conversations"].append({
            "conversation_id": own_id,
            **{name: cell(kind, conversation.get(name)) for name, kind in CONVERSATION_FIELDS.items()},
            "message_count": len(conversation.get("messages") or []),
            "extra": {name: value for name, value in conversation.items() if name not in known} or None,
            "deleted_at": None,
            **partition_of(conversation, by),
        })
        for table, (index_name, fields) in CHILD_FIELDS.items():
            for index, element in enumerate(conversation.get(table) or []):
                names = {API_NAME.get(name, name) for name in fields}
                rows[table].append({
                    "conversation_id": own_id,
                    index_name: index,
                    **{name: cell(kind, element.get(API_NAME.get(name, name))) for name, kind in fields.items()},
                    "extra": {name: value for name, value in element.items() if name not in names} or None,
                    **partition_of(conversation, by),
                })
    return rows


def connect():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def read_table(lake, table):
    """Every row of a table with its partition, JSON columns as Python objects."""
    connection = connect()
    glob = f"{lake}/{table}/*/*.parquet"
    result = connection.execute(
        "SELECT * FROM read_parquet($1, hive_partitioning = true, union_by_name = true) ORDER BY ALL", [str(glob)]
    )
    return as_rows([column[0] for column in result.description], result.fetchall())


def read_delta(lake, table, **options):
    """The same of a Delta table, read with delta-rs."""
    return decoded(DeltaTable(f"{lake}/{table}", **options).to_pyarrow_table().to_pylist())


def as_rows(names, tuples):
    """Rows by column, JSON columns as Python objects."""
    return decoded(dict(zip(names, values)) for values in tuples)


def decoded(rows):
    """The rows with their JSON columns as Python objects."""
    return [{name: json.loads(value) if name in JSON_COLUMNS and value is not None else value
             for name, value in row.items()} for row in rows]


def sort_key(row):
    index = next((value for name, value in row.items() if name.endswith("_index")), 0)
    return row["conversation_id"], index


def assert_exact(lake, conversations, read=read_table, by="day"):
    """The tables hold exactly these conversations, each once, every field as the API has it, and every child row comes from
    the same version as its conversation."""
    expected, versions = expected_rows(conversations, by), set()
    for table in TABLES:
        found = read(lake, table)
        assert_rows(found, expected[table], table)
        of = {tuple(row[name] for name in ("conversation_id", COLUMN[by], "_run_id", "_seq")) for row in found}
        if table == "conversations":
            versions = of
        assert of <= versions, f"{table}: rows of another version than the conversation's"


def assert_rows(found, expected, table):
    """These rows of a table, however they were read, are the expected ones."""
    provenance = {"_run_id", "_seq", "_exported_at"}
    bare = sorted(({k: v for k, v in row.items() if k not in provenance} for row in found), key=sort_key)
    wanted = sorted(expected, key=sort_key)
    ids = [sort_key(row) for row in bare]
    assert ids == [sort_key(row) for row in wanted], f"{table}: other rows than the API has"
    for row, want in zip(bare, wanted):
        assert row == want, f"{table}: {sort_key(want)}"
    assert all(row["_run_id"] and row["_seq"] is not None for row in found)


def files(lake, folder):
    """The Parquet files under a folder of a local lake: their bytes by key."""
    root = Path(lake)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted((root / folder).rglob("*.parquet"))}


# The formats of a lake's tables, and their readers.
FORMATS = [("parquet", read_table), ("delta", read_delta)]
