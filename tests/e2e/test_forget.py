"""`forget`: a person is erased from every place of a lake, in every byte, and stays out; the others stay as they are."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from conftest import BINARY, KEY, ROOT, conversation, environment, page, run
from deltalake import DeltaTable
from truth import TABLES

sys.path.insert(0, str(ROOT / "tests" / "support"))
from servers import SERVERS  # noqa: E402
from test_stores import Place  # noqa: E402

PLACES = ["local", "seaweedfs", "azurite", "local delta", "seaweedfs delta"]
USER, EMAIL, ID, MOVED = "person-user-1", "person@mail.example", "person-conversation-1", "person-conversation-2"
NEIGHBOUR = "person-user-2"
# Each is in one kind of place.
MARKS = {name: f"PERSON-{name.upper()}" for name in (
    "text", "name", "tag", "payload", "log", "summary", "extra", "moved", "old", "broken", "no_id", "cut", "quoted")}
PERSON = [USER, EMAIL, ID, MOVED, *MARKS.values()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = {}

    def get(name):
        if name not in running:
            running[name] = SERVERS[name](tmp_path_factory.mktemp(name)).start()
        return running[name]

    yield get
    for started in running.values():
        started.stop()


@pytest.fixture
def place(request, server, tmp_path):
    name, _, by = request.param.partition("/")
    store = name.split()[0]
    place = Place(name, None if store == "local" else server(store), tmp_path)
    if by:
        place.environment["DECAGON_PARTITION_BY"] = by
    return place


def person(number=0, **fields):
    """The person's conversation in its state of this number."""
    at = f"2024-02-{number + 1:02}T10:00:00Z"
    return {"conversation_id": ID, "user_id": USER, "created_at": "2024-01-01T10:00:00Z", "updated_at": at,
            "summary": MARKS["summary"], "metadata": {"email": EMAIL, "name": MARKS["name"], EMAIL: 1},
            "messages": [{"text": f"I am {MARKS['text']}", "role": "USER", "created_at": at}],
            "tags": [{"name": MARKS["tag"], "level": 0}],
            "audit_logs": [{"text": MARKS["log"], "payload": {"to": MARKS["payload"]}, "created_at": at}],
            "contact": {"phone": MARKS["extra"]}, **fields}


def moved(user, mark, day):
    return conversation(MOVED, user_id=user, texts=[MARKS[mark]], updated_at=f"2024-02-{day}T12:00:00Z")


def others(number):
    """What is about other people, also in the same partitions and files."""
    return [
        conversation(f"other-{number}", user_id="u-1", texts=["a", "b"], metadata={"email": "x@mail.example"}),
        conversation("changing", user_id="u-2", texts=[str(n) for n in range(number + 1)], tags=["t"],
                     updated_at=f"2024-02-{number + 1:02}T11:00:00Z", metadata={"n": number}),
        conversation(f"elsewhere-{number}", user_id=NEIGHBOUR, created_at=f"2024-01-{number + 10} 10:00:00"),
    ]


NO_ID = {"user_id": USER, "messages": [{"text": MARKS["no_id"]}]}
BROKEN = '{"conversation_id": "%s", "messages": [{"text": "%s" oops}]}' % (ID, MARKS["broken"])


def decoded(objects):
    """All bytes of objects, and all values of those that are Parquet."""
    for key, body in objects.items():
        yield key, body.decode("utf-8", "replace")
        if key.endswith(".parquet"):
            table = pq.ParquetFile(io.BytesIO(body))
            yield key, str(table.metadata.to_dict())
            yield key, json.dumps(table.read().to_pylist(), default=str)


def where(objects, texts):
    """The texts that are anywhere, with the keys of the objects."""
    found = {}
    for key, content in decoded(objects):
        for text in texts:
            if text in content:
                found.setdefault(text, set()).add(key)
    return found


def plant(place, serve):
    """A lake with the person in every place that can hold one."""
    api = serve("")

    def answer(*bodies):
        api.responses[:] = bodies
        return api

    for number in range(5):
        place.command("sync", answer(page(person(number), moved(USER, "old", 10 + number), *others(number))))
    place.command("export", answer(page(person(5), moved(USER, "moved", 20), *others(5))))
    place.command("export", answer(page(moved("u-9", "moved", 25), *others(6))))
    with_bad = ", ".join([*map(json.dumps, (NO_ID, conversation("fine"), {"user_id": "u-1"})), BROKEN])
    place.command("export", answer(f'{{"conversations": [{with_bad}]}}'), code=6)
    cut = json.dumps({"conversations": [{"user_id": USER, "summary": MARKS["cut"]}]})[:-3]
    place.command("export", answer(cut), "--max-tries", 1, code=3)
    quoted = json.dumps({"user_id": USER, "summary": MARKS["quoted"]})
    place.command("export", answer(f'{{"conversations": [{quoted}]}}'), "--on-bad-record", "fail", code=6)
    return answer


