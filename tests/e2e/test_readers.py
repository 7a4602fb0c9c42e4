"""The readers of a lake: every engine here sees the same tables, and `views` is right before a compaction too."""

import json
import re
import shutil
from datetime import date, datetime, timezone
from pathlib import Path

import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from chdb import session
from conftest import ROOT, assert_latest, page, run, served_pages
from truth import (CHILD_FIELDS, COLUMN, CONVERSATION_FIELDS, TABLES, as_rows, assert_rows, connect, expected_rows,
                   files, read_table)

READS = ROOT / "tests" / "support" / "spark_reads.py"
LATEST = [f"{table}_latest" for table in TABLES]

# Values that the API may send and readers may stumble over.
ODD = [
    {"conversation_id": "all", "user_id": "user_12", "destination": "AI", "created_at": "2024-01-01 21:42:10.309970",
     "updated_at": "2024-01-02T03:04:05.000001+02:00", "last_message_at": "2024-01-01T21:42:12Z",
     "last_user_message_at": "2024-01-01T21:42:11.5Z", "undeflected": True, "summary": "Grüße, 世界 👋🏽", "resolution": "",
     "csat_rating": 4, "csat": 5, "csat_role": "AGENT", "csat_resolved": False, "customer_feedback": "two\nlines, \"quoted\"",
     "flow_type": "chat", "notes": "a\ttab", "metadata": {"user_type": "VIP", "deep": [1, 2.5, None, {"ü": "\\"}]},
     "messages": [{"text": "‮right to left‬", "role": "USER", "created_at": "2024-01-01 21:42:10.309970", "id": 7001},
                  {"role": "AI", "id": "msg-2"}],
     "tags": [{"id": "t1", "name": "Greeting", "level": 0}, {"name": "é", "level": 2147483647, "more": {"a": 1}}],
     "audit_logs": [{"text": "CSAT set to 4", "payload": {}, "created_at": "2024-05-06T14:11:26.799976"}],
     "all_tags": {"Topics": {"Billing": ["Refund"]}}, "conversation_url": "https://decagon.ai/c/all",
     "watchtower_reviews": [{"job_name": "tone", "rubric_score": 4.5}], "channel": "web"},
    {"conversation_id": "bare", "created_at": "1999-12-31T23:59:59.999999Z"},
    {"conversation_id": "undated", "updated_at": "2024-01-03T00:00:00Z", "tags": [{"name": "x"}],
     "messages": [{"text": "when?"}], "audit_logs": [{"payload": [1, "two", None]}]},
    {"conversation_id": "tomorrow", "created_at": "2024-01-01T23:30:00-05:00", "undeflected": False},
]

KINDS = {**CONVERSATION_FIELDS, "conversation_id": "text", "message_count": "int", "extra": "json", "_exported_at": "time",
         "_run_id": "text", "_seq": "long", "deleted_at": "time", "created_date": "date", "created_month": "date"}
for _index, _fields in CHILD_FIELDS.values():
    KINDS |= {_index: "int", **_fields}
TYPES = {
    "duckdb": {"text": "VARCHAR", "id": "VARCHAR", "json": "VARCHAR", "int": "INTEGER", "long": "BIGINT", "bool": "BOOLEAN",
               "time": "TIMESTAMP WITH TIME ZONE", "date": "DATE"},
    "spark": {"text": "string", "id": "string", "json": "string", "int": "int", "long": "bigint", "bool": "boolean", "time": "timestamp",
              "date": "date"},
    "polars": {"text": polars.String, "id": polars.String, "json": polars.String, "int": polars.Int32, "long": polars.Int64,
               "bool": polars.Boolean, "time": polars.Datetime("us", "UTC"), "date": polars.Date},
    "pyarrow": {"text": pyarrow.string(), "id": pyarrow.string(), "json": pyarrow.string(), "int": pyarrow.int32(), "long": pyarrow.int64(),
                "bool": pyarrow.bool_(), "time": pyarrow.timestamp("us", "UTC"), "date": pyarrow.date32()},
    "clickhouse": {"text": "String", "id": "String", "json": "String", "int": "Int32", "long": "Int64", "bool": "Bool",
                   "time": "DateTime64(6, 'UTC')", "date": "Date32"},
}


