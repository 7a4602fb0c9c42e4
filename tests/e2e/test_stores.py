"""The conformance suite: a lake's guarantees hold on every store.

Each scenario runs the real binary against a real server. Memory, which no two processes share, has the same scenarios in
src/run/tests/scenarios.rs.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import duckdb
import pytest
from conftest import BINARY, JITTER, KEY, PATIENCE_SECS, ROOT, blocks, environment, run
from deltalake import DeltaTable
from truth import TABLES, as_rows, assert_exact, assert_rows, expected_rows, files, instant

sys.path.insert(0, str(ROOT / "tests" / "support"))
from proxy import Proxy  # noqa: E402
from servers import SERVERS, SeaweedFs, until  # noqa: E402

# The stores, and how the tables are kept there.
STORES = ["local", *SERVERS, "local delta", "seaweedfs delta"]
SMALL = ["--conversations", 430, "--days", 6, "--messages", 4]
RUNNING = {}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server of a name, started when it is first asked for."""

    def get(name):
        if name not in RUNNING:
            RUNNING[name] = SERVERS[name](tmp_path_factory.mktemp(name)).start()
        return RUNNING[name]

    yield get
    while RUNNING:
        RUNNING.popitem()[1].stop()


class Place:
    """A lake of its own in some store, and the commands that run on it."""

    def __init__(self, name, server, scratch, proxy=None):
        self.name, self.server, self.scratch = name, server, scratch
        self.prefix = f"lakes/{scratch.name}-{name.replace(' ', '-')}"
        self.url = server.lake(self.prefix) if server else str(scratch / "lake")
        self.environment = dict(server.environment) if server else {}
        self.is_delta = name.endswith(" delta")
        if self.is_delta:
            self.environment["DECAGON_FORMAT"] = "delta"
        if proxy:
            self.environment = {k: v.replace(server.url, proxy.url) for k, v in self.environment.items()}

    def arguments(self, name, api, *arguments):
        asked = [] if api is None else ["--base-url", api.url, "--requests-per-second", 0]
        return [name, "--lake", self.url, *asked, *arguments]

    def command(self, name, api=None, *arguments, **options):
        return run(*self.arguments(name, api, *arguments), **self.environment, **options)

    def begin(self, name, api, *arguments):
        """Starts a command and does not wait for it."""
        return subprocess.Popen(
            [BINARY, *map(str, self.arguments(name, api, *arguments))], stderr=subprocess.PIPE, text=True,
            stdout=subprocess.DEVNULL, env=environment(DECAGON_API_KEY=KEY, **self.environment),
        )

    def objects(self, below=""):
        """Everything under a part of the lake: bytes by key."""
        if self.server is None:
            root = Path(self.url)
            found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        else:
            start = len(self.prefix) + 1
            found = {key[start:]: body for key, body in self.server.objects(f"{self.prefix}/").items()}
        return {key: body for key, body in found.items() if key.startswith(below)}

    def copy(self):
        """The tables, downloaded to this machine for readers of files."""
        target = self.scratch / "copy"
        shutil.rmtree(target, ignore_errors=True)
        for table in TABLES:
            for key, body in self.objects(f"{table}/").items():
                (target / key).parent.mkdir(parents=True, exist_ok=True)
                (target / key).write_bytes(body)
            if self.is_delta:
                named = {str(Path(uri).relative_to(target)) for uri in DeltaTable(target / table).file_uris()}
                assert named <= set(files(target, table))
                for other in set(files(target, table)) - named:
                    (target / other).unlink()
        return target

    def delete(self, key):
        if self.server is None:
            (Path(self.url) / key).unlink()
        else:
            self.server.delete(f"{self.prefix}/{key}")

    def assert_exact(self, conversations, by="day"):
        """The lake holds exactly these conversations, passes `verify`, and has no leftovers."""
        assert_exact(self.copy(), conversations, by=by)
        self.command("verify")
        assert not self.objects("_landing/") and not self.objects("_state/check/")
        assert all(key.endswith((".json", "/lock")) for key in self.objects("_state/")), "nothing was left behind"
        if self.server:
            assert not [key for key in self.server.uploads() if key.startswith(f"{self.prefix}/")]
            assert not getattr(self.server, "store", self).__dict__.get("unknown"), "what the stand-in does not know"


@pytest.fixture
def place(request, server, tmp_path):
    name = request.param
    store = name.split()[0]
    return Place(name, None if store == "local" else server(store), tmp_path)


def on_every_store(scenario):
    return pytest.mark.parametrize("place", STORES, indirect=True)(scenario)


def on(*names):
    return pytest.mark.parametrize("place", names, indirect=True)


