"""Retention: run reports by number, quarantine files by age and only after a run has reported them."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from conftest import page

CONVERSATION = {"conversation_id": "a", "created_at": "2024-01-01 10:00:00", "updated_at": "2024-01-02 10:00:00"}
ODD = {"notes": "whose?"}


def run_id(number=0, **ago):
    return f"{datetime.now(timezone.utc) - timedelta(**ago):%Y%m%dT%H%M%SZ}-{number:06x}"


def put(lake, folder, name):
    path = Path(lake, "_state", folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}\n")
    return path


def names(lake, folder):
    return sorted(path.name for path in Path(lake, "_state", folder).glob("*"))


def own_runs(done):
    return f"{json.loads(done.stdout)['run_id']}.json"


def a_day_passes(lake):
    """Lets the last upkeep have been a day ago, as the record of the last run says."""
    record = max(Path(lake, "_state", "leases").glob("*.json"))
    last = json.loads(record.read_text())
    last["ended"]["upkeep"]["done_at"] = (datetime.now(timezone.utc) - timedelta(hours=25)).isoformat()
    record.write_text(json.dumps(last))


def test_so_many_reports_are_kept(serve, command, lake):
    api, kept = serve(page(CONVERSATION)), []
    for _ in range(5):
        # Two runs of the same second differ only in the salt, which orders them.
        before = names(lake, "runs")
        kept.append(own_runs(command("sync", api, "--keep-reports", 3, "--json")))
        assert set(names(lake, "runs")) == {*before[-2:], kept[-1]}
        a_day_passes(lake)
    assert len(names(lake, "runs")) == 3
    kept += [own_runs(command("sync", api, "--keep-reports", 3, "--json")) for _ in range(3)]
    assert len(names(lake, "runs")) == 5, "old ones are deleted once a day"
    put(lake, "runs", "notes.txt")
    kept.append(own_runs(command("compact", None, "--json", DECAGON_KEEP_REPORTS=1)))
    assert names(lake, "runs") == [kept[-1], "notes.txt"], "another rule counts at once; what is no report is somebody else's"
    assert "--keep-reports" in command("sync", api, "--keep-reports", 0, code=2).stderr


def test_a_thousand_reports_are_kept_also_of_failed_runs(serve, command, lake):
    api = serve(page(CONVERSATION))
    command("sync", api)
    old = [put(lake, "runs", f"{run_id(number, days=1)}.json") for number in range(1_200)]
    a_day_passes(lake)
    done = command("sync", api, "--json")
    assert len(names(lake, "runs")) == 1_000 and "removed 202 old run reports" in done.stderr
    # With the report of the first run, and that of this one.
    assert [path.exists() for path in sorted(old)] == [False] * 202 + [True] * 998
    again = command("sync", api, "--json")
    assert len(names(lake, "runs")) == 1_001
    # The staged files, the manifest's shards, the notes of a reconciliation and the leases; two pages of reports, and the
    # quarantine files.
    assert json.loads(again.stdout)["store_calls"]["list"] == json.loads(done.stdout)["store_calls"]["list"] - 7
    a_day_passes(lake)
    api.shutdown()
    api.server_close()
    command("sync", api, "--max-tries", 1, code=4)
    assert len(names(lake, "runs")) == 1_000


def test_quarantined_entries_stay_for_ninety_days(serve, command, lake):
    api = serve(page(CONVERSATION, ODD), page(CONVERSATION))
    command("sync", api, code=6)
    [own] = names(lake, "quarantine")
    old, young = (f"{run_id(days=days)}-0000.jsonl" for days in (91, 89))
    others = [f"{run_id(days=91)}.jsonl", "notes.jsonl"]
    for name in (old, young, *others):
        put(lake, "quarantine", name)
    a_day_passes(lake)
    done = command("sync", api)
    assert "removed 1 old quarantine file\n" in done.stderr
    assert names(lake, "quarantine") == sorted([young, own, *others])
    command("compact", None, "--keep-quarantine", "80d")
    assert names(lake, "quarantine") == sorted([own, *others])
    command("compact", None, "--keep-quarantine", "0s")
    assert names(lake, "quarantine") == sorted(others)


@pytest.mark.parametrize("keep", ["0s", "90d"])
def test_nothing_is_removed_before_a_run_has_ended_with_6_for_it(serve, command, lake, keep):
    """A run that quarantined an entry was killed, long ago."""
    api = serve(page(CONVERSATION))
    command("sync", api)
    newest = max(Path(lake, "_state", "checkpoints").iterdir())
    newest.write_text(json.dumps({**json.loads(newest.read_text()), "set_aside": 1}))
    untold = put(lake, "quarantine", f"{run_id(days=100)}-0000.jsonl")
    a_day_passes(lake)
    command("compact", None, "--keep-quarantine", keep)
    assert untold.exists()
    command("sync", api, "--keep-quarantine", keep, code=6)
    assert untold.exists(), "it stays until a run has reported it"
    a_day_passes(lake)
    command("sync", api, "--keep-quarantine", keep)
    assert not untold.exists()