def names_of(table, by):
    """The columns in order, from the README, whose table is held to the program's by test_docs.py."""
    [line] = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith(f"| {table} | conv")]
    return [*line.split("|")[2].strip().split(", "), COLUMN[by]]


def by_duckdb(lake, table, _):
    relation = connect().sql(f"FROM read_parquet('{lake}/{table}/*/*.parquet', hive_partitioning = true, union_by_name = true)")
    return dict(zip(relation.columns, map(str, relation.types))), relation.fetchall()


def by_polars(lake, table, _):
    by_name = {"missing_columns": "insert", "extra_columns": "ignore"}
    frame = polars.scan_parquet(f"{lake}/{table}/*/*.parquet", hive_partitioning=True, **by_name).collect()
    return dict(frame.schema), frame.rows()


def by_pyarrow(lake, table, by):
    partition = pyarrow.dataset.partitioning(pyarrow.schema([(COLUMN[by], pyarrow.date32())]), flavor="hive")
    found = pyarrow.dataset.dataset(lake / table, partitioning=partition).to_table()
    return dict(zip(found.schema.names, found.schema.types)), [tuple(row.values()) for row in found.to_pylist()]


def by_clickhouse(lake, table, by):
    answer = session.Session().query(
        f"""SELECT *, toDate32OrNull(extract(_path, '{COLUMN[by]}=([^/]+)')) AS {COLUMN[by]}
            FROM file('{lake}/{table}/*/*.parquet', Parquet)
            SETTINGS use_hive_partitioning = 0, schema_inference_mode = 'union'""", "JSONCompact")
    result = json.loads(answer.data())
    types = {}
    for column in result["meta"]:
        kind = column["type"]
        for outer in ("LowCardinality(", "Nullable("):
            kind = kind.removeprefix(outer).removesuffix(")") if kind.startswith(outer) else kind
        types[column["name"]] = kind
    return types, [from_text(types, row) for row in result["data"]]


def from_text(types, row):
    """Times and dates that came as text, and 64-bit numbers that JSON shows as such."""
    def value(kind, cell):
        if cell is None:
            return None
        if kind.lower().startswith(("datetime", "timestamp")):
            return datetime.fromisoformat(cell).replace(tzinfo=timezone.utc)
        if kind.lower().startswith("date"):
            return date.fromisoformat(cell)
        return int(cell) if kind == "Int64" else cell
    return tuple(value(kind, cell) for kind, cell in zip(types.values(), row))


def by_spark(submit, scratch, jobs):
    """What Spark reads in each of (statements, tables): for each table its types and rows."""
    asked, out = scratch / "jobs.json", scratch / "found.json"
    asked.write_text(json.dumps([{"statements": script and str(script), "tables": tables} for script, tables in jobs]))
    submit(READS, asked, out)
    found = []
    for tables in json.loads(out.read_text()):
        types = {table: dict(result["types"]) for table, result in tables.items()}
        found.append({table: (types[table], [from_text(types[table], row) for row in result["rows"]])
                      for table, result in tables.items()})
    return found


def odd_lake(serve, lake, by):
    account = serve(page(*ODD))
    run("sync", "--lake", lake, "--base-url", account.url, "--requests-per-second", 0, "--partition-by", by)
    return lake