@pytest.fixture
def behind_proxy(server, tmp_path):
    """A lake whose store is reached through a proxy."""
    proxies = []

    def get(name):
        proxies.append(Proxy(server(name).url))
        return Place(name, server(name), tmp_path, proxies[-1]), proxies[-1]

    yield get
    for proxy in proxies:
        proxy.stop()


@on_every_store
def test_fresh_sync_and_increments(place, simulate):
    api = simulate(*SMALL)
    for hours in (0, 5, 30):
        api.advance(hours=hours)
        place.command("sync", api)
        place.assert_exact(api.conversations())


@on_every_store
def test_backfill_then_sync(place, simulate):
    api = simulate(*SMALL)
    place.command("backfill", api, "--from", "2024-02-26", "--to", "2024-02-28T12:00:00Z")
    place.command("compact")
    inside = [c for c in api.conversations()
              if instant("2024-02-26T00:00:00Z") <= instant(c["updated_at"]) < instant("2024-02-28T12:00:00Z")]
    assert 0 < len(inside) < 430
    place.assert_exact(inside)
    place.command("sync", api)
    place.assert_exact(api.conversations())


@on_every_store
def test_compaction_touches_only_partitions_with_staged_files(place, simulate):
    api = simulate(*SMALL)
    place.command("export", api)
    assert place.objects("_landing/") and not place.objects("conversations/")
    place.command("compact")
    place.assert_exact(api.conversations())
    before = place.objects()
    place.command("compact")
    tables = ("conversations/", "messages/", "tags/", "audit_logs/")
    assert {k: v for k, v in place.objects().items() if k.startswith(tables)} == {
        k: v for k, v in before.items() if k.startswith(tables)}
    api.advance(hours=1)
    done = json.loads(place.command("sync", api, "--json").stdout)
    changed = {key for key, body in place.objects().items()
               if key.startswith(tables) and "/_delta_log/" not in key and before.get(key) != body}
    assert {re.search(r"created_date=([^/]*)", key)[1] for key in changed} == set(done["compacted_dates"])
    place.assert_exact(api.conversations())


@on_every_store
def test_crash_and_continue(place, simulate):
    api = simulate(*SMALL)
    # Two flushes of two pages each, and half of a third.
    api.hold(after=5)
    running = place.begin("sync", api, "--page-size", 40, "--flush-conversations", 80)
    api.wait_for(6, running)
    until(lambda: len(place.objects("_state/checkpoints/")) == 2, "two commits")
    running.kill()
    assert running.wait() == -signal.SIGKILL, "or this shows nothing"
    assert place.objects("_landing/") and not place.objects("conversations/")
    api.release()
    place.command("sync", api)
    place.assert_exact(api.conversations())


@on_every_store
def test_two_at_once(place, simulate):
    api = simulate(*SMALL)
    api.hold(after=1)
    first = place.begin("sync", api, "--page-size", 40)
    api.wait_for(2, first)
    refused = place.command("sync", api, code=7)
    assert str(first.pid) in refused.stderr and "`sync`" in refused.stderr
    assert api.gaps()[0] == 2, "the second has asked for nothing"
    api.release()
    assert first.wait(timeout=PATIENCE_SECS) == 0 and api.gaps()[0] == 11
    place.assert_exact(api.conversations())


@on_every_store
def test_verify_finds_a_missing_table_file(place, simulate):
    api = simulate(*SMALL)
    place.command("sync", api)
    gone = next(key for key in sorted(place.objects("messages/")) if key.endswith(".parquet"))
    place.delete(gone)
    assert gone in place.command("verify", code=6).stdout


@on_every_store
def test_check_tries_everything_and_leaves_nothing(place, simulate):
    api = simulate(*SMALL)
    output = place.command("check", api).stdout
    assert output.count("\nok  ") == 8 and "FAILED" not in output
    assert not place.objects()
    place.command("sync", api)
    before = place.objects()
    tried = json.loads(place.command("check", api, "--json").stdout)
    assert {one["outcome"] for one in tried} == {"ok"} and len(tried) == 8
    assert place.objects() == before
    if place.server:
        assert not [key for key in place.server.uploads() if key.startswith(place.prefix)]


def test_memory_has_the_same_scenarios():
    rust = (ROOT / "src" / "run" / "tests" / "scenarios.rs").read_text()
    here = {name.removeprefix("test_") for name, test in globals().items()
            if name.startswith("test_") and any("place" == mark.args[0] and mark.args[1] is STORES
                                                for mark in getattr(test, "pytestmark", []))}
    in_memory = set(re.findall(r"#\[tokio::test\]\nasync fn (\w+)", rust))
    assert len(here) == 7 and here - {"check_tries_everything_and_leaves_nothing"} <= in_memory


