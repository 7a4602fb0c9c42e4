"""Tables whose columns grow: lakes of earlier releases, kept in tests/data, and keys of `metadata` that become columns.

A lake of schema 1 has the first page of its account in the tables and the second one staged. tests/data/lake-schema-1.json
has both as the API sent them.
"""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, conversation, page, run
from deltalake import DeltaTable
from test_delta import load
from test_readers import by_clickhouse, by_duckdb, by_polars, by_pyarrow, by_spark, names_of
from truth import API_NAME, CHILD_FIELDS, CONVERSATION_FIELDS, TABLES, as_rows, connect, files, instant, read_delta, read_table

DATA = ROOT / "tests" / "data"
SENT = json.loads((DATA / "lake-schema-1.json").read_text())
READ = {"parquet": read_table, "delta": read_delta}
NEW = {"conversations": ["conversation_url", "all_tags", "watchtower_reviews", "deleted_at"], "messages": ["message_id"],
       "tags": [], "audit_logs": []}
OUT = "2024-02-02"
METADATA = ["--metadata-columns", "plan,order_total:double,vip:boolean"]


def latest(*pages):
    """The latest version of each conversation by id."""
    known = {}
    for each in pages:
        for version in each:
            before = known.get(version["conversation_id"])
            if before is None or version["updated_at"] >= before["updated_at"]:
                known[version["conversation_id"]] = version
    return known


def normal(value, fields):
    """An API object as the tables can hold it: times as instants, no nulls."""
    if not isinstance(value, dict):
        return value
    times = {API_NAME.get(name, name) for name, kind in fields.items() if kind == "time"}
    return {name: instant(field) if name in times else field for name, field in value.items() if field is not None}


def expected(*pages):
    """The conversations as they must be rebuilt from the tables."""
    rebuilt = {}
    for own_id, version in latest(*pages).items():
        rebuilt[own_id] = normal(version, CONVERSATION_FIELDS)
        for table, (_, fields) in CHILD_FIELDS.items():
            elements = [normal(element, fields) for element in rebuilt[own_id].pop(table, None) or []]
            rebuilt[own_id] |= {table: elements} if elements else {}
    return rebuilt


def rebuilt(rows):
    """The API's objects, from the rows of all tables."""
    found = {}
    for row in rows["conversations"]:
        found[row["conversation_id"]] = rebuild(row, CONVERSATION_FIELDS) | {"conversation_id": row["conversation_id"]}
    for table, (index, fields) in CHILD_FIELDS.items():
        for row in sorted(rows[table], key=lambda row: row[index]):
            element = rebuild(row, fields)
            if table == "tags" and row["extra"] is None and list(element) == ["id"]:
                element = element["id"]
            found[row["conversation_id"]].setdefault(table, []).append(element)
    return found


def rebuild(row, fields):
    extra = row["extra"]
    if extra is not None and not isinstance(extra, dict):
        return extra
    own = {}
    for name, kind in fields.items():
        value = row.get(name)
        if kind == "id" and value is not None and value.lstrip("-").isdigit() and str(int(value)) == value:
            value = int(value)
        own |= {} if value is None else {API_NAME.get(name, name): value}
    # A null field with a column equals a missing one, and once that column did not exist.
    return own | {name: value for name, value in (extra or {}).items() if value is not None}


def tables_of(lake, kept_as):
    return {table: READ[kept_as](lake, table) for table in TABLES}


@pytest.fixture(params=["parquet", "delta"])
def kept_as(request):
    return request.param


@pytest.fixture
def old(kept_as, lake):
    """A copy of the lake of schema 1."""
    return old_lake(lake, kept_as)


def old_lake(place, kept_as="parquet"):
    return Path(shutil.copytree(DATA / ("lake-schema-1" + ("-delta" if kept_as == "delta" else "")), place))


def account(serve, lake, *conversations):
    """The account of a lake, which sends these conversations now."""
    api = serve((200, {"Date": "Fri, 09 Feb 2024 06:00:00 GMT"}, page(*conversations)))
    path = lake / "_state" / "lake.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "base_url": api.url}))
    return api


def lake_json(lake):
    return json.loads((lake / "_state" / "lake.json").read_text())


def columns_of_file(path):
    return [name for name, *_ in connect().sql(f"DESCRIBE FROM read_parquet('{path}', hive_partitioning = false)").fetchall()]


