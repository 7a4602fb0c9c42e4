"""`verify`: a sound lake passes, beside a run too; problems are reported; an id in two partitions is repaired."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import BINARY, KEY, PATIENCE_SECS, environment, page
from truth import FORMATS, assert_exact, read_table


def conversation(own_id, **fields):
    return {"conversation_id": own_id, "created_at": "2024-01-01 10:00:00", "messages": [{"text": "hi"}], **fields}


def problems(done):
    return {check["check"]: check["findings"] for check in json.loads(done.stdout)["checks"] if check["findings"]}


def test_a_sound_lake_passes_and_is_counted(simulate, command, lake):
    api = simulate("--conversations", 430, "--days", 6)
    command("export", api)
    staged = json.loads(command("verify", None, "--json").stdout)
    assert staged["landed_files"] > 0 and staged["rows"]["conversations"] == 0 and not staged["unnamed_files"]
    command("compact")
    result = json.loads(command("verify", None, "--json").stdout)
    assert result["rows"]["conversations"] == 430 and result["files"] == 4 * result["dates"] and result["landed_files"] == 0
    assert result["rows"]["messages"] == sum(len(c["messages"]) for c in api.conversations())
    text = command("verify").stdout
    assert text.count("\nok  ") == len(result["checks"]) and "BROKEN" not in text and "430 conversations" in text


def test_a_problem_is_reported_with_its_evidence(simulate, command, lake):
    command("sync", simulate("--conversations", 43, "--days", 3))
    [damaged, gone, *_] = sorted(Path(lake, "messages").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-7])
    gone.unlink()
    done = command("verify", code=6)
    assert str(damaged) in done.stdout and str(gone.relative_to(lake)) in done.stdout
    assert "backfill" in done.stderr and done.stdout.count("BROKEN") == 2
    assert problems(command("verify", None, "--json", code=6)) == {"readable": 1, "all_tables": 1}
    before = {path: path.read_bytes() for path in Path(lake).rglob("*") if path.is_file()}
    command("verify", code=6)
    assert before == {path: path.read_bytes() for path in Path(lake).rglob("*") if path.is_file()}, "it only reads"


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_one_conversation_in_two_partitions_is_repaired(serve, command, lake, kept_as, read):
    """The API showed no date at first, and then it did."""
    early = conversation("a", created_at="unknown", updated_at="2024-01-01T11:00:00Z", tags=[{"name": "x"}])
    late = conversation("a", updated_at="2024-01-01T12:00:00Z")
    other = conversation("b", created_at="unknown", updated_at="2024-01-01T11:00:00Z")
    api = serve(page(early, other), page(late))
    command("sync", api, "--format", kept_as)
    command("sync", api)
    done = command("verify", None, "--json", code=6)
    assert problems(done) == {"unique_across_dates": 1} and "--repair" in done.stderr
    repaired = command("verify", None, "--repair", "--json")
    assert problems(repaired) == {} and json.loads(repaired.stdout)["removed_copies"] == 1
    rows = {row["conversation_id"]: row for row in read(lake, "conversations")}
    assert rows["a"]["created_date"] is not None and rows["b"]["created_date"] is None
    assert len(read(lake, "messages")) == 2 and read(lake, "tags") == []
    again = command("verify", None, "--repair", "--json")
    assert json.loads(again.stdout)["removed_copies"] == 0


def test_verify_fails_without_a_lake(command, tmp_path):
    for arguments in ([], ["--repair"]):
        assert "there is no lake" in command("verify", None, *arguments, code=2).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_verify_reports_no_problem_beside_a_run_that_replaces_files(simulate, command, lake, kept_as, read):
    api = simulate("--conversations", 2_030, "--days", 8, "--messages", 4)
    command("sync", api, "--format", kept_as)
    for _ in range(6):
        api.advance(hours=6)
        running = subprocess.Popen(
            [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0"],
            stderr=subprocess.DEVNULL, env=environment(DECAGON_API_KEY=KEY),
        )
        while running.poll() is None:
            command("verify")
            command("status")
        assert running.returncode == 0
    assert_exact(lake, api.conversations(), read)
    command("verify")


def test_repair_waits_for_no_run(simulate, command, lake):
    api = simulate("--conversations", 1_000)
    api.hold(after=1)
    running = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0"],
        stderr=subprocess.PIPE, text=True, env=environment(DECAGON_API_KEY=KEY),
    )
    api.wait_for(2, running)
    done = command("verify", None, "--repair", code=7)
    assert str(running.pid) in done.stderr and "`sync`" in done.stderr
    command("verify")
    api.release()
    running.communicate(timeout=PATIENCE_SECS)
    assert running.returncode == 0


def test_a_missing_staged_file_holds_up_only_its_partition_and_can_be_discarded(serve, command, lake):
    other = conversation("b", created_at="2024-01-02 10:00:00")
    api = serve(page(conversation("a"), other), page(conversation("a")))
    command("export", api)
    [gone] = Path(lake, "_landing", "messages", "created_date=2024-01-01").iterdir()
    gone.unlink()
    done = command("compact", code=6)
    assert "created_date=2024-01-01" in done.stderr and "verify --repair" in done.stderr
    assert [row["conversation_id"] for row in read_table(lake, "conversations")] == ["b"]
    assert problems(command("verify", None, "--json", code=6)) == {"landed": 1}
    repaired = command("verify", None, "--repair", "--json")
    assert json.loads(repaired.stdout)["given_up_landings"] == 1 and "2024-01-01" in repaired.stderr
    command("backfill", api, "--from", "2024-01-01", "--to", "2024-01-02", "--timestamp-filter", "created_at")
    command("compact")
    assert_exact(lake, [conversation("a"), other])
    command("verify")


def test_a_table_that_lacks_a_file_is_not_taken_for_an_empty_one(serve, command, lake):
    before = conversation("a", tags=[{"name": "x", "level": 0}])
    api = serve(page(before), page(conversation("b", updated_at="2024-01-05T00:00:00Z")))
    command("sync", api)
    Path(lake, "tags", "created_date=2024-01-01", "part-0.parquet").unlink()
    done = command("sync", api, code=6)
    assert "tags/created_date=2024-01-01/part-0.parquet is missing" in done.stderr
    assert [row["conversation_id"] for row in read_table(lake, "conversations")] == ["a"], "it is as it was"
