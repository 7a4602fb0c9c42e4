"""`upgrade`: a lake of an earlier release gets the columns of this one, and what a lake keeps for good is changed."""

import json

import pytest
from conftest import conversation, page
from test_columns import METADATA, NEW, SENT, account, expected, files, kept_as, lake_json, old, rebuilt, tables_of  # noqa: F401
from test_columns import columns_of_file
from truth import TABLES


def status(command):
    return json.loads(command("status", None, "--json").stdout)


def newest_files(lake, kept, table):
    """The files that a table has now."""
    if kept == "delta":
        from deltalake import DeltaTable

        return [uri.removeprefix("file://") for uri in DeltaTable(lake / table).file_uris()]
    return [lake / name for name in files(lake, table)]


def test_an_old_lake_is_as_if_this_release_had_made_it(old, kept_as, command):  # noqa: F811
    before = status(command)
    assert before["older_partitions"] == 3 and not before["manifest"]
    assert "3 partitions of an older form: `decagon-lake upgrade` rewrites them" in command("status").stdout
    report = json.loads(command("upgrade", None, "--json").stdout)
    # The partitions with staged rows are compacted, and the others are rewritten.
    assert report["upgraded_partitions"] + len(report["compacted_dates"]) >= 3 and report["upgraded_partitions"] > 0
    assert rebuilt(tables_of(old, kept_as)) == expected(*SENT["pages"])
    for table in TABLES:
        for file in newest_files(old, kept_as, table):
            assert set(NEW[table]) <= set(columns_of_file(file)), file
    command("verify")
    assert status(command)["older_partitions"] == 0 and "`decagon-lake upgrade`" not in command("status").stdout
    again = json.loads(command("upgrade", None, "--json").stdout)
    assert (again["upgraded_partitions"], again["compacted_dates"]) == (0, [])


def test_columns_of_metadata_are_filled_in_what_is_there(old, kept_as, command):  # noqa: F811
    command("upgrade")
    assert status(command)["older_partitions"] == 0
    report = json.loads(command("upgrade", None, "--json", *METADATA).stdout)
    assert report["upgraded_partitions"] == report["tables"]["conversations"]["dates"]
    rows = tables_of(old, kept_as)["conversations"]
    known = [row for row in rows if isinstance(row["metadata"], dict) and isinstance(row["metadata"].get("plan"), str)]
    assert known and all(row["metadata_plan"] == row["metadata"]["plan"] for row in known)
    refused = command("upgrade", None, "--metadata-columns", "plan:double", code=2)
    assert "metadata-columns" in refused.stderr and "hint" in refused.stderr


def test_a_lake_moves_with_its_account(serve, command, lake):
    here = serve(page(conversation("a")))
    command("sync", here)
    there = serve(page(conversation("a"), conversation("b")))
    assert here.url in command("sync", there, code=2).stderr
    bad = command("upgrade", None, "--base-url", "ftp://eu.example", code=2)
    assert "ftp" in bad.stderr and lake_json(lake)["base_url"] == here.url
    done = command("upgrade", None, "--base-url", f"{there.url}/")
    assert f"moved the lake from {here.url} to {there.url}" in done.stderr
    command("sync", there)
    assert command("sync", here, code=2)
    assert sorted(row["conversation_id"] for row in tables_of(lake, "parquet")["conversations"]) == ["a", "b"]


def test_an_unfinished_backfill_is_given_up_and_what_it_fetched_stays(serve, command, lake):
    command("sync", serve(page(conversation("a"))))
    broken = serve(page(conversation("b"), cursor="p2"), (403, {}, "{}"))
    path = lake / "_state" / "lake.json"
    path.write_text(json.dumps({**lake_json(lake), "base_url": broken.url}))
    command("backfill", broken, "--from", "2023-01-01", "--to", "2025-01-01", code=3)
    assert [walk["command"] for walk in status(command)["unfinished"]] == ["backfill"]
    report = json.loads(command("upgrade", None, "--abandon-backfill", "--json").stdout)
    assert report["abandoned_backfills"] == 1 and status(command)["unfinished"] == []
    assert sorted(row["conversation_id"] for row in tables_of(lake, "parquet")["conversations"]) == ["a", "b"]


def test_without_a_lake_there_is_nothing_to_upgrade(command):
    assert "hint" in command("upgrade", code=2).stderr
