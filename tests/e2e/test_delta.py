"""Lakes with Delta tables: what other programs read and may write, and what stays.

That the promises of a lake hold for them as well is in test_stores.py, with every other store, and in the crash tests.
"""

import json
import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import duckdb
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import ROOT, page, run
from deltalake import DeltaTable, Field, write_deltalake
from truth import COLUMN, TABLES, as_rows, assert_exact, connect, decoded, read_delta, read_table

sys.path.insert(0, str(ROOT / "tests" / "support"))
from proxy import Proxy  # noqa: E402
from servers import SeaweedFs  # noqa: E402

SMALL = ["--conversations", 430, "--days", 6, "--messages", 4]
DELTA = ["--format", "delta"]
UTC_MICROSECONDS = pa.timestamp("us", "UTC")
TYPES = {"VARCHAR": "string", "TIMESTAMP WITH TIME ZONE": "timestamp", "INTEGER": "integer", "BIGINT": "long",
         "BOOLEAN": "boolean", "DATE": "date"}


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    server = SeaweedFs(tmp_path_factory.mktemp("seaweedfs")).start()
    yield server
    server.stop()


def options(server):
    """How the readers of Rust reach an S3 server."""
    return {**server.environment, "AWS_ALLOW_HTTP": "true"} if server else None


def load(connection, *extensions):
    for extension in extensions:
        package = Path(find_spec(f"duckdb_extension_{extension}").origin).parent
        connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/{extension}.duckdb_extension'")


def with_duckdb(server=None):
    connection = connect()
    load(connection, "delta")
    if server:
        extensions, secret = server.duckdb()
        load(connection, *extensions)
        connection.execute(secret)

    def read(lake, table):
        result = connection.execute(f"SELECT * FROM delta_scan('{lake}/{table}')")
        return as_rows([column[0] for column in result.description], result.fetchall())

    return read


def with_delta_rs(server=None, version=None):
    return lambda lake, table: read_delta(lake, table, version=version, storage_options=options(server))


def with_polars(server=None):
    def read(lake, table):
        return decoded(polars.scan_delta(f"{lake}/{table}", storage_options=options(server)).collect().to_dicts())

    return read


READERS = [with_duckdb, with_delta_rs, with_polars]


