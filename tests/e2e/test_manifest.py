"""The manifest: `status` tells from it what the tables hold, and `verify` what another program did to them."""

import json
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from deltalake import DeltaTable
from truth import FORMATS, TABLES, assert_exact

sys.path.insert(0, str(ROOT / "tests" / "support"))
from servers import until  # noqa: E402

SMALL = ["--conversations", 430, "--days", 6, "--messages", 4]


def sizes(command):
    told = json.loads(command("status", None, "--json").stdout)
    return told["manifest"], told["tables"]


def counted(lake, kept_as, table):
    """As `status` tells it, from the files themselves."""
    if kept_as == "delta":
        files = [Path(lake, table, path) for path in DeltaTable(lake / table).get_add_actions().column("path").to_pylist()]
    else:
        files = list(Path(lake, table).rglob("*.parquet"))
    dates = sorted(path.parent.name.split("=")[1] for path in files)
    rows = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
    return {"rows": rows, "bytes": sum(path.stat().st_size for path in files), "dates": len(files),
            "first_date": dates[0], "last_date": dates[-1]}


def findings(done):
    return {check["check"]: check["findings"] for check in json.loads(done.stdout)["checks"] if check["findings"]}


def change_checkpoint(lake, change):
    """As a binary would have written it that changes this."""
    newest = max(Path(lake, "_state", "checkpoints").glob("*.json"))
    state = json.loads(newest.read_text())
    change(state)
    newest.write_text(json.dumps(state) + "\n")


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_status_tells_what_the_files_hold_with_a_manifest_and_without(simulate, command, lake, kept_as, read):
    api = simulate(*SMALL)
    command("sync", api, "--format", kept_as)
    for _ in range(4):
        api.advance(hours=20)
        report = json.loads(command("sync", api, "--json").stdout)
        has_manifest, told = sizes(command)
        assert has_manifest and told == {table: counted(lake, kept_as, table) for table in TABLES} == report["tables"]
    # A lake of a release without manifests.
    change_checkpoint(lake, lambda state: state.pop("manifest"))
    assert sizes(command) == (False, told)
    assert "manifest   none" in command("status").stdout
    assert findings(command("verify", None, "--json")) == {}
    done = command("compact")
    assert "made the manifest from the table files" in done.stderr
    assert sizes(command) == (True, told)
    assert "made the manifest" not in command("compact").stderr
    shutil.rmtree(lake / "_state" / "manifest", ignore_errors=True)
    command("verify", None, "--repair")
    assert sizes(command) == (True, told)
    api.advance(hours=20)
    command("sync", api)
    assert_exact(lake, api.conversations(), read)
    command("verify")


def partition(lake, table, date):
    return Path(lake, table, f"created_date={date}")


CHANGES = {
    # What another program does with a partition, the problems, and what is told of them.
    "vanished": (lambda lake, one, _: [shutil.rmtree(partition(lake, t, one)) for t in TABLES], {"vanished": 1}, "is gone"),
    "nowhere": (
        lambda lake, one, _: [shutil.copytree(partition(lake, t, one), partition(lake, t, "1999-12-31")) for t in TABLES],
        {"unlisted": 1, "created_date": None, "unique_across_dates": None}, "does not list this partition",
    ),
    "replaced": (
        lambda lake, one, other: [
            shutil.copytree(partition(lake, t, other), partition(lake, t, one), dirs_exist_ok=True) for t in TABLES
        ],
        {"replaced": None, "created_date": None, "unique_across_dates": None}, "rows, not the",
    ),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_another_program_did_to_a_partition_is_a_problem_until_it_is_accepted(simulate, command, lake, how):
    change, problems, told = CHANGES[how]
    api = simulate(*SMALL)
    command("sync", api)
    one, other = [path.name.split("=")[1] for path in sorted(Path(lake, "tags").iterdir())][1:3]
    change(lake, one, other)
    done = command("verify", None, "--json", code=6)
    found = findings(done)
    assert found.keys() == problems.keys() and all(found[check] == count or count is None for check, count in problems.items())
    text = command("verify", code=6)
    assert told in text.stdout and "verify --repair" in text.stderr
    if how == "vanished":
        assert "made again" in command("verify", None, "--repair").stdout
        assert sizes(command) == (True, {table: counted(lake, "parquet", table) for table in TABLES})
        command("verify")
        command("backfill", api, "--from", one, "--to", f"{one}T23:59:59.999999Z", "--timestamp-filter", "created_at")
        command("compact")
        assert_exact(lake, api.conversations())
        command("verify")


def test_a_copied_lake_is_sound(simulate, command, lake, tmp_path):
    api = simulate(*SMALL)
    command("sync", api)
    shutil.copytree(lake, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(lake)
    shutil.move(tmp_path / "copy", lake)
    assert findings(command("verify", None, "--json")) == {}
    api.advance(hours=20)
    command("sync", api)
    assert_exact(lake, api.conversations())
    command("verify")


def test_state_from_a_backup_is_one_problem_that_the_next_sync_solves(simulate, command, lake, tmp_path):
    api, backup = simulate(*SMALL), tmp_path / "backup"
    command("sync", api)
    shutil.copytree(lake / "_state", backup)
    for _ in range(3):
        api.advance(hours=20)
        report = json.loads(command("sync", api, "--json").stdout)
    shutil.rmtree(lake / "_state")
    shutil.copytree(backup, lake / "_state")
    done = command("verify", None, "--json", code=6)
    assert findings(done) == {"state": 1} and "sync" in done.stderr
    # Runs that begin within a second take their names from the seconds that come.
    until(lambda: datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ") > report["run_id"][:16], "the next run's second")
    command("sync", api)
    assert_exact(lake, api.conversations())
    command("verify")


def test_a_damaged_shard_is_a_problem_and_holds_nothing_up(simulate, command, lake):
    api = simulate("--conversations", 430, "--days", 100, "--messages", 1)
    command("sync", api)
    shards = sorted(Path(lake, "_state", "manifest").iterdir())
    assert shards, "100 partitions are more than a checkpoint lists"
    before = sizes(command)
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{}")):
        damage(shards[0])
        done = command("verify", None, "--json", code=6)
        assert findings(done) == {"manifest": 1} and str(shards[0]) in done.stdout and "verify --repair" in done.stderr
        assert sizes(command) == before
    command("backfill", api, "--from", "2023-01-01", "--to", "2024-03-10", "--timestamp-filter", "created_at")
    assert "making the manifest again" in command("compact").stderr
    command("verify")
    assert sizes(command)[1].keys() == before[1].keys()


def test_rows_that_another_writer_deleted_from_delta_tables_are_no_problem(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api, "--format", "delta")
    before = sizes(command)
    date = before[1]["tags"]["first_date"]
    for table in TABLES:
        DeltaTable(lake / table).delete(f"created_date = '{date}'")
    done = json.loads(command("verify", None, "--json").stdout)
    assert done["changed_by_others"] == 1 and not any(check["findings"] for check in done["checks"])
    assert "others     changed 1 partitions" in command("verify").stdout
    assert sizes(command) == before, "until the next compaction of that partition"
    command("verify", None, "--repair")
    assert sizes(command) == (True, {table: counted(lake, "delta", table) for table in TABLES})
    assert json.loads(command("verify", None, "--json").stdout)["changed_by_others"] == 0
