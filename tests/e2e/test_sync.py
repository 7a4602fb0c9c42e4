"""The main guarantee: every conversation once, in its latest version, every field as the API has it."""

import json
from pathlib import Path

import pytest
from conftest import JITTER
from truth import assert_exact, files

SMALL = ["--conversations", 700, "--days", 9, "--messages", 6]


def report(done):
    return json.loads(done.stdout)


def test_fresh_lake_then_four_increments(simulate, command, lake):
    api = simulate(*SMALL)
    first = report(command("sync", api, "--json"))
    assert_exact(lake, api.conversations())
    assert first["pages"] == 7 and first["landed_rows"]["conversations"] == 700
    resolved = 0
    for hours in (6, 24, 72, 1):
        api.advance(hours=hours)
        increment = report(command("sync", api, "--json"))
        assert_exact(lake, api.conversations())
        assert increment["request"]["window"]["from"] is not None, "an increment, not the whole history"
        assert increment["pages"] < first["pages"] + 5
        resolved += increment["duplicates_resolved"]
    assert resolved > 0, "some conversations came again, or this shows nothing"


@pytest.mark.parametrize("cursor_name", ["next_cursor", "next_page_cursor", "next_page_updated_after"])
@pytest.mark.parametrize("default_filter", ["created_at", "updated_at"])
def test_whatever_the_sources_disagree_on(simulate, command, lake, cursor_name, default_filter):
    api = simulate(*SMALL, "--cursor-name", cursor_name, "--default-filter", default_filter)
    for hours in (0, 30):
        api.advance(hours=hours)
        command("sync", api)
        assert_exact(lake, api.conversations())


def test_without_updated_at(simulate, command, lake):
    api = simulate(*SMALL, "--no-updated-at")
    for hours in (0, 6, 24, 72, 1):
        api.advance(hours=hours)
        done = report(command("sync", api, "--json"))
        assert_exact(lake, api.conversations())
    assert not any("updated_at" in conversation for conversation in api.conversations())
    assert done["request"]["window"]["from"] is not None, "an increment, not the whole history"


def test_backfill_then_sync(simulate, command, lake):
    api = simulate(*SMALL)
    command("backfill", api, "--from", "2024-02-24", "--to", "2024-02-26T12:00:00Z")
    command("compact")
    everything = api.conversations()
    from truth import instant

    begin, end = instant("2024-02-24T00:00:00Z"), instant("2024-02-26T12:00:00Z")
    inside = [c for c in everything if begin <= instant(c["updated_at"]) < end]
    assert 0 < len(inside) < len(everything)
    assert_exact(lake, inside)
    status = json.loads(command("status", None, "--json").stdout)
    assert status["watermark"] is None, "a backfill leaves the incremental state alone"

    command("sync", api)
    assert_exact(lake, everything)
    before = json.loads(command("status", None, "--json").stdout)["watermark"]
    api.advance(days=1)
    command("backfill", api, "--from", "2024-02-24", "--to", "2024-03-03")
    assert json.loads(command("status", None, "--json").stdout)["watermark"] == before
    command("sync", api)
    assert_exact(lake, api.conversations())


def test_the_same_backfill_again_is_harmless(simulate, command, lake):
    api = simulate(*SMALL)
    for _ in range(2):
        command("backfill", api, "--from", "2024-02-20", "--to", "2024-03-02", "--timestamp-filter", "created_at")
    command("compact")
    assert_exact(lake, api.conversations())


def test_compaction_touches_only_partitions_with_staged_files_and_twice_changes_nothing(simulate, command, lake):
    api = simulate("--conversations", 900, "--days", 30, "--messages", 3)
    command("sync", api)
    before = files(lake, ".")
    command("compact")
    assert files(lake, ".") == before
    api.advance(hours=2)
    done = report(command("sync", api, "--json"))
    after = files(lake, ".")
    rewritten = {key.split("created_date=")[1].split("/")[0] for key in after if after[key] != before.get(key)}
    assert 0 < len(rewritten) < 10
    assert rewritten == set(done["compacted_dates"])
    assert not files(lake, "_landing")


def test_every_date_is_in_all_tables_and_nothing_else_is_there(simulate, command, lake):
    api = simulate("--conversations", 40, "--days", 20, "--messages", 1)
    command("sync", api)
    dates = {table: {path.parent.name for path in Path(lake, table).rglob("*")if path.is_file()}
             for table in ("conversations", "messages", "tags", "audit_logs")}
    assert len(set(map(frozenset, dates.values()))) == 1
    for table in dates:
        for path in Path(lake, table).rglob("*"):
            assert path.is_dir() or path.name == "part-0.parquet"
    assert not [path for path in Path(lake, "_state").rglob("*.parquet")]


