"""Table files that other programs have rewritten: a compaction merges with those that fit, and they become this
program's own again; it refuses the others, and the hint says how to rewrite them."""

import json
import re
from pathlib import Path

import duckdb
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import conversation, page
from truth import TABLES, assert_exact

SMALL = ["--conversations", 430, "--days", 6, "--messages", 4]
ALL = ["--from", "2024-02-01", "--to", "2024-03-10", "--timestamp-filter", "created_at"]


def by_duckdb(path, order):
    """With the partition as a column of its own, and the rest nullable."""
    duckdb.sql(f"COPY (FROM read_parquet('{path}', hive_partitioning = true) {order}) TO '{path}' (FORMAT parquet)")


def duckdb_as_it_is(path):
    by_duckdb(path, "")


def duckdb_in_another_order(path):
    by_duckdb(path, "ORDER BY hash(conversation_id), hash(_run_id)")


def pandas_as_it_is(path):
    """Numbers that may be null become floats, what is all null has no type, and there is a column with row numbers."""
    frame = pandas.read_parquet(path, partitioning=None)
    frame.index = frame.index + 5
    frame.to_parquet(path)


def pandas_in_another_order(path):
    pandas.read_parquet(path, partitioning=None).sample(frac=1, random_state=1).to_parquet(path)


def with_pyarrow(change, **options):
    def rewrite(path):
        pq.write_table(change(pq.ParquetFile(path).read()), path, **options)

    return rewrite


def each(table, change):
    return pa.table({name: change(name, table[name]) for name in table.column_names})


def binary(table):
    """As writers do that know no text."""
    return each(table, lambda _, column: column.cast(pa.binary()) if column.type == pa.string() else column)


def wide(table):
    """Every type another one that holds the same, the columns backwards, in several kinds of row groups."""
    other = {pa.string(): pa.large_string(), pa.int32(): pa.int64(), pa.timestamp("us", "UTC"): pa.timestamp("ns", "UTC")}
    return each(table.select(table.column_names[::-1]), lambda _, column: column.cast(other.get(column.type, column.type)))


def without_zone(table):
    return each(table, lambda _, column: column.cast(pa.timestamp("us")) if pa.types.is_timestamp(column.type) else column)


def words(table):
    return each(table, lambda name, column: column.dictionary_encode() if name in ("role", "name", "user_id") else column)


def views(table):
    return each(table, lambda _, column: column.cast(pa.string_view()) if column.type == pa.string() else column)


def reversed_rows(table):
    return table.take(list(range(len(table)))[::-1])


FITTING = {
    "duckdb": duckdb_as_it_is, "duckdb, another order": duckdb_in_another_order, "pandas": pandas_as_it_is,
    "pandas, another order": pandas_in_another_order, "binary": with_pyarrow(binary), "dictionaries": with_pyarrow(words),
    "views": with_pyarrow(views), "wide": with_pyarrow(wide, row_group_size=17),
    "no zone": with_pyarrow(without_zone), "96 bits": with_pyarrow(wide, use_deprecated_int96_timestamps=True),
    "backwards": with_pyarrow(reversed_rows, row_group_size=10, compression="gzip", version="1.0"),
}


def writers(lake):
    return {pq.ParquetFile(path).metadata.created_by.split()[0]
            for table in TABLES for path in Path(lake, table).rglob("*.parquet")}


@pytest.mark.parametrize("how", FITTING)
def test_a_rewritten_file_that_fits_is_merged(simulate, command, lake, how):
    api = simulate(*SMALL)
    command("sync", api)
    for table in TABLES:
        for path in Path(lake, table).rglob("*.parquet"):
            FITTING[how](path)
    assert "decagon-lake" not in writers(lake)
    rows = json.loads(command("status", None, "--json").stdout)["tables"]["conversations"]["rows"]
    assert rows == 430
    is_sorted = "order" not in how and how != "backwards"
    verified = command("verify", None, "--json", code=0 if is_sorted else 6)
    problems = {check["check"] for check in json.loads(verified.stdout)["checks"] if check["findings"]}
    assert problems == (set() if is_sorted else {"unique_and_sorted"})
    api.advance(hours=30)
    command("sync", api)
    command("backfill", api, *ALL)
    command("compact")
    assert writers(lake) == {"decagon-lake"}, "it is this program's again"
    assert_exact(lake, api.conversations())
    command("verify")


def lacking(name):
    return with_pyarrow(lambda table: table.drop_columns([name]))


def replaced(name, change):
    """A column with other values."""

    def rewrite(table):
        column = change(table[name].to_pylist())
        return table.set_column(table.column_names.index(name), name, column)

    return with_pyarrow(rewrite)


REFUSED = {
    # The table, what another program did to its file, the error, and how `verify` ends once somebody
    # did what the hint says (rows may be missing).
    "a type": ("conversations", replaced("csat", lambda v: pa.array([str(x) for x in v])), "csat of type Utf8", 0),
    "a time as text": ("messages", replaced("created_at", lambda v: pa.array(["x"] * len(v))), "created_at of type", 0),
    "a number too large": ("conversations", replaced("csat", lambda v: pa.array([3_000_000_000] * len(v))), "in csat", 0),
    "half a number": ("tags", replaced("level", lambda v: pa.array([0.5] * len(v))), "0.5 is not whole", 0),
    "no text": ("messages", replaced("text", lambda v: pa.array([b"\xff"] * len(v))), "value in text", None),
    "another column": ("tags", with_pyarrow(lambda t: t.append_column("mine", pa.array([1] * len(t)))), "column mine", 0),
    "no column": ("conversations", lacking("notes"), "no column notes", 0),
    "no id": ("messages", replaced("conversation_id", lambda v: pa.array([None, *v[1:]])), "without conversation_id", 6),
    "no run": ("tags", replaced("_run_id", lambda v: pa.array([None, *v[1:]])), "without _run_id", 6),
    "twice": ("conversations", with_pyarrow(lambda t: pa.concat_tables([t, t])), "twice", None),
    "a message twice": ("messages", with_pyarrow(lambda t: pa.concat_tables([t, t])), "twice", None),
    "text": ("messages", lambda path: path.write_bytes(b"not Parquet at all"), "is damaged", None),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_rewritten_file_that_does_not_fit_is_refused_with_a_hint(serve, command, lake, how):
    table, rewrite, error, verified_with = REFUSED[how]
    first = conversation("a", texts="xy", csat=3, tags=[{"name": "t", "level": 0}, {"name": "u", "level": 1}])
    api = serve(page(first, conversation("b", texts="z")), page(conversation("c", texts="v")))
    command("sync", api)
    [path] = Path(lake, table).rglob("*.parquet")
    sound = path.read_bytes()
    rewrite(path)
    theirs = path.read_bytes()
    refused = command("sync", api, code=6)
    assert error in refused.stderr and str(path) in refused.stderr and "hint" in refused.stderr
    assert path.read_bytes() == theirs, "it is as they left it"
    verified = command("verify", None, "--json", code=6)
    assert error in verified.stdout
    if verified_with is not None:
        [statement] = re.findall(r"COPY \(.*\) TO '.*' \(FORMAT parquet\)", refused.stderr)
        duckdb.sql(statement)
        command("compact")
        command("verify", code=verified_with)
    else:
        path.write_bytes(sound)
        command("compact")
        command("verify")
