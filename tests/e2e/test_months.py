"""Lakes by month: what holds for a lake by day holds for them, and the rows are the same.

That readers, Spark and Delta tables see them is in the tests of these.
"""

import json
import re
from pathlib import Path

import pytest
from conftest import page, run
from truth import COLUMN, FORMATS, TABLES, assert_exact, read_table

# From the middle of December on.
SEASON = ["--conversations", 900, "--days", 75, "--messages", 4]
MONTH = ["--partition-by", "month"]
MONTHS = ["2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01"]


def folders(lake, place=""):
    """The partitions of the tables, or of the staged files."""
    return {path.parent.name for path in Path(lake, place).glob("*/created_*/*.parquet")}


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_sync_increments_and_a_backfill(simulate, command, lake, kept_as, read):
    api = simulate(*SEASON)
    command("sync", api, *MONTH, "--format", kept_as)
    assert_exact(lake, api.conversations(), read, "month")
    resolved = 0
    for hours in (6, 30, 72):
        api.advance(hours=hours)
        done = json.loads(command("sync", api, "--json").stdout)
        assert_exact(lake, api.conversations(), read, "month")
        assert "2024-03-01" in done["compacted_dates"] and set(done["compacted_dates"]) <= set(MONTHS)
        resolved += done["duplicates_resolved"]
    assert resolved > 0, "some conversations came again, or this shows nothing"
    assert folders(lake) == {f"created_month={month}" for month in MONTHS}

    command("backfill", api, "--from", "2024-01-10", "--to", "2024-02-10", "--timestamp-filter", "created_at")
    assert folders(lake, "_landing") == {"created_month=2024-01-01", "created_month=2024-02-01"}
    status = json.loads(command("status", None, "--json").stdout)
    assert status["partition_by"] == "month" and status["landing"]["dates"] == 2
    told = status["tables"]["messages"]
    assert (told["dates"], told["first_date"], told["last_date"]) == (4, MONTHS[0], MONTHS[-1])
    assert "by month" in command("status").stdout
    command("compact")
    assert_exact(lake, api.conversations(), read, "month")
    assert not folders(lake, "_landing")
    command("verify")


def test_a_lake_by_day_has_the_same_rows(simulate, tmp_path):
    api = simulate(*SEASON)
    for hours in (0, 30):
        api.advance(hours=hours)
        for by in COLUMN:
            asked = ["--lake", tmp_path / by, "--base-url", api.url, "--requests-per-second", 0]
            run("sync", *asked, "--partition-by", by, "--flush-conversations", 400)
    of_a_run = {*COLUMN.values(), "_run_id", "_exported_at"}
    for table in TABLES:
        days, months = ([{name: value for name, value in row.items() if name not in of_a_run}
                         for row in read_table(tmp_path / by, table)] for by in COLUMN)
        assert days == months, table
    assert len(folders(tmp_path / "day")) > 70 and len(folders(tmp_path / "month")) == 4


def test_a_lake_keeps_its_partitions(simulate, command, lake, tmp_path):
    api = simulate("--conversations", 40)
    command("sync", api, DECAGON_PARTITION_BY="month")
    identity = json.loads(Path(lake, "_state", "lake.json").read_text())
    # So that older versions of the program refuse it.
    assert identity["partition_by"] == "month" and identity["format_version"] == 3
    for refused in (command("sync", api, "--partition-by", "day", code=2),
                    command("export", api, DECAGON_PARTITION_BY="day", code=2),
                    command("backfill", api, "--from", "2024-02-01", "--to", "2024-03-01", "--partition-by", "day", code=2)):
        assert "was created with --partition-by month" in refused.stderr and "omit --partition-by" in refused.stderr
    for same in ([], MONTH):
        command("sync", api, *same)
    assert_exact(lake, api.conversations(), by="month")

    by_day = ["--lake", tmp_path / "by-day", "--base-url", api.url, "--requests-per-second", 0]
    run("sync", *by_day)
    identity = json.loads(Path(tmp_path, "by-day", "_state", "lake.json").read_text())
    assert "partition_by" not in identity
    assert "--partition-by day" in run("sync", *by_day, *MONTH, code=2).stderr
    run("sync", *by_day, "--partition-by", "day")


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_a_conversation_in_two_months_is_repaired(serve, command, lake, kept_as, read):
    moved = {"conversation_id": "moved", "updated_at": "2024-02-02T00:00:00Z", "messages": [{"text": "hello"}]}
    first = page({**moved, "created_at": "2024-01-31T23:59:59Z"})
    second = page({**moved, "created_at": "2024-02-01T00:00:00Z", "updated_at": "2024-02-03T00:00:00Z"})
    api = serve(first, second)
    command("sync", api, *MONTH, "--format", kept_as)
    command("sync", api)
    told = command("verify", code=6).stdout
    assert "moved is in partitions 2024-02-01 and 2024-01-01" in told
    command("verify", None, "--repair")
    [row] = read(lake, "conversations")
    assert str(row["created_month"]) == "2024-02-01" and len(read(lake, "messages")) == 1
    command("verify")


def test_check_says_which_partitions_to_choose(simulate, command, lake, tmp_path):
    api = simulate(*SEASON)
    assert "below some 20,000 conversations a day, make the lake with --partition-by month" in command("check", api).stdout
    command("export", api)
    assert "this lake does not show yet how many it has" in command("check", api).stdout
    command("compact")
    told = command("check", api).stdout
    assert re.search(r"at some \d\d? conversations a day, partitions by month have faster queries", told), told
    assert len(json.loads(command("check", api, "--json").stdout)) == 8

    by_month = ["--lake", tmp_path / "by-month", "--base-url", api.url, "--requests-per-second", 0]
    run("sync", *by_month, *MONTH)
    told = run("check", *by_month).stdout
    assert re.search(r"partitions by month suit some 1\d conversations a day", told), told