def test_staging_is_never_a_file_a_page(simulate, command, lake):
    api = simulate("--conversations", 1200, "--days", 2, "--messages", 2)
    done = report(command("export", api, "--json"))
    assert done["pages"] == 12
    staged = files(lake, "_landing")
    dates = {key.split("created_date=")[1].split("/")[0] for key in staged}
    assert len(staged) == len(dates) * 4
    assert not Path(lake, "conversations").exists(), "export stages; compact merges into the tables"
    command("compact")
    assert_exact(lake, api.conversations())


def test_a_partition_with_more_staged_files_than_one_merge_takes(simulate, command, lake):
    api = simulate("--conversations", 90, "--days", 1, "--messages", 4)
    exports = [report(command("export", api, "--json", "--page-size", 2, "--flush-conversations", 1))]
    api.advance(hours=6)
    exports.append(report(command("export", api, "--json", "--page-size", 2, "--flush-conversations", 1)))
    assert len({key.rsplit("/", 1)[1] for key in files(lake, "_landing")}) > 3 * 16
    done = report(command("compact", None, "--json"))
    assert_exact(lake, api.conversations())
    assert done["compacted_copies"] == sum(run["landed_rows"]["conversations"] for run in exports)
    assert done["duplicates_resolved"] == done["compacted_copies"] - done["table_rows"]["conversations"] > 0
    assert not files(lake, "_landing")


@pytest.mark.parametrize("limit", [["--flush-conversations", 150], ["--flush-bytes", "200KiB"], ["--flush-interval", "0s"]])
def test_many_small_flushes_make_the_same_tables(simulate, command, lake, limit):
    api = simulate(*SMALL)
    done = report(command("export", api, "--json", *limit))
    flushes = {key.rsplit("-", 1)[1] for key in files(lake, "_landing")}
    assert len(flushes) > 2, done
    api.advance(days=2)
    command("export", api, *limit)
    command("compact")
    assert_exact(lake, api.conversations())


def test_the_api_s_pace_is_kept(simulate, command):
    api = simulate("--conversations", 350)
    done = report(command("sync", api, "--json", "--requests-per-second", 2))
    requests, gaps = api.gaps()
    assert requests == 4 and done["retries"] == 0
    assert min(gaps) >= 0.5 - JITTER and sum(gaps) >= 3 * 0.5 - JITTER


def test_other_page_sizes(simulate, command, lake):
    api = simulate(*SMALL, "--largest-page", 1_000)
    done = report(command("sync", api, "--json", "--page-size", 350))
    assert done["pages"] == 2
    assert_exact(lake, api.conversations())


def test_a_lake_of_one_kind_of_user(simulate, command, lake):
    api = simulate(*SMALL)
    filters = '{"metadata_filter": {"user_type": "VIP"}}'
    for hours in (0, 40):
        api.advance(hours=hours)
        command("sync", api, "--user-filters", filters)
        vip = [c for c in api.conversations() if (c["metadata"] or {}).get("user_type") == "VIP"]
        assert_exact(lake, vip)
    for name, more in (("sync", []), ("backfill", ["--from", "2024-02-01", "--to", "2024-03-01"])):
        refused = command(name, api, *more, code=2)
        assert "--user-filters" in refused.stderr and "another --lake" in refused.stderr


def test_a_backfill_keeps_what_does_not_say_when_it_was_updated(serve, command, lake):
    rated_late = {"conversation_id": "a", "created_at": "2024-01-05 10:00:00", "csat_rating": 5, "messages": []}
    known_to_be_outside = {**rated_late, "conversation_id": "b", "updated_at": "2024-02-15T00:00:00Z"}
    api = serve(json.dumps({"conversations": [rated_late, known_to_be_outside], "next_cursor": None}))
    command("backfill", api, "--from", "2024-02-01", "--to", "2024-02-15")
    command("compact")
    assert_exact(lake, [rated_late])


def test_what_is_asked_for(serve, command):
    """The parameters on the wire: the filter and the size of a page at first, then the newest change less the overlap."""
    newest = {"conversation_id": "a", "created_at": "2024-01-05T00:00:00Z", "updated_at": "2024-02-01T10:00:00Z"}
    api = serve(json.dumps({"conversations": [newest], "next_cursor": None}))
    command("sync", api)
    command("sync", api)
    command("sync", api, "--overlap", "1h", "--page-size", "none")
    command("backfill", api, "--from", "0", "--to", "2024-01-01", "--page-size", 7, "--timestamp-filter", "created_at")
    asked = [dict(pair.split("=") for pair in path.split("?")[1].split("&")) for path in api.asked]
    ten = 1706781600
    assert asked == [
        {"timestamp_filter": "updated_at", "page_size": "1000"},
        {"timestamp_filter": "updated_at", "min_timestamp": str(ten - 600 - 1), "page_size": "1000"},
        {"timestamp_filter": "updated_at", "min_timestamp": str(ten - 3600 - 1)},
        {"timestamp_filter": "created_at", "min_timestamp": "0", "max_timestamp": "1704067200", "page_size": "7"},
    ]