def views(lake, engine="duckdb"):
    connection = connect()
    load(connection, "delta")
    connection.execute(run("views", "--engine", engine, "--lake", lake).stdout)
    return connection


def view(connection, name):
    found = connection.sql(f"SELECT * FROM {name} ORDER BY ALL")
    return as_rows(found.columns, found.fetchall())


def test_reading_an_old_lake_changes_nothing(command, old, kept_as):
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    command("verify")
    status = json.loads(command("status", None, "--json").stdout)
    assert status["tables"]["conversations"]["rows"] == 6 and status["landing"]["rows"]["conversations"] == 4
    connection = views(old)
    tables = {table: view(connection, f"{table}_latest") for table in TABLES}
    assert not any(set(NEW[table]) & set(row) for table in TABLES for row in tables[table]), "it has the old columns"
    assert rebuilt(tables) == expected(*SENT["pages"])
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    assert rebuilt(tables_of(old, kept_as)) == expected(SENT["pages"][0])


def test_an_old_lake_grows_when_it_is_compacted(command, old, kept_as):
    before = lake_json(old)
    assert "schema_version" not in before
    untouched = files(old, f"conversations/created_date={OUT}")
    command("compact")
    assert {"format_version": 3, "schema_version": 3}.items() <= lake_json(old).items()
    assert before.items() <= {**lake_json(old), "format_version": before["format_version"]}.items()
    assert files(old, f"conversations/created_date={OUT}") == untouched
    tables = tables_of(old, kept_as)
    assert rebuilt(tables) == expected(*SENT["pages"])
    rows = {row["conversation_id"]: row for row in tables["conversations"]}
    assert rows["a1"]["all_tags"] == SENT["pages"][0][0]["all_tags"] and rows["a1"]["extra"] == {"channel": "web"}
    assert rows["b1"]["all_tags"] is None and "all_tags" in rows["b1"]["extra"], "its file is as it was"
    assert rows["a2"]["all_tags"] == {} and rows["a2"]["watchtower_reviews"] == [], "a row of the old file, brought along"
    ids = {row["message_id"] for row in tables["messages"] if row["conversation_id"] in ("a1", "a2")}
    assert ids == {"70100", "70101", "70102", "70103", "msg-2", None}
    command("verify")
    again = views(old)
    for table in TABLES:
        assert sorted(view(again, table), key=repr) == sorted(view(again, f"{table}_latest"), key=repr)
        wanted = names_of(table, "day")
        assert all(again.sql(f"SELECT * FROM {name}").columns == wanted for name in (table, f"{table}_latest"))
        if kept_as == "delta":
            fields = [field.name for field in DeltaTable(old / table).schema().fields]
            assert sorted(fields) == sorted(wanted) and fields[len(fields) - len(NEW[table]):] == NEW[table]


def test_an_old_lake_grows_when_it_is_synced(command, old, kept_as, serve):
    fresh = conversation("fresh", created_at="2024-02-02T23:00:00Z", updated_at="2024-02-08T00:00:00Z", all_tags=[1.50],
                         conversation_url="https://x/fresh", messages=[{"text": "x", "id": 1}])
    command("sync", account(serve, old, fresh))
    tables = tables_of(old, kept_as)
    assert rebuilt(tables) == expected(*SENT["pages"], [fresh])
    command("verify")
    assert lake_json(old)["schema_version"] == 3


def test_an_old_lake_grows_when_it_is_repaired(command, old, kept_as):
    for path in (old / "_landing").rglob("created_date=2024-02-01/*"):
        path.unlink()
    command("verify", None, code=6)
    assert "schema_version" not in lake_json(old)
    command("verify", None, "--repair")
    command("compact")
    assert lake_json(old)["schema_version"] == 3
    kept = [c for c in SENT["pages"][1] if c["created_at"].startswith("2024-02-05")]
    assert rebuilt(tables_of(old, kept_as)) == expected(SENT["pages"][0], kept)


@pytest.mark.parametrize("number", ["schema_version", "format_version"])
def test_a_lake_of_a_newer_release_is_refused(command, old, serve, number):
    api = account(serve, old)
    told = lake_json(old)
    (old / "_state" / "lake.json").write_text(json.dumps({**told, number: 99}))
    for name, simulator in (("status", None), ("verify", None), ("compact", None)):
        refused = command(name, simulator, code=2)
        assert "99, newer than this program" in refused.stderr and "hint: update decagon-lake" in refused.stderr
    run("sync", "--lake", old, "--base-url", api.url, "--requests-per-second", 0, code=2)
    assert not api.asked


