"""`reconcile`: a lake is compared with an account in which conversations were deleted, uploaded late and moved to others."""

import json
import signal
import subprocess

import duckdb
import pytest
import requests
from conftest import BINARY, KEY, PATIENCE_SECS, conversation, environment, page
from test_stores import SMALL, place, server  # noqa: F401
from truth import TABLES, read_table

MARK = ["--on-deleted", "mark", "--max-deleted", "50%"]
REMOVE = ["--on-deleted", "remove", "--max-deleted", "50%"]
ZERO = {"missing": 0, "stale": 0, "returned": 0, "gone": 0}


def on(*places):
    """Stores, each with the partitions of its lake."""
    return pytest.mark.parametrize("place, by", places, indirect=["place"])


def change(api, action, **body):
    answer = requests.post(f"{api.url}/conversation/{action}", json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200, answer.text


def reconciled(done):
    """What a run with --json says of its reconciliation."""
    [line] = done.stdout.splitlines()
    return json.loads(line)["reconciled"]


def erase(api):
    """Deletes a conversation and all of a user; returns the conversations that are gone."""
    before = {each["conversation_id"]: each for each in api.conversations()}
    one, other = list(before.values())[40], list(before.values())[200]
    change(api, "delete", conversation_id=one["conversation_id"])
    change(api, "delete_user_data", user_id=other["user_id"])
    there = {each["conversation_id"] for each in api.conversations()}
    gone = [each for own_id, each in before.items() if own_id not in there]
    assert 2 <= len(gone) < 8
    return gone


def upload(api):
    """Adds an old conversation, which no increment returns."""
    change(api, "upload", **conversation("late", created_at="2024-02-27T10:00:00Z", updated_at="2024-02-27T11:00:00Z",
                                         texts="ab", user_id="u", metadata={}, tags=[], audit_logs=[]))


def lake_of(place, by):
    place.environment["DECAGON_PARTITION_BY"] = by
    return place


def rows(place, table="conversations"):
    return read_table(place.copy(), table)


def marked(place):
    return {row["conversation_id"]: row["deleted_at"] for row in rows(place) if row.get("deleted_at")}


def without_marks(place):
    """Everything that the tables hold, but for the marks."""
    lake = place.copy()
    return {table: sorted([{k: v for k, v in row.items() if k != "deleted_at"} for row in read_table(lake, table)], key=repr)
            for table in TABLES}


@on(("local", "day"), ("local delta", "month"), ("seaweedfs", "month"), ("seaweedfs delta", "day"), ("azurite", "day"))
def test_what_is_missing_stale_and_gone(place, by, simulate):  # noqa: F811
    api, place = simulate(*SMALL), lake_of(place, by)
    place.command("sync", api)
    gone = erase(api)
    upload(api)
    api.advance(hours=1)
    linked = [each["conversation_id"] for each in api.conversations()[100:102]]
    change(api, "link", conversation_id=linked[0], user_id="another")
    # An increment does not see what is old, nor what is gone.
    place.command("sync", api)
    ids = [row["conversation_id"] for row in rows(place)]
    assert "late" not in ids and {each["conversation_id"] for each in gone} <= set(ids)

    change(api, "link", conversation_id=linked[1], user_id="another")

    there, here = len(api.conversations()), len(ids)
    found = reconciled(place.command("reconcile", api, "--json", "--max-deleted", "9"))
    assert found | ZERO | {"from": None, "to": 0, "walked_at": 0} == {
        "from": None, "to": 0, "walked_at": 0, "conversations_there": there, "conversations_here": here, **ZERO, "marked": 0,
        "removed": 0, "on_deleted": "report", "complete": True, "why_incomplete": None}
    assert (found["missing"], found["stale"], found["gone"]) == (1, 1, len(gone))
    assert there == here + found["missing"] - found["gone"]
    stays = without_marks(place)
    assert marked(place) == {} and "late" in [row["conversation_id"] for row in stays["conversations"]]

    found = reconciled(place.command("reconcile", api, "--json", *MARK))
    assert (found["gone"], found["marked"], found["removed"], found["missing"]) == (len(gone), len(gone), 0, 0)
    assert set(marked(place)) == {each["conversation_id"] for each in gone}
    assert without_marks(place) == stays, "a mark changes nothing else"
    assert [row["user_id"] for row in stays["conversations"] if row["conversation_id"] in linked] == ["another"] * 2
    place.command("verify")
    assert {k: reconciled(place.command("reconcile", api, "--json"))[k] for k in ZERO} == ZERO, "what is marked is known"
    # A later compaction of the same partitions keeps the marks.
    api.advance(hours=30)
    place.command("sync", api)
    assert set(marked(place)) == {each["conversation_id"] for each in gone}

    change(api, "upload", **gone[0])
    found = reconciled(place.command("reconcile", api, "--json"))
    assert (found["returned"], found["missing"], found["gone"]) == (1, 0, 0)
    assert set(marked(place)) == {each["conversation_id"] for each in gone[1:]}
    place.command("verify")


@on(("local", "month"), ("local delta", "day"), ("seaweedfs delta", "month"), ("azurite", "month"))
def test_what_is_gone_is_removed_from_all_tables(place, by, simulate):  # noqa: F811
    api, place = simulate(*SMALL), lake_of(place, by)
    place.command("sync", api)
    gone = erase(api)
    found = reconciled(place.command("reconcile", api, "--json", *REMOVE))
    assert (found["gone"], found["removed"], found["marked"]) == (len(gone), len(gone), 0)
    place.assert_exact(api.conversations(), by)


def test_rows_that_were_lost_or_are_old_are_fetched(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    whole = {table: read_table(lake, table) for table in TABLES}
    # One partition loses half of its conversations; in another, rows get an older change.
    first, second = sorted(path.parent.name for path in (lake / "conversations").glob("*/*.parquet"))[1:3]
    lost = 0
    for table in TABLES:
        for folder, query in ((first, "SELECT * FROM rows WHERE hash(conversation_id) % 2 = 0"),
                              (second, "SELECT * REPLACE (updated_at - INTERVAL 1 MINUTE AS updated_at) FROM rows")):
            file = lake / table / folder / "part-0.parquet"
            if folder == second and table != "conversations":
                continue
            connection = duckdb.connect()
            connection.sql(f"SET TimeZone = 'UTC'; CREATE TABLE rows AS FROM read_parquet('{file}', hive_partitioning = false)")
            before = connection.sql("SELECT count(*) FROM rows").fetchone()[0]
            connection.sql(query).write_parquet(str(file))
            after = connection.sql(f"SELECT count(*) FROM '{file}'").fetchone()[0]
            lost += before - after if table == "conversations" else 0
    assert lost > 10
    found = reconciled(command("reconcile", api, "--json"))
    assert (found["missing"], found["gone"], found["complete"]) == (lost, 0, True) and found["stale"] > 10
    assert found["conversations_there"] == 430 and found["conversations_here"] == 430 - lost
    own = {"_run_id", "_seq", "_exported_at"}
    for table in TABLES:
        plain = [sorted([{k: v for k, v in row.items() if k not in own} for row in them], key=repr)
                 for them in (whole[table], read_table(lake, table))]
        assert plain[0] == plain[1], table
    command("verify")


def test_a_range_concerns_its_conversations_alone(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    everything = api.conversations()
    ids = [everything[10]["conversation_id"], everything[400]["conversation_id"]]
    for own_id in ids:
        change(api, "delete", conversation_id=own_id)
    found = reconciled(command("reconcile", api, "--json", "--from", "2024-02-28", "--to", "2024-03-01", *MARK))
    assert found["gone"] == 1 and 100 < found["conversations_here"] < 200
    assert [row["conversation_id"] for row in read_table(lake, "conversations") if row["deleted_at"]] == [ids[1]]
    command("reconcile", api, "--from", "2024-02-28", "--to", "2024-02-28", code=2)


def test_more_than_the_limit_stops_the_run(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    gone = erase(api)
    for each in api.conversations()[:4]:
        change(api, "delete", conversation_id=each["conversation_id"])
    count = len(gone) + 4
    before = read_table(lake, "conversations")
    for limit in ([], ["--max-deleted", count - 1], ["--max-deleted", "0%"]):
        for action in ("mark", "remove"):
            done = command("reconcile", api, "--json", "--on-deleted", action, *limit, code=6)
            assert f"{count} of the 430 conversations" in done.stderr and f"--max-deleted {count}" in done.stderr
            assert reconciled(done)["gone"] == count and reconciled(done)["marked"] == 0
            assert read_table(lake, "conversations") == before
    command("reconcile", api, "--on-deleted", "remove", "--max-deleted", count)
    assert len(read_table(lake, "conversations")) == 430 - count
    for wrong in ("-1", "200%", "few"):
        command("reconcile", api, f"--max-deleted={wrong}", code=2)


ACCOUNT = [conversation(f"c{number}", created_at=f"2024-01-0{1 + number % 3}T10:0{number}:00Z",
                        updated_at="2024-01-20T10:00:00Z", texts="a") for number in range(9)]


def lake_of_pages(serve, command, *responses):
    """A lake with the account, and a server that sends other responses from then on."""
    command("sync", serve(page(*ACCOUNT)))
    api = serve(*responses)
    command("upgrade", None, "--base-url", api.url)
    return api


def test_a_walk_that_fails_says_nothing_about_deletions(serve, command, lake):
    api = lake_of_pages(serve, command, page(*ACCOUNT[:4], cursor="next"), (500, {}, "<html>"))
    done = command("reconcile", api, *MARK, "--json", "--max-tries", 2, code=4)
    assert json.loads(done.stdout)["outcome"] == "failed" and "reconciled" not in json.loads(done.stdout)
    assert not [row for row in read_table(lake, "conversations") if row["deleted_at"]]
    [walk] = json.loads(command("status", None, "--json").stdout)["unfinished"]
    assert (walk["command"], walk["pages"]) == ("reconcile", 1)
    assert "unfinished reconcile of created_at up to" in command("status").stdout


def test_a_conversation_must_be_absent_twice(serve, command, lake):
    """The walk breaks off without an error; the second look finds all but one."""
    witness, rest = page(*ACCOUNT[:3]), page(*ACCOUNT[:8])
    api = lake_of_pages(serve, command, page(*ACCOUNT[:3]), witness, rest)
    found = reconciled(command("reconcile", api, "--json", *MARK))
    assert (found["gone"], found["marked"], found["conversations_there"], found["conversations_here"]) == (1, 1, 8, 9)
    assert [row["conversation_id"] for row in read_table(lake, "conversations") if row["deleted_at"]] == ["c8"]


def test_an_api_that_bounds_another_time_proves_nothing(serve, command, lake):
    api = lake_of_pages(serve, command, page(*ACCOUNT[:8]), page())
    done = command("reconcile", api, "--json", *MARK)
    found = reconciled(done)
    assert (found["complete"], found["gone"], found["marked"]) == (False, 0, 0)
    assert "created_at" in found["why_incomplete"] and "nothing can be said about deletions" in done.stderr


@pytest.mark.parametrize("of_the_walk, code", [(True, 6), (False, 0)])
def test_a_malformed_entry_may_be_any_conversation(serve, command, of_the_walk, code):
    """In the walk, which quarantines it, or in the second look."""
    clean, malformed = page(*ACCOUNT[:8]), page(*ACCOUNT[:8], {"conversation_id": None})
    api = lake_of_pages(serve, command, *([malformed, clean] if of_the_walk else [clean, clean, malformed]))
    found = reconciled(command("reconcile", api, "--json", *MARK, code=code))
    assert (found["complete"], found["gone"]) == (False, 0) and "malformed" in found["why_incomplete"]
    assert len(api.asked) == (1 if of_the_walk else 3)


def test_an_interrupted_reconciliation_continues(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    gone = {each["conversation_id"] for each in erase(api)}
    upload(api)
    requests_before = api.gaps()[0]
    api.hold(after=3)
    running = subprocess.Popen(
        [BINARY, "reconcile", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0", "--page-size", "40",
         "--flush-interval", "1ms", *MARK], stderr=subprocess.PIPE, text=True, env=environment(DECAGON_API_KEY=KEY))
    api.wait_for(requests_before + 4, running)
    running.send_signal(signal.SIGTERM)
    api.release()
    assert running.wait(timeout=PATIENCE_SECS) == 130, running.stderr.read()
    assert list((lake / "_state" / "reconcile").iterdir()), "what it has seen is kept"
    [walk] = json.loads(command("status", None, "--json").stdout)["unfinished"]
    assert walk["command"] == "reconcile" and walk["pages"] >= 3
    # A sync in between does not disturb it.
    command("sync", api)
    done = command("reconcile", api, "--json", "--page-size", 40, *MARK)
    found = reconciled(done)
    assert json.loads(done.stdout)["resumed"] and json.loads(done.stdout)["pages"] <= 8, "not the whole walk again"
    assert (found["gone"], found["marked"], found["missing"]) == (len(gone), len(gone), 1)
    assert found["conversations_there"] == len(api.conversations()) == found["conversations_here"] + 1 - len(gone)
    assert not list((lake / "_state" / "reconcile").glob("*"))
    assert {row["conversation_id"] for row in read_table(lake, "conversations") if row["deleted_at"]} == gone
    command("verify")


def test_only_an_existing_lake_of_the_same_account_is_reconciled(simulate, command):
    api = simulate(*SMALL)
    command("reconcile", api, code=2)
    command("sync", api)
    command("reconcile", simulate(*SMALL), code=2)


def test_views_can_leave_out_what_is_marked(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    gone = {each["conversation_id"] for each in erase(api)}
    command("reconcile", api, *MARK)
    connection = duckdb.connect()
    connection.sql(command("views", None, "--engine", "duckdb").stdout)
    ids = {name: {row[0] for row in connection.sql(f"SELECT conversation_id FROM {name}").fetchall()}
           for name in ("conversations", "conversations_latest", "conversations_current")}
    assert len(ids["conversations"]) == len(ids["conversations_latest"]) == 430
    assert ids["conversations_current"] == ids["conversations"] - gone
    columns = [connection.sql(f"SELECT * FROM {name}").columns for name in ("conversations", "conversations_current")]
    assert columns[0] == columns[1] and columns[0][-2:] == ["deleted_at", "created_date"]