LARGE = ["--conversations", 4_000, "--days", 1, "--messages", 90]


@pytest.mark.parametrize("name", SERVERS)
def test_a_large_object_is_seen_whole_or_not_at_all(behind_proxy, simulate, name):
    """Killed right before the request that makes it visible; then again, undisturbed."""
    place, proxy = behind_proxy(name)
    api = simulate(*LARGE)
    running = []

    def kill_at_the_end(kind, *_):
        if kind == "complete":
            running[0].kill()
            return 500, b""

    proxy.before = kill_at_the_end
    running.append(place.begin("sync", api))
    assert running[0].wait(timeout=PATIENCE_SECS) == -signal.SIGKILL
    assert proxy.counts["part"] >= 2 and not place.objects("messages/")
    proxy.before = None
    done = json.loads(place.command("sync", api, "--json").stdout)
    assert done["store_calls"]["part"] >= 2 and done["store_calls"]["multipart"] >= 2
    assert max(map(len, place.objects("messages/").values())) > 10 << 20
    place.command("verify")
    assert not [key for key in place.server.keys(place.prefix) if key.endswith(".upload")]
    if name != "azurite":
        assert not [key for key in place.server.uploads() if key.startswith(place.prefix)]


def test_blocks_that_were_sent_before_another_wrote_cannot_be_committed(server):
    """What a large object relies on where an upload cannot be ended. (That a single put discards them as well, Azure
    documents, but the emulator does not do it.)"""
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import BlobBlock

    blob = server("azurite").container().get_blob_client("sleeper")
    blob.stage_block("old", b"older")
    blob.stage_block("new", b"newer")
    blob.commit_block_list([BlobBlock("new")])
    with pytest.raises(HttpResponseError):
        blob.commit_block_list([BlobBlock("old")])
    assert blob.download_blob().readall() == b"newer"


@pytest.mark.parametrize("name", SERVERS)
def test_throttling_is_survived(behind_proxy, simulate, name):
    place, proxy = behind_proxy(name)
    proxy.slow_down(every=4)
    api = simulate(*SMALL)
    place.command("sync", api)
    proxy.before = None
    place.assert_exact(api.conversations())


def test_a_store_that_goes_and_comes_back(tmp_path, simulate):
    """SeaweedFS dies in the middle of a sync, several times, and comes back; the same run ends exact."""
    seaweed = SeaweedFs(tmp_path / "seaweed").start()
    proxy = Proxy(seaweed.url)
    try:
        place = Place("seaweedfs", seaweed, tmp_path, proxy)
        api = simulate("--conversations", 1_030, "--days", 6, "--messages", 4)
        deaths, births = [], []

        def be_born(up):
            seaweed.start()
            up.set()

        def die(*_):
            # The server lives for a while between its deaths; requests in these times count as well.
            if len(deaths) < 3 and proxy.total >= 25 + 65 * len(deaths) and all(up.is_set() for up in births):
                deaths.append(proxy.total)
                seaweed.kill()
                births.append(threading.Event())
                threading.Thread(target=be_born, args=births[-1:]).start()

        def wait(*_):
            # Some requests fail, and the others wait: the run does not end before the server can die again.
            return births[-1] if births and proxy.total > deaths[-1] + 20 else None

        proxy.before, proxy.hold = die, wait
        # SeaweedFS may need half a minute until it can read its earlier objects again.
        small = ["--page-size", 50, "--flush-conversations", 50, "--store-retries", 30]
        done = json.loads(place.command("sync", api, "--json", *small).stdout)
        proxy.before = proxy.hold = None
        assert len(deaths) == 3 and done["outcome"] == "done"
        place.assert_exact(api.conversations())
        api.advance(hours=20)
        place.command("sync", api)
        place.assert_exact(api.conversations())
    finally:
        proxy.stop()
        seaweed.stop()


@pytest.mark.parametrize("lack", ["ignores", "refuses"])
def test_a_store_without_conditional_puts_is_refused(behind_proxy, simulate, lack):
    place, proxy = behind_proxy("moto")
    if lack == "ignores":
        proxy.ignores_conditions = True
    else:
        proxy.refuse_conditions()
    api = simulate(*SMALL)
    refused = place.command("sync", api, "--store-retries", 1, code=5)
    assert "conditional writes" in refused.stderr and "--unsafe-no-lock" in refused.stderr
    assert api.gaps()[0] == 0 and not place.objects()
    failed = place.command("check", api, code=5)
    assert "FAILED   of two writers at once the second is refused" in failed.stdout and not place.objects()
    for hours in (0, 30):
        api.advance(hours=hours)
        place.command("sync", api, "--unsafe-no-lock")
        assert_exact(place.copy(), api.conversations())
    place.command("verify")
    assert not place.objects("_landing/")