def mixed(tmp_path):
    """Plain lakes with files of both schemas: one whose first file has the newest columns, and one whose last file has."""
    newest_first, newest_last = old_lake(tmp_path / "newest first"), tmp_path / "newest last"
    run("compact", "--lake", newest_first)
    shutil.copytree(newest_first, newest_last)
    for table in TABLES:
        shutil.rmtree(newest_last / table / "created_date=2024-02-01")
    for lake, order in ((newest_first, [True, False, True, False]), (newest_last, [False, True, False])):
        of = sorted((lake / "conversations").glob("*/*.parquet"))
        assert ["all_tags" in columns_of_file(path) for path in of] == order
    return newest_first, newest_last


@pytest.mark.parametrize("engine", ["duckdb", "polars", "pyarrow", "clickhouse"])
def test_every_engine_reads_files_of_both_schemas(tmp_path, engine):
    reader = {"duckdb": by_duckdb, "polars": by_polars, "pyarrow": by_pyarrow, "clickhouse": by_clickhouse}[engine]
    for lake in mixed(tmp_path):
        known = rebuilt({table: read_table(lake, table) for table in TABLES})
        names, rows = {}, {}
        for table in TABLES:
            types, found = reader(lake, table, "day")
            names[table], rows[table] = list(types), as_rows(types, found)
        # These two show the columns of the first file; what the others hide is in no column at all.
        hidden = engine in ("polars", "pyarrow") and lake.name == "newest last"
        for table in TABLES:
            assert set(names[table]) == set(names_of(table, "day")) - set(NEW[table] if hidden else ()), f"{engine}: {table}"
        assert hidden or rebuilt(rows) == known, f"{engine} {lake.name}"


def test_duckdb_and_its_views_see_columns_that_no_file_has_yet(command, lake, serve):
    old_lake(lake)
    api = account(serve, lake)
    shutil.rmtree(lake / "_landing")
    [newest] = sorted((lake / "_state" / "checkpoints").iterdir())[-1:]
    newest.write_text(json.dumps({**json.loads(newest.read_text()), "landed": []}))
    command("export", api, *METADATA)
    assert not list((lake / "_landing").rglob("*.parquet")), "nothing new"
    connection = views(lake)
    for name in ("conversations", "conversations_latest"):
        rows = view(connection, name)
        assert len(rows) == 6 and all(row["metadata_plan"] is row["all_tags"] is None for row in rows)


def test_spark_reads_files_of_both_schemas(tmp_path, submit):
    jobs, lakes, grown = [], mixed(tmp_path), [table for table in TABLES if NEW[table]]
    for lake in lakes:
        script = tmp_path / f"{lake.name}.sql"
        script.write_text(run("views", "--engine", "spark", "--lake", lake).stdout)
        jobs.append((script, [*grown, f"{grown[0]}_latest"]))
    for lake, found in zip(lakes, by_spark(submit, tmp_path, jobs)):
        for name, (types, rows) in found.items():
            table = name.removesuffix("_latest")
            assert list(types) == names_of(table, "day"), f"{lake.name}: {name}"
            known = [{column: row[column] for column in types} for row in read_table(lake, table)]
            assert sorted(as_rows(types, rows), key=repr) == sorted(known, key=repr), f"{lake.name}: {name}"


def test_the_spark_example_compacts_an_old_lake(tmp_path, submit):
    source, out = old_lake(tmp_path / "old"), tmp_path / "out"
    submit(ROOT / "examples" / "spark_compact.py", source, out)
    # Spark writes no file without rows.
    written = {table: read_table(out, table) if list((out / table).rglob("*.parquet")) else [] for table in TABLES}
    assert rebuilt(written) == expected(*SENT["pages"])


CUSTOMERS = [
    conversation("a", metadata={"plan": "pro", "order_total": 12.50, "vip": True, "seats": 3}),
    conversation("b", metadata={"plan": 7, "order_total": "1e2", "vip": "false", "since": "2024-01-01"}),
    conversation("c", metadata={"plan": {"name": "x"}, "order_total": "none", "vip": None}),
    conversation("d", metadata=["plan"]),
    conversation("e", created_at="2024-01-05 10:00:00"),
]