def states(serve, folder, by):
    """A lake in every state before and after a compaction, and the rows that it must come to.

    The folder's name contains characters that are special to shells, SQL and patterns."""
    folder = folder / f"it's 100%20 [odd] {{a,b}} * by {by}"
    account = serve(*served_pages())
    before, never = folder / "before", folder / "never compacted"

    def export():
        run("export", "--lake", before, "--base-url", account.url, "--requests-per-second", 0, "--flush-conversations", 1,
            "--partition-by", by)

    def copied(source, name):
        return Path(shutil.copytree(source, folder / name))

    export()
    shutil.copytree(before, never)
    run("compact", "--lake", before)
    export()
    # Staged files that no checkpoint names: an incomplete flush that would bring every row a second time.
    for place in (before, never):
        for table in ("conversations", "messages"):
            for stray in list((place / "_landing" / table).rglob("*-0000.parquet")):
                shutil.copy(stray, stray.with_name(stray.name.replace("-0000.parquet", "-0009.parquet")))

    first, compacted = copied(never, "first"), copied(before, "compacted")
    for place in (first, compacted):
        run("compact", "--lake", place)
    # One compaction was killed after it had replaced the messages, another before it had committed.
    half, forgetful = copied(before, "half"), copied(before, "forgetful")
    for place, tables in ((half, ["messages"]), (forgetful, TABLES)):
        for table in tables:
            shutil.copytree(compacted / table, place / table, dirs_exist_ok=True)
    assert files(half, "messages") != files(before, "messages")
    shutil.rmtree(compacted / "_landing", ignore_errors=True)
    return {never: first, **{place: compacted for place in (before, half, forgetful, compacted)}}


def assert_read(engine, table, by, types, rows):
    """Asserts that an engine reads the odd lake's table exactly: names and types in order, and every value."""
    assert list(types.items()) == [(name, TYPES[engine][KINDS[name]]) for name in names_of(table, by)], f"{engine}: {table}"
    assert_rows(as_rows(types, rows), expected_rows(ODD, by)[table], f"{engine}: {table}")


# Spark is further down, because it starts once for everything.
@pytest.mark.parametrize("by", COLUMN)
@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow", "clickhouse"])
def test_every_engine_reads_the_same(serve, lake, engine, by):
    reader = {"duckdb": by_duckdb, "polars": by_polars, "pyarrow": by_pyarrow, "clickhouse": by_clickhouse}[engine]
    odd_lake(serve, lake, by)
    for table in TABLES:
        assert_read(engine, table, by, *reader(lake, table, by))


@pytest.mark.parametrize("by", COLUMN)
def test_duckdb_sees_what_compact_will_make_of_it(serve, tmp_path, by):
    for place, compacted in states(serve, tmp_path, by).items():
        connection = connect()
        connection.execute(run("views", "--engine", "duckdb", "--lake", place).stdout)
        for table in TABLES:
            assert latest(connection, table) == read(compacted, table), f"{place.name}: {table}"
            if place.name == "before":
                assert latest(connection, table, "") == read(place, table), table
        if place.name != "never compacted":
            assert_latest(latest(connection, "conversations"))
        # Views that were made before a compaction are right after it.
        if place.name in ("before", "never compacted"):
            run("compact", "--lake", place)
            assert all(latest(connection, table) == read(compacted, table) for table in TABLES), place.name


def latest(connection, table, suffix="_latest"):
    found = connection.sql(f"SELECT * FROM {table}{suffix} ORDER BY ALL")
    return as_rows(found.columns, found.fetchall())


def read(lake, table):
    """The rows of a table whose folder no pattern can name as it is."""
    by = lake.parent.name.rsplit(" ", 1)[1]
    plain = Path(shutil.copytree(lake / table, lake.parent.parent / "plain" / by / lake.name / table, dirs_exist_ok=True))
    return read_table(plain.parent, table)