def test_the_policy_for_aws_is_enough_and_nothing_in_it_is_too_much(server, simulate, tmp_path):
    moto = server("moto")
    place = Place("policy", moto, tmp_path)
    api = simulate(*SMALL)
    filled = (ROOT / "deploy" / "aws" / "policy.json").read_text().replace("BUCKET", "data").replace(
        "PREFIX", place.prefix)
    policy = json.loads(filled)
    actions = [(number, action) for number, statement in enumerate(policy["Statement"]) for action in statement["Action"]]
    assert len(actions) == 5
    try:
        for lacking in [None, *actions]:
            less = json.loads(filled)
            if lacking:
                less["Statement"][lacking[0]]["Action"].remove(lacking[1])
                less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
            moto.unrestrict()
            # For a request that deletes several objects, moto checks the permission on the bucket itself.
            place.environment = {**moto.restrict(less), "AWS_DISABLE_BULK_DELETE": "true"}
            if lacking is None:
                place.command("check", api)
                place.command("sync", api)
            else:
                refused = place.command("check", api, code=5)
                assert "FAILED" in refused.stdout and "deploy/aws/policy.json" in refused.stdout, lacking
    finally:
        moto.unrestrict()
    assert_exact(place.copy(), api.conversations())


@on("seaweedfs", "moto", "azurite")
def test_duckdb_reads_the_bucket_itself(place, simulate):
    api = simulate(*SMALL)
    place.command("sync", api)
    connection = duckdb.connect()
    extensions, secret = place.server.duckdb()
    for extension in extensions:
        package = Path(find_spec(f"duckdb_extension_{extension}").origin).parent
        connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/{extension}.duckdb_extension'")
    connection.execute(secret)
    connection.execute("SET TimeZone = 'UTC'")
    conversations = api.conversations()
    for table, rows in (("conversations", len(conversations)), ("messages", sum(len(c["messages"]) for c in conversations))):
        glob = f"read_parquet('{place.url}/{table}/*/*.parquet', hive_partitioning = true)"
        assert connection.sql(f"SELECT count(*) FROM {glob}").fetchone()[0] == rows
    deflected = connection.sql(f"""
        SELECT created_date::VARCHAR, sum((NOT undeflected)::INT) FROM
        read_parquet('{place.url}/conversations/*/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    expected = {}
    for c in conversations:
        date = str(instant(c["created_at"]).date())
        expected[date] = expected.get(date, 0) + (c["undeflected"] is False)
    assert dict(deflected) == expected

    api.advance(hours=30)
    place.command("export", api)
    if place.name == "moto":
        return  # it speaks S3 as SeaweedFS does, and lists more slowly
    connection.execute(place.command("views", None, "--engine", "duckdb").stdout)
    now = expected_rows(api.conversations())
    assert len(now["conversations"]) > len(conversations)
    for table, wanted in now.items():
        assert connection.sql(f"SELECT count(*) FROM {table}").fetchone()[0] < len(wanted) or table == "audit_logs"
        latest = connection.sql(f"SELECT * FROM {table}_latest")
        assert_rows(as_rows(latest.columns, latest.fetchall()), wanted, table)


@on("seaweedfs", "azurite", "gcs")
def test_the_age_of_a_lake_costs_no_calls(place, simulate, tmp_path):
    """An increment that changes one date makes as many calls in a lake of 180 dates as in one of 60, and reads none of the
    others. In one of 6 it makes one call fewer: the state names all files, so no shard of the manifest is read. The lease
    is renewed as often as time passes, so its calls do not count."""
    calls = []
    for days in (6, 60, 180):
        proxy = Proxy(place.server.url)
        lake = Place(place.name, place.server, tmp_path, proxy)
        lake.url = place.server.lake(f"{place.prefix}-{days}")
        api = simulate("--conversations", 300, "--days", days, "--messages", 1)
        lake.command("sync", api)
        made = []
        proxy.before = lambda kind, path, _, made=made: None if "_state/leases" in unquote(path) else made.append(kind)
        lake.command("backfill", api, "--from", "2024-02-29", "--to", "2024-03-01", "--timestamp-filter", "created_at")
        made.append("compact")
        compacted = lake.command("compact", None, "--json")
        assert len(json.loads(compacted.stdout)["compacted_dates"]) == 1
        calls.append([Counter(made[:made.index("compact")]), Counter(made[made.index("compact"):])])
        proxy.stop()
    assert calls[1] == calls[2], calls
    staged, compacted = calls[0]
    assert [staged, compacted + Counter(get=1)] == calls[1], calls


@pytest.mark.parametrize("name", SERVERS)
def test_a_missing_place_is_named_with_a_hint(server, simulate, tmp_path, name):
    place = Place(name, server(name), tmp_path)
    api = simulate(*SMALL)
    missing = place.url.replace("data/", "no-such-bucket/")
    for command in ("status", "verify", "compact"):
        done = run(command, "--lake", missing, "--store-retries", 0, code=5, **place.environment)
        assert missing in done.stderr and "hint: create the" in done.stderr
    done = run("sync", "--lake", missing, "--base-url", api.url, "--store-retries", 0, code=5, **place.environment)
    assert missing in done.stderr and "hint: create the" in done.stderr and api.gaps()[0] == 0
    down = place.command("sync", api, "--store-endpoint", "http://127.0.0.1:9", "--store-retries", 0, code=5)
    assert place.url in down.stderr and "--store-endpoint" in down.stderr and "http://127.0.0.1:9" in down.stderr


@on("seaweedfs", "azurite")
def test_wrong_credentials_name_the_setting_to_change(place, simulate):
    name = {"seaweedfs": "AWS_SECRET_ACCESS_KEY", "azurite": "AZURE_STORAGE_ACCOUNT_KEY"}[place.name]
    place.environment[name] = "d3Jvbmc="
    done = place.command("check", simulate(*SMALL), code=5)
    assert done.stdout.count("FAILED") == 2 and name in done.stdout and "d3Jvbmc=" not in done.stdout + done.stderr


def test_check_as_the_docs_have_it_for_each_cloud(server, simulate):
    checks = [block for block in blocks("sh") if "check --lake" in block]
    assert len(checks) == 4
    api = simulate(*SMALL)
    for name, block in zip(["moto", "seaweedfs", "gcs", "azurite"], checks):
        store = server(name)
        env = {**store.environment, "DECAGON_API_KEY": KEY, "DECAGON_BASE_URL": api.url,
               "PATH": f"{BINARY.parent}:{os.environ['PATH']}"}
        if "--store-endpoint" in block:
            del env["AWS_ENDPOINT_URL"]
        script = block.replace("//bucket/", "//data/").replace("//container/", "//data/").replace(
            "https://minio.example:9000", getattr(store, "url")).replace("=account", "=devstoreaccount1")
        done = subprocess.run(["bash", "-euc", script], env=environment(**env), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stdout.count("\nok  ") == 8, (name, done.stdout, done.stderr)


def test_what_else_check_prints(simulate, tmp_path, lake):
    api = simulate(*SMALL)
    no_key = run("check", "--lake", lake, "--base-url", api.url, code=2, key=None)
    assert "FAILED   the API accepts the key: no API key" in no_key.stdout and "DECAGON_API_KEY" in no_key.stdout
    wrong = run("check", "--lake", lake, "--base-url", api.url, code=3, key="a-wrong-key")
    assert "401" in wrong.stdout and not lake.exists()
    lake.mkdir()
    run("check", "--lake", lake, "--base-url", api.url)
    assert list(lake.parent.iterdir()) == [lake] and not list(lake.iterdir()), "the user's own folder stays"
    before = lake.stat().st_ino
    run("check", "--lake", "a/new/one", "--base-url", api.url, cwd=lake)
    assert lake.stat().st_ino == before and not list(lake.iterdir()), "also as the one that it is run in"
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    failed = run("check", "--lake", blocked / "lake", "--base-url", api.url, code=5)
    assert "FAILED   an object can be written" in failed.stdout and failed.stdout.count("skipped") == 5
    held = simulate(*SMALL)
    held.hold(after=1)
    running = subprocess.Popen([BINARY, "sync", "--lake", lake, "--base-url", held.url], stderr=subprocess.DEVNULL,
                               env=environment(DECAGON_API_KEY=KEY))
    held.wait_for(2, running)
    beside = run("check", "--lake", lake, "--base-url", held.url)
    assert f"process {running.pid}" in beside.stdout and "skipped  the API accepts the key" in beside.stdout
    running.terminate()
    held.release()
    running.wait(timeout=PATIENCE_SECS)
    run("check", "--lake", lake, "--base-url", held.url)
    run("sync", "--lake", lake, "--base-url", held.url)
    assert min(held.gaps()[1]) >= 1 - JITTER, "the pace holds from a run to a check to a run"