def erase(place, *more, **options):
    return place.command("forget", None, "--user-id", USER, "--match", f"metadata.email={EMAIL}", *more, **options)


def rows(place, without=()):
    """The rows of all tables, as text; those of the tables' current versions."""
    found = {}
    copy = place.copy()
    for table in TABLES:
        connection = duckdb.connect()
        read = f"read_parquet('{copy}/{table}/*/*.parquet', hive_partitioning=true, union_by_name=true)"
        listed = connection.sql(f"SELECT * FROM {read}").fetchall()
        found[table] = sorted(str(row) for row in listed if row[0] not in without)
    return found


@pytest.mark.parametrize("place", [*PLACES, "local/month", "local delta/month", "azurite delta"], indirect=True)
def test_no_byte_of_a_person_is_left(place, serve):
    answer = plant(place, serve)
    planted = where(place.objects(), PERSON)
    assert set(PERSON) == set(planted), "the test plants what it looks for"
    assert any("_state/quarantine" in key for key in planted[MARKS["no_id"]])
    assert any("_state/checkpoints" in key for key in planted[ID])
    before = place.objects()
    rehearsed = json.loads(erase(place, "--dry-run", "--json").stdout)
    assert rehearsed["dry_run"] and rehearsed["conversations"] == 2 and rehearsed["staged_files"] > 0
    assert place.objects() == before, "a dry run changes nothing"
    # What the lake would hold if only the staged files were compacted.
    if place.server is None:
        twin = Place(place.name, None, place.scratch / "twin")
        twin.environment = place.environment
        shutil.copytree(place.url, twin.url)
        twin.command("compact")
        expected = rows(twin, without=(ID, MOVED))

    receipt = json.loads(erase(place, "--json", "--reason", "ticket 7").stdout)
    assert where(place.objects(), PERSON) == {}
    assert (receipt["conversations"], receipt["reason"], receipt["dry_run"]) == (2, "ticket 7", False)
    assert receipt["rows"]["conversations"] >= 2 and receipt["rows"]["messages"] >= 2
    assert receipt["quarantined_entries"] == 2 and receipt["reports"] >= 1 and receipt["checkpoints"] > 0
    assert (sum(receipt["old_files"].values()) > 0) == place.is_delta
    if place.server is None:
        assert rows(place) == expected, "the other rows are the same"
    assert "other-0" in str(rows(place)) and "fine" in str(rows(place)) and NEIGHBOUR in str(rows(place))
    quarantine = "".join(body.decode() for body in place.objects("_state/quarantine/").values())
    assert '"raw":"{\\"user_id\\": \\"u-1\\"}"' in quarantine, "the other entries stay"
    saved = place.objects("_state/receipts/")
    assert [json.loads(body) for body in saved.values()] == [receipt]
    place.command("verify")

    # They do not come back, whatever fetches them.
    again = [person(6), moved(USER, "moved", 26), *others(7)]
    synced = json.loads(place.command("sync", answer(page(*again)), "--json").stdout)
    assert synced["suppressed"] == 2
    place.command("backfill", answer(page(*again)), "--from", "2024-01-01", "--to", "2024-03-01")
    place.command("compact")
    assert where(place.objects(), PERSON) == {}
    assert "other-7" in str(rows(place))
    status = json.loads(place.command("status", None, "--json").stdout)
    assert status["suppressed"] == 2 and not status["unfinished_forget"]
    place.command("verify")


@pytest.mark.parametrize("place", ["local", "local delta"], indirect=True)
def test_a_restored_backup_does_not_bring_them_back(place, serve):
    plant(place, serve)
    backup = place.scratch / "backup"
    shutil.copytree(place.url, backup)
    erase(place)
    # The tables and staged files of before, with the state of now: of plain tables only, as Delta logs know better.
    if place.is_delta:
        return
    for folder in (*TABLES, "_landing"):
        shutil.rmtree(Path(place.url, folder), ignore_errors=True)
        if (backup / folder).exists():
            shutil.copytree(backup / folder, Path(place.url, folder))
    found = place.command("verify", None, code=6)
    assert "forgotten" in found.stdout and "run `forget`" in found.stderr
    place.command("forget")
    tables = {key: body for key, body in place.objects().items() if not key.startswith("_landing")}
    assert where(tables, PERSON) == {}


def test_what_another_writer_put_into_a_delta_log_goes_too(serve, tmp_path):
    place = Place("local delta", None, tmp_path)
    api = serve(page(person(), *others(0)))
    place.command("sync", api)
    # It writes statistics of each column, and its condition.
    for table in TABLES:
        DeltaTable(f"{place.url}/{table}").delete(f"conversation_id = '{ID}-absent'")
    table = DeltaTable(f"{place.url}/conversations")
    table.update({"summary": f"'{MARKS['summary']} changed'"}, predicate=f"conversation_id = '{ID}'")
    log = {key: body for key, body in place.objects().items() if "_delta_log" in key}
    assert where(log, [ID]), "the test plants what it looks for"
    receipt = json.loads(erase(place, "--json").stdout)
    assert receipt["log_parts"] > 0
    assert where(place.objects(), PERSON) == {}
    place.command("verify")
    for table in TABLES:
        assert DeltaTable(f"{place.url}/{table}").to_pyarrow_table().num_rows >= 0
    api.responses[:] = [page(*others(3))]
    place.command("sync", api)
    place.command("verify")