def test_keys_of_metadata_become_columns(command, lake, serve, kept_as):
    more = CUSTOMERS[0]["metadata"] | {"seats": 4}
    later = conversation("a", metadata=more, updated_at="2024-01-03 10:00:00")
    api = serve(page(*CUSTOMERS), page(later))
    report = json.loads(command("sync", api, "--json", "--format", kept_as, *METADATA).stdout)
    assert report["metadata_misfits"] == {"metadata_order_total": 1, "metadata_plan": 1}
    assert report["fields_without_column"] == {"metadata.seats": 1, "metadata.since": 1}

    def found(*names):
        rows = {row["conversation_id"]: row for row in READ[kept_as](lake, "conversations")}
        sent = {customer["conversation_id"]: customer.get("metadata") for customer in CUSTOMERS}
        assert {own: row["metadata"] for own, row in rows.items() if own != "a"} == {
            own: metadata for own, metadata in sent.items() if own != "a"}, "it stays complete"
        return {own: tuple(row.get(f"metadata_{name}") for name in names) for own, row in rows.items()}

    none = (None, None, None)
    assert found("plan", "order_total", "vip") == {
        "a": ("pro", 12.5, True), "b": ("7", 100.0, False), "c": none, "d": none, "e": none}
    # A later run may name some of them, or more. Rows that are written again get the new columns too.
    told = json.loads(command("sync", api, "--json", DECAGON_METADATA_COLUMNS="vip:boolean,seats:bigint,since:timestamp").stdout)
    assert told["fields_without_column"] == {}
    assert found("plan", "seats", "since") == {
        "a": ("pro", 4, None), "b": ("7", None, instant("2024-01-01T00:00:00Z")), "c": none, "d": none, "e": none}
    names = ["metadata_plan", "metadata_order_total", "metadata_vip", "metadata_seats", "metadata_since"]
    assert [column["name"] for column in lake_json(lake)["metadata_columns"]] == names
    command("verify")
    command("sync", api)
    connection = views(lake)
    for name in ("conversations", "conversations_latest"):
        described = connection.sql(f"SELECT * FROM {name}")
        assert [(column, str(kind)) for column, kind in zip(described.columns, described.types) if "metadata_" in column] == list(
            zip(names, ["VARCHAR", "DOUBLE", "BOOLEAN", "BIGINT", "TIMESTAMP WITH TIME ZONE"]))
        assert described.columns.index("extra") == described.columns.index("metadata_since") + 1


@pytest.mark.parametrize("columns, told", [
    ("plan:double", "the column metadata_plan has the type text, not double"),
    ("seats,seats", "named twice"),
    ("Plan", "would both become metadata_plan"),
    ("plan:integer", '"integer" is no type; the types are text, bigint, double, boolean, timestamp'),
    ("plan,,vip", "a key of metadata is empty"),
])
def test_columns_that_contradict_are_refused(command, lake, serve, columns, told):
    api = serve(page(*CUSTOMERS[:1]))
    command("sync", api, "--metadata-columns", "plan")
    before = lake_json(lake)
    refused = command("sync", api, "--metadata-columns", columns, code=2)
    assert told in refused.stderr
    assert lake_json(lake) == before and len(api.asked) == 1


def test_fields_without_a_column_are_told_by_name(command, lake, serve):
    def odd(own_id, **fields):
        return conversation(own_id, **fields, messages=[{"text": "x", "mood": "secret"}, {"mood": None}])

    api = serve(page(odd("a", channel="secret", metadata={"plan": "secret"})),
                page(odd("b", channel="secret", **{f"field {number:03}": number for number in range(150)}, **{"ü" * 400: 1})))
    first = command("sync", api, "--json")
    assert json.loads(first.stdout)["fields_without_column"] == {
        "conversations.channel": 1, "messages.mood": 2, "metadata.plan": 1}
    line = "new fields without a column, which are kept as JSON: conversations.channel, messages.mood, metadata.plan"
    assert line in first.stderr
    second = command("sync", api, "--json")
    counts = json.loads(second.stdout)["fields_without_column"]
    assert len(counts) == 101 and max(map(len, counts)) < 130 and counts["other"] > 50
    assert "conversations.channel" not in second.stderr.split("kept as JSON: ")[1], "it is told once"
    assert json.loads(command("status", None, "--json").stdout)["fields_without_column"]["messages.mood"] == 4
    assert "no column  messages.mood 4, conversations.channel 2" in command("status").stdout
    for told in (first, second):
        assert "secret" not in told.stdout + told.stderr
    third = command("sync", api)
    assert "kept as JSON" not in third.stderr