def test_spark_reads_the_same_and_sees_what_compact_will_make_of_it(serve, submit, tmp_path):
    jobs, expected = [], []
    for by in COLUMN:
        odd = odd_lake(serve, tmp_path / f"odd-{by}", by)
        jobs.append((None, [f"{odd}/{table}" for table in TABLES]))
        expected.append((by, odd, None))
        for place, compacted in states(serve, tmp_path, by).items():
            if place.name not in (("never compacted", "half", "compacted") if by == "day" else ("half",)):
                continue
            script = tmp_path / f"{place.name} by {by}.sql"
            script.write_text(run("views", "--engine", "spark", "--lake", place).stdout)
            jobs.append((script, ["messages_latest", *TABLES] if place == compacted else LATEST))
            expected.append((by, place, compacted))
    for (by, place, compacted), tables in zip(expected, by_spark(submit, tmp_path, jobs)):
        for name, (types, rows) in tables.items():
            table = name.removeprefix(f"{place}/").removesuffix("_latest")
            if compacted is None:
                assert_read("spark", table, by, types, rows)
                continue
            assert list(types.items()) == [(name, TYPES["spark"][KINDS[name]]) for name in names_of(table, by)], name
            in_order = sorted(as_rows(types, rows), key=repr)
            assert in_order == sorted(read(compacted, table), key=repr), f"{place.name} by {by}: {name}"


@pytest.mark.parametrize("by, days, value", [("day", 10, "2024-02-25"), ("month", 70, "2024-01-01")])
def test_a_filter_by_date_reads_that_date_alone(simulate, command, lake, by, days, value):
    api = simulate("--conversations", 200, "--days", days, "--messages", 2)
    command("sync", api, "--partition-by", by)
    api.advance(hours=5)
    command("export", api)
    connection = connect()
    connection.execute(command("views", None, "--engine", "duckdb").stdout)
    [plan] = connection.sql(f"""EXPLAIN (ANALYZE, FORMAT json)
        SELECT count(text) FROM messages_latest WHERE {COLUMN[by]} = '{value}'""").fetchall()
    scans = [scan for scan in nodes(json.loads(plan[1])) if scan.get("Function") == "READ_PARQUET"]
    # Conversations, messages and logs to find the latest versions, and messages for their text.
    assert sorted(int(scan["Total Files Read"]) for scan in scans) == [0, 1, 1, 1, 1], scans


def nodes(plan):
    yield plan.get("extra_info", {})
    for child in plan.get("children", []):
        yield from nodes(child)


def test_if_an_engine_cannot_read_a_lake_views_says_so(command, serve, lake):
    missing = command("views", None, "--engine", "duckdb", code=2)
    assert "there is no lake" in missing.stderr and not missing.stdout
    command("sync", serve(page(*ODD)))
    for engine in ("athena", "bigquery", "snowflake"):
        refused = command("views", None, "--engine", engine, code=2)
        assert "cannot read the lake" in refused.stderr and "hint: " in refused.stderr and not refused.stdout


@pytest.mark.parametrize("kept_as", ["parquet", "delta"])
def test_no_file_has_an_encoding_that_spark_3_3_cannot_read_and_each_names_its_writer(simulate, command, lake, kept_as):
    api = simulate("--conversations", 430, "--days", 6, "--messages", 6)
    command("sync", api, "--format", kept_as)
    api.advance(hours=30)
    command("export", api, "--flush-conversations", 20)
    read = {"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "DELTA_BINARY_PACKED"}
    for folder in [*TABLES, *(f"_landing/{table}" for table in TABLES)]:
        paths = list(Path(lake, folder).glob("created_date=*/*.parquet"))
        assert paths, folder
        for path in paths:
            metadata = pyarrow.parquet.ParquetFile(path).metadata
            columns = [metadata.row_group(group).column(number)
                       for group in range(metadata.num_row_groups) for number in range(metadata.num_columns)]
            assert all(set(column.encodings) <= read for column in columns), path
            # As parquet-java parses it.
            form = r"(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?"
            application, version, build = re.fullmatch(form, metadata.created_by).groups()
            assert application == "decagon-lake" and version and build