def test_conversations_that_are_not_there_yet_are_kept_out_until_that_is_lifted(command, serve, lake):
    api = serve(page(*others(0)))
    command("sync", api)
    assert "forgot 1 conversation" in command("forget", None, "--conversation-id", ID).stdout
    api.responses[:] = [page(person(1), *others(1))]
    command("sync", api)
    ids = duckdb.sql(f"SELECT conversation_id FROM '{lake}/conversations/*/*.parquet'").fetchall()
    assert (ID,) not in ids and ("other-1",) in ids
    refused = command("forget", None, "--lift", "--match", f"user_id={USER}", code=2)
    assert "--match" in refused.stderr
    lifted = json.loads(command("forget", None, "--lift", "--conversation-id", ID, "--json").stdout)
    assert (lifted["lifted"], lifted["suppressed"]) == (1, 0)
    command("backfill", api, "--from", "2024-01-01", "--to", "2024-03-01")
    command("compact")
    ids = duckdb.sql(f"SELECT conversation_id FROM '{lake}/conversations/*/*.parquet'").fetchall()
    assert (ID,) in ids


def test_who_is_forgotten_can_be_read_from_a_file_or_a_pipe(command, serve, lake, tmp_path):
    command("sync", serve(page(person(), moved("u-9", "moved", 10), *others(0), *others(1))))
    people = tmp_path / "people.txt"
    people.write_text(f"# ticket 7\n\n{MOVED}\nmetadata.email={EMAIL}\n")
    command("forget", None, "--from-file", people)
    assert where({"x": b"".join(path.read_bytes() for path in lake.rglob("*.json"))}, PERSON) == {}
    people.write_text("other-0\nuser_id=\n")
    wrong = command("forget", None, "--from-file", people, code=2)
    assert "line 2" in wrong.stderr and "hint: " in wrong.stderr
    done = subprocess.run([BINARY, "forget", "--lake", lake, "--from-file", "-"], input="other-1\n", text=True,
                          capture_output=True, env=environment())
    assert done.returncode == 0 and "forgot 1 conversation" in done.stdout, done.stderr
    ids = duckdb.sql(f"SELECT conversation_id FROM '{lake}/conversations/*/*.parquet'").fetchall()
    assert sorted(ids) == [("changing",), ("elsewhere-0",), ("elsewhere-1",), ("other-0",)]


def test_what_chooses_nobody_is_refused_or_changes_nothing(command, serve, lake):
    assert "there is no lake" in command("forget", None, "--user-id", "x", code=2).stderr
    command("sync", serve(page(*others(0))))
    assert "nobody" in command("forget", None, code=2).stderr
    for wrong in ("created_at=2024-01-01", "metadata=x", "nothing=x", "text=x", "user_id.x=5", "_run_id=x"):
        refused = command("forget", None, "--match", wrong, code=2)
        assert "hint: " in refused.stderr, wrong
    before = {path: path.read_bytes() for table in TABLES for path in (lake / table).rglob("*.parquet")}
    done = command("forget", None, "--user-id", "nobody", "--match", "metadata.email=nobody@mail.example")
    assert "forgot 0 conversations" in done.stdout
    assert before == {path: path.read_bytes() for path in before}


def test_a_forget_beside_a_run_is_refused(command, simulate, lake):
    api = simulate("--conversations", 300, "--days", 3)
    api.hold(1)
    running = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0"],
        env=environment(DECAGON_API_KEY=KEY), stderr=subprocess.DEVNULL)
    api.wait_for(2, running)
    refused = command("forget", None, "--user-id", "x", code=7).stderr
    assert str(lake) in refused and "sync" in refused and "hint: " in refused
    api.release()
    assert running.wait(timeout=120) == 0


def test_the_noncurrent_versions_of_a_bucket_are_named(server, serve, tmp_path):
    import boto3

    place = Place("moto", server("moto"), tmp_path)
    env = {**place.environment}
    client = boto3.client("s3", endpoint_url=env["AWS_ENDPOINT_URL"], aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
                          aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    api = serve(page(person()))
    place.command("sync", api)
    assert json.loads(place.command("forget", None, "--user-id", "nobody", "--json").stdout)["not_reached"] == []
    client.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    api.responses[:] = [page(person(1))]
    place.command("sync", api)
    receipt = json.loads(erase(place, "--json").stdout)
    (remains,) = receipt["not_reached"]
    assert "noncurrent versions" in remains["what"] and "--bucket data" in remains["remedy"]