def commits(lake, table):
    """What each commit of a local table says, oldest first."""
    paths = sorted(Path(lake, table, "_delta_log").glob("*.json"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def named(lake, table):
    return {Path(uri) for uri in DeltaTable(f"{lake}/{table}").file_uris()}


def data_files(lake, table):
    return set(Path(lake, table).glob("created_date=*/*.parquet"))


def sync_often(command, api, times):
    """Makes `times` commits to each table."""
    for _ in range(times):
        api.advance(hours=3)
        command("sync", api, *DELTA)


@pytest.mark.parametrize("by", COLUMN)
def test_every_reader_sees_the_same(simulate, command, lake, by):
    api = simulate(*SMALL)
    command("sync", api, *DELTA, "--partition-by", by)
    api.advance(hours=30)
    command("sync", api)
    for reader in READERS:
        assert_exact(lake, api.conversations(), reader(), by)
    command("verify")
    assert json.loads(command("status", None, "--json").stdout)["format"] == "delta"


def test_every_reader_sees_the_same_on_s3(simulate, seaweed):
    api, url = simulate(*SMALL), seaweed.lake("lakes/delta-readers")
    asked = ["--lake", url, "--base-url", api.url, "--requests-per-second", 0]
    for hours in (0, 30):
        api.advance(hours=hours)
        run("sync", *asked, *DELTA, **seaweed.environment)
    for reader in READERS:
        assert_exact(url, api.conversations(), reader(seaweed))


@pytest.mark.parametrize("by", COLUMN)
def test_a_plain_lake_and_a_delta_one_have_the_same_columns(simulate, command, lake, tmp_path, by):
    api, plain, partition = simulate(*SMALL), tmp_path / "plain", COLUMN[by]
    command("sync", api, *DELTA, "--partition-by", by)
    run("sync", "--lake", plain, "--base-url", api.url, "--requests-per-second", 0, "--partition-by", by)
    for table in TABLES:
        described = connect().sql(f"DESCRIBE FROM read_parquet('{plain}/{table}/*/*.parquet', hive_partitioning = true)")
        wanted = [(name, TYPES[kind]) for name, kind, *_ in described.fetchall()]
        schema = DeltaTable(lake / table).schema()
        assert [(field.name, field.type.type) for field in schema.fields] == wanted
        assert not schema.fields[0].nullable and schema.fields[-1].name == partition
        assert DeltaTable(lake / table).metadata().partition_columns == [partition]
        arrow = DeltaTable(lake / table).to_pyarrow_table().schema
        assert {kind for kind in arrow.types if pa.types.is_timestamp(kind)} <= {UTC_MICROSECONDS}
        assert arrow.field(partition).type == pa.date32()


def test_a_lake_keeps_its_format(simulate, command, lake, tmp_path):
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    refused = command("sync", api, "--format", "parquet", code=2)
    assert "--format delta" in refused.stderr and "hint" in refused.stderr
    command("sync", api)
    assert_exact(lake, api.conversations(), with_delta_rs())
    plain = tmp_path / "plain"
    asked = ["--lake", plain, "--base-url", api.url, "--requests-per-second", 0]
    run("sync", *asked)
    run("sync", *asked, *DELTA, code=2)
    assert not list(plain.rglob("_delta_log")) and read_table(plain, "conversations")


def test_one_commit_a_table_and_run_and_none_without_news(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    for hours in (20, 0):
        api.advance(hours=hours)
        command("sync", api, "--overlap", "0s")
    for table in TABLES:
        made, first, second = commits(lake, table)[:3]
        assert any("metaData" in action for action in made)
        kinds = [{next(iter(action)) for action in commit} for commit in (first, second)]
        assert kinds == [{"commitInfo", "txn", "add"}, {"commitInfo", "txn", "add", "remove"}]
        adds = [action["add"]["path"] for commit in (first, second) for action in commit if "add" in action]
        assert len(adds) == len(set(adds)), "a name is used once"


def test_many_dates_take_several_commits(simulate, command, lake):
    api = simulate("--conversations", 400, "--days", 200, "--messages", 2)
    command("sync", api, *DELTA)
    for table in TABLES:
        _, *parts = commits(lake, table)
        added = [sum("add" in action for action in commit) for commit in parts]
        assert len(added) == 2 and max(added) == 128 and sum(added) == len(data_files(lake, table))
    assert_exact(lake, api.conversations(), with_delta_rs())


def test_snapshots_stay_for_their_readers(simulate, command, lake):
    """A reader keeps its snapshot during a compaction; so does one that travels back in time."""
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    before = api.conversations()
    under_way = {table: DeltaTable(lake / table) for table in TABLES}
    for hours in (20, 30):
        api.advance(hours=hours)
        command("sync", api)
    assert api.conversations() != before
    assert_exact(lake, before, lambda _, table: decoded(under_way[table].to_pyarrow_table().to_pylist()))
    assert_exact(lake, before, with_delta_rs(version=1))
    assert_exact(lake, api.conversations(), with_delta_rs())


def test_replaced_files_stay_for_a_time_and_are_then_removed(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    api.advance(hours=30)
    command("sync", api)
    kept = {table: data_files(lake, table) - named(lake, table) for table in TABLES}
    assert all(kept.values())
    # A file that no commit names: a run was killed before its commit.
    stray = lake / "tags" / "created_date=2024-02-28" / "part-20240301T000000Z-00000a-0000.parquet"
    stray.write_bytes(b"half of a file")
    assert json.loads(command("compact", None, "--json").stdout)["vacuumed_objects"] == 0
    assert all(path.exists() for paths in kept.values() for path in paths) and stray.exists()
    assert "--force-short-retain" in command("compact", None, "--retain", "59m", code=2).stderr
    for expected in (sum(map(len, kept.values())), 1):
        done = json.loads(command("compact", None, "--retain", "0s", "--json", DECAGON_FORCE_SHORT_RETAIN=1).stdout)
        assert done["vacuumed_objects"] == expected
        # Another writer may be about to commit a file that is younger than an hour.
        assert stray.exists() == (expected > 1)
        if stray.exists():
            os.utime(stray, (time.time() - 3_700,) * 2)
    assert all(data_files(lake, table) == named(lake, table) for table in TABLES)
    assert_exact(lake, api.conversations(), with_delta_rs())
    command("verify")


def test_a_checkpoint_of_the_log_is_written(simulate, command, lake):
    api = simulate(*SMALL)
    sync_often(command, api, 12)
    for table in TABLES:
        log = lake / table / "_delta_log"
        [last] = log.glob("_last_checkpoint")
        version = json.loads(last.read_text())["version"]
        for commit in log.glob("*.json"):
            # As log clean-ups of other programs do.
            if commit.stem.isdigit() and int(commit.stem) < version:
                commit.unlink()
    for reader in READERS:
        assert_exact(lake, api.conversations(), reader())
    api.advance(hours=30)
    command("sync", api)
    assert_exact(lake, api.conversations(), with_delta_rs())
    command("verify")


def test_an_old_log_is_cut_at_a_checkpoint(simulate, command, lake):
    api = simulate(*SMALL)
    sync_often(command, api, 11)
    logs = {table: sorted((lake / table / "_delta_log").glob("0*")) for table in TABLES}
    for days, left in ((29, 0), (31, None)):
        for path in (path for paths in logs.values() for path in paths):
            os.utime(path, (time.time() - days * 86_400,) * 2)
        command("compact", None, "--retain", "0s", "--force-short-retain")
        for paths in logs.values():
            *_, checkpoint = (path for path in paths if path.name.endswith(".checkpoint.parquet"))
            gone = [path for path in paths if not path.exists()]
            assert gone == ([] if left == 0 else [path for path in paths if path.name[:20] < checkpoint.name[:20]])
    api.advance(hours=30)
    command("sync", api)
    for reader in READERS:
        assert_exact(lake, api.conversations(), reader())


def test_rows_that_another_writer_deleted_stay_deleted(simulate, command, lake):
    """Rows that another program deleted stay deleted; conversations that change come back as the API sends them."""
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    user = api.conversations()[0]["user_id"]
    ids = [c["conversation_id"] for c in api.conversations() if c["user_id"] == user]
    listed = ", ".join(f"'{own_id}'" for own_id in ids)
    for table in TABLES:
        DeltaTable(lake / table).delete(f"conversation_id IN ({listed})")
    api.advance(hours=30)
    synced = json.loads(command("sync", api, "--json").stdout)
    assert synced["compacted_dates"]
    by_id = {c["conversation_id"]: c for c in api.conversations()}
    found = {row["conversation_id"] for row in with_delta_rs()(lake, "conversations")}
    assert set(by_id) - set(ids) <= found
    assert_exact(lake, [by_id[own_id] for own_id in found], with_delta_rs())
    command("verify")


def append(table, rows):
    """Gives a partition a second file."""
    row = {**rows.slice(0, 1).to_pylist()[0], "conversation_id": "an appended one"}
    write_deltalake(table, pa.Table.from_pylist([row], schema=rows.schema), mode="append")


def widen(table, _):
    table.alter.add_columns([Field("team", "string")])


@pytest.mark.parametrize("write, error, dates_left", [
    (append, "has 2 files", 1), (widen, "has other columns", None),
])
def test_an_unusable_change_of_another_writer_is_refused_until_it_is_undone(simulate, command, lake, write, error, dates_left):
    """If only one partition is concerned, it waits and the others are compacted."""
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    table = DeltaTable(lake / "conversations")
    rows, version = table.to_pyarrow_table(), table.version()
    write(table, rows)
    theirs = with_delta_rs()(lake, "conversations")
    command("backfill", api, "--from", "2024-02-20", "--to", "2024-03-02", "--timestamp-filter", "created_at")
    refused = command("compact", None, "--json", code=6)
    assert error in refused.stderr and "another writer" in refused.stderr and "hint" in refused.stderr
    dates = {str(date) for date in rows["created_date"].to_pylist()}
    done = set(json.loads(refused.stdout)["compacted_dates"])
    assert done < dates and len(dates - done) == (dates_left or len(dates))
    found = with_delta_rs()(lake, "conversations")
    assert sorted(row["conversation_id"] for row in found) == sorted(row["conversation_id"] for row in theirs)
    if dates_left:
        [date] = dates - done
        assert date in refused.stderr
        for name in TABLES:
            DeltaTable(lake / name).delete(f"created_date = '{date}'")
        command("backfill", api, "--from", date, "--to", f"{date}T23:59:59.999999Z", "--timestamp-filter", "created_at")
    else:
        DeltaTable(lake / "conversations").restore(version)
    command("compact")
    assert_exact(lake, api.conversations(), with_delta_rs())
    command("verify")


def test_rows_that_another_writer_wrote_in_another_order_are_merged(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    for name in TABLES:
        table = DeltaTable(lake / name)
        rows = table.to_pyarrow_table()
        for date in pc.unique(rows["created_date"]):
            of_date = rows.filter(pc.equal(rows["created_date"], date))
            backwards = of_date.take(list(reversed(range(len(of_date)))))
            write_deltalake(table, backwards, mode="overwrite", predicate=f"created_date = '{date}'")
    broken = json.loads(command("verify", None, "--json", code=6).stdout)["checks"]
    assert {check["check"] for check in broken if check["findings"]} == {"unique_and_sorted"}
    api.advance(hours=30)
    command("sync", api)
    command("backfill", api, "--from", "2024-02-01", "--to", "2024-03-10", "--timestamp-filter", "created_at")
    command("compact")
    assert_exact(lake, api.conversations(), with_delta_rs())
    command("verify")


def test_tables_ask_for_no_more_than_the_oldest_protocol_and_those_that_are_there_keep_theirs(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api, *DELTA)
    for table in TABLES:
        [first] = Path(lake, table, "_delta_log").glob("*00.json")
        lines = [json.loads(line) for line in first.read_text().splitlines()]
        [protocol] = [line["protocol"] for line in lines if "protocol" in line]
        assert protocol == {"minReaderVersion": 1, "minWriterVersion": 2}
        if table == "tags":
            # As decagon-lake 0.1 made tables.
            protocol |= {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": []}
            first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sync_often(command, api, 12)
    for table in TABLES:
        protocol = DeltaTable(lake / table).protocol()
        wanted = (3, 7) if table == "tags" else (1, 2)
        assert (protocol.min_reader_version, protocol.min_writer_version) == wanted
    for reader in READERS:
        assert_exact(lake, api.conversations(), reader())
    command("verify")


@pytest.mark.parametrize("died", [False, True])
def test_a_state_older_than_the_tables_is_refused_and_can_be_repaired(simulate, command, lake, tmp_path, died):
    """`_state` comes from a backup, the tables do not: the tables would take new commits for ones that they have."""
    api, backup = simulate(*SMALL), tmp_path / "backup"
    command("sync", api, *DELTA)
    shutil.copytree(lake / "_state", backup)
    if died:
        # The backup was made during a run.
        record = max((backup / "leases").glob("*.json"))
        record.write_text(json.dumps({**json.loads(record.read_text()), "ended": None}))
    for _ in range(4):
        api.advance(hours=12)
        command("sync", api)
    tables = api.conversations()
    shutil.rmtree(lake / "_state")
    shutil.copytree(backup, lake / "_state")
    api.advance(hours=12)
    refused = [("sync", api), ("export", api), ("compact",),
               ("backfill", api, "--from", "2024-02-20", "--to", "2024-03-02", "--timestamp-filter", "created_at")]
    asked, before = api.gaps()[0], data_and_state(lake)
    for arguments in refused * 3:
        output = command(*arguments, code=6).stderr
        assert "are newer than its _state" in output and "verify --repair" in output
    assert (api.gaps()[0], data_and_state(lake)) == (asked, before), "nothing was fetched, committed or removed"
    broken = json.loads(command("verify", None, "--json", code=6).stdout)["checks"]
    assert {check["check"]: check["findings"] for check in broken if check["findings"]} == {"state": 1}
    assert_exact(lake, tables, with_delta_rs())
    command("verify", None, "--repair")
    command("verify")
    command("sync", api)
    assert_exact(lake, api.conversations(), with_delta_rs())
    api.advance(hours=12)
    command("sync", api)
    assert_exact(lake, api.conversations(), with_delta_rs())
    command("verify")


def data_and_state(lake):
    """Every file except those that name the holder."""
    return {path: path.read_bytes() for path in Path(lake).rglob("*")
            if path.is_file() and path.parent.name != "leases" and path.name != "lock"}


@pytest.fixture
def behind_proxy(seaweed):
    proxies = []

    def get(name):
        proxies.append(Proxy(seaweed.url))
        reached = {k: v.replace(seaweed.url, proxies[-1].url) for k, v in seaweed.environment.items()}
        return seaweed.lake(f"lakes/{name}"), reached, proxies[-1]

    yield get
    for proxy in proxies:
        proxy.stop()


def write_between(proxy, table, write):
    """Lets another program write right before the next commit of a table succeeds."""
    written = []

    def before(kind, path, _):
        if kind == "put" and f"/{table}/_delta_log/" in path and path.endswith(".json") and not written:
            written.append(path)
            write()

    proxy.before = before
    return written


def test_a_commit_of_another_program_in_between_is_kept(simulate, seaweed, behind_proxy):
    url, reached, proxy = behind_proxy("delta-between")
    api = simulate(*SMALL)
    asked = ["--lake", url, "--base-url", api.url, "--requests-per-second", 0]
    run("sync", *asked, *DELTA, **reached)
    api.advance(hours=5)
    others = f"{url}/messages"

    def describe():
        DeltaTable(others, storage_options=options(seaweed)).alter.set_table_description("read by finance")

    written = write_between(proxy, "messages", describe)
    run("sync", *asked, **reached)
    assert written
    table = DeltaTable(others, storage_options=options(seaweed))
    assert table.metadata().description == "read by finance"
    assert table.version() == 3 and table.history(1)[0]["operation"] == "MERGE"
    assert_exact(url, api.conversations(), with_delta_rs(seaweed))


def test_a_commit_of_another_program_to_the_same_rows_is_refused_and_then_merged_with(simulate, seaweed, behind_proxy):
    url, reached, proxy = behind_proxy("delta-conflict")
    api = simulate(*SMALL)
    asked = ["--lake", url, "--base-url", api.url, "--requests-per-second", 0]
    run("sync", *asked, *DELTA, **reached)
    api.advance(hours=5)
    before = {c["conversation_id"] for c in api.conversations()}

    def erase():
        table = DeltaTable(f"{url}/conversations", storage_options=options(seaweed))
        table.delete("created_date >= '2024-02-29' AND csat_rating IS NULL")

    written = write_between(proxy, "conversations", erase)
    refused = run("sync", *asked, code=7, **reached)
    assert written and "another writer committed to Delta table conversations, partition 20" in refused.stderr
    left = {row["conversation_id"] for row in with_delta_rs(seaweed)(url, "conversations")}
    assert left < before, "what it deleted is gone"
    run("compact", "--lake", url, **reached)
    found = {row["conversation_id"] for row in with_delta_rs(seaweed)(url, "conversations")}
    by_id = {c["conversation_id"]: c for c in api.conversations()}
    assert left <= found, "the staged files are merged with what it left"
    assert_exact(url, [by_id[own_id] for own_id in found], with_delta_rs(seaweed))


def test_the_views_are_right_before_a_compaction_and_after_it(simulate, command, lake):
    api = simulate(*SMALL)
    command("export", api, *DELTA)
    assert "compact" in command("views", None, "--engine", "duckdb", code=2).stderr, "there are no tables yet"
    command("compact")
    connection = connect()
    load(connection, "delta")
    connection.execute(command("views", None, "--engine", "duckdb").stdout)

    def seen(suffix):
        def read(_, table):
            found = connection.sql(f"FROM {table}{suffix}")
            return as_rows(found.columns, found.fetchall())

        return read

    before = api.conversations()
    assert_exact(lake, before, seen("_latest"))
    api.advance(hours=30)
    command("export", api)
    assert_exact(lake, before, seen(""))
    assert_exact(lake, api.conversations(), seen("_latest"))
    command("compact")
    assert_exact(lake, api.conversations(), seen(""))
    assert_exact(lake, api.conversations(), seen("_latest"))


def test_dates_that_are_not_known_are_null(serve, lake):
    undated = {"conversation_id": "undated", "messages": [{"text": "hm"}]}
    dated = {"conversation_id": "dated", "created_at": "2024-01-01T10:00:00Z", "messages": []}
    account = serve(page(undated, dated))
    run("sync", "--lake", lake, "--base-url", account.url, "--requests-per-second", 0, *DELTA)
    for reader in READERS:
        dates = {row["conversation_id"]: row["created_date"] for row in reader()(lake, "conversations")}
        assert dates["undated"] is None and str(dates["dated"]) == "2024-01-01"
    assert {row["created_date"] for row in with_delta_rs()(lake, "messages")} == {None}
