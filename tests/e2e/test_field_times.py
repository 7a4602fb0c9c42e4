"""Times, numbers, clocks and late arrivals as accounts and machines in the field have them."""

import json
import re
from datetime import datetime, timedelta, timezone

import pytest
from conftest import ROOT, page, run
from truth import instant, read_table

CASES = ROOT / "tests" / "data" / "cases"
TEN = "2024-03-01T10:00:00Z"
DATE = "Mon, 01 Jul 2024 10:00:00 GMT"


def case(name):
    return (CASES / f"{name}.json").read_text()


def at(body, date):
    """A response of a server whose clock says `date`; None is one without a clock."""
    return (200, {"Date": date}, body)


def conversation(own_id, updated_at=TEN, **fields):
    return {"conversation_id": own_id, "created_at": TEN, "updated_at": updated_at, **fields}


def synced(command, api, *arguments):
    """The report of a sync, and what it said."""
    done = command("sync", api, "--json", *arguments)
    return json.loads(done.stdout), done.stderr


def status(command):
    return json.loads(command("status", None, "--json").stdout)


def warnings(stderr):
    return [line for line in stderr.splitlines() if "WARN" in line]


def rows(lake, table="conversations"):
    return {row["conversation_id"]: row for row in read_table(lake, table)}


def asked(api, number):
    """A parameter of a request, as a number."""
    found = re.search(r"min_timestamp=(\d+)", api.asked[number])
    return found and int(found[1])


def seconds(text):
    return int(instant(text).timestamp())


# -- times and numbers (5) ----------------------------------------------------------------------------------------------


def test_epoch_seconds_are_times(serve, command, lake):
    api = serve(case("epoch-seconds"))
    report, output = synced(command, api)
    assert report["unreadable_times"] == 0 and not warnings(output)
    assert instant(status(command)["watermark"]) == instant("2024-03-01T10:02:00Z")
    for own_id, row in rows(lake).items():
        assert str(row["created_date"]) == "2024-03-01" and row["created_at"] == instant(TEN)
        assert row["updated_at"] == instant(TEN) + timedelta(minutes=int(own_id[-1]))
        assert row["extra"] == {"created_at": 1709287200, "updated_at": seconds(TEN) + 60 * int(own_id[-1])}
    assert rows(lake, "messages")["c-1"]["created_at"] == instant(TEN)
    synced(command, api)
    assert asked(api, 1) == seconds("2024-03-01T10:02:00Z") - 600 - 1, "the next run asks for what is new alone"


# A time in the field's forms: the raw JSON, the instant, and whether the row keeps the original too.
FORMS = [
    ('1709287200', TEN, True),
    ('1709287200.5', "2024-03-01T10:00:00.5Z", True),
    ('1709287200123', "2024-03-01T10:00:00.123Z", True),
    ('1709287200123456', "2024-03-01T10:00:00.123456Z", True),
    ('"1709287200"', TEN, True),
    ('"1709287200123"', "2024-03-01T10:00:00.123Z", True),
    ('"2024-03-01T10:00:00\\u002B00:00"', TEN, False),
    ('"2024-03-01 10:00:00 UTC"', TEN, False),
    ('"2024-03-01T10:00:00UTC"', TEN, False),
    ('"2024-03-01 10:00:00 GMT"', TEN, False),
    ('"2024-03-01 10:00:00,25"', "2024-03-01T10:00:00.25Z", False),
    ('"2024-03-01T10:00Z"', TEN, False),
    ('"2024-03-01 10:00"', TEN, False),
    ('"2024-03-01t12:00:00+02"', TEN, False),
    ('"2024-03-01 10:00:00 +0000"', TEN, False),
    ('" 2024-03-01T10:00:00Z "', TEN, False),
    ('"Fri, 01 Mar 2024 10:00:00 GMT"', TEN, True),
    ('"2024-03-01"', "2024-03-01T00:00:00Z", True),
    ('"2024-03-01T10:00:00.1234567Z"', "2024-03-01T10:00:00.123456Z", True),
    ('"0001-01-01T00:00:00"', None, True),
    ('"0001-01-01T00:00:00Z"', None, True),
    ('""', None, True),
    ('0', None, True),
]


def test_every_form_of_a_time_is_read_wherever_it_stands(serve, command, lake):
    one = '{"conversation_id": "%s", "created_at": %s, "last_message_at": %s, "messages": [{"text": "x", "created_at": %s}]}'
    all_forms = [one % (number, raw, raw, raw) for number, (raw, *_) in enumerate(FORMS)]
    body = '{"conversations": [%s], "next_cursor": null}' % ", ".join(all_forms)
    report, output = synced(command, serve(body))
    assert report["unreadable_times"] == 0 and not warnings(output)
    conversations, messages = rows(lake), rows(lake, "messages")
    for number, (raw, expected, kept) in enumerate(FORMS):
        row, message = conversations[str(number)], messages[str(number)]
        expected, original = expected and instant(expected), json.loads(raw)
        assert [row["created_at"], row["last_message_at"], message["created_at"]] == [expected] * 3, raw
        assert row["created_date"] == (expected and expected.date()), raw
        assert row["extra"] == ({"created_at": original, "last_message_at": original} if kept else None), raw
        assert message["extra"] == ({"created_at": original} if kept else None), raw


def test_an_offset_may_be_escaped(serve, command, lake):
    report, _ = synced(command, serve(case("escaped-offset")))
    assert report["unreadable_times"] == 0
    row = rows(lake)["c-1"]
    assert row["created_at"] == row["updated_at"] == instant(TEN) and str(row["created_date"]) == "2024-03-01"


def test_numbers_and_booleans_may_be_text(serve, command, lake):
    synced(command, serve(case("numbers-as-text")))
    row = rows(lake)["c-1"]
    assert (row["csat"], row["csat_rating"]) == (4, 5)
    assert row["extra"] == {"csat": "4", "csat_rating": "5"}
    odd = conversation("odd", undeflected="True", csat_resolved=0, csat="4.5", tags=[{"name": "t", "level": "2"}])
    other = lake.parent / "other"
    run("sync", "--lake", other, "--base-url", serve(page(odd)).url, "--requests-per-second", 0)
    row = rows(other)["odd"]
    assert (row["undeflected"], row["csat_resolved"], row["csat"]) == (True, False, None)
    assert row["extra"] == {"undeflected": "True", "csat_resolved": 0, "csat": "4.5"}
    [tag] = read_table(other, "tags")
    assert tag["level"] == 2 and tag["extra"] == {"level": "2"}


def test_unreadable_times_are_counted_and_reported_once(serve, command, lake):
    bad = [conversation(f"c{number}", "so\x1b[2Jon \u202e", created_at="later") for number in range(3)]
    api = serve(page(*bad, cursor="more"), page(conversation("last", "never", created_at=17)))
    report, output = synced(command, api, "--flush-conversations", 1)
    assert report["unreadable_times"] == 8
    [warning] = warnings(output)
    assert "conversations.created_at" in warning and '"later"' in warning
    assert rows(lake)["c0"]["extra"]["updated_at"] == bad[0]["updated_at"]


@pytest.mark.parametrize("server", [DATE, None], ids=["its clock", "no clock"])
def test_an_account_without_readable_times_is_not_fetched_whole_every_hour(serve, command, server):
    unread = {"conversation_id": "a", "created_at": "early", "updated_at": "late"}
    api = serve(at(page(unread), server))
    before = int(datetime.now(timezone.utc).timestamp())
    report, _ = synced(command, api, "--overlap", "20m")
    start = seconds("2024-07-01T10:00:00Z") if server else before
    watermark = seconds(report["watermark"])
    assert watermark - (start - 1_200) in range(-1, 60), "its start less the overlap"
    synced(command, api, "--overlap", "20m")
    assert asked(api, 1) == watermark - 1_200 - 1


def test_a_walk_that_shows_nothing_moves_no_watermark(serve, command):
    report, _ = synced(command, serve(at(page(), DATE)))
    assert report["watermark"] is None


# -- clocks (6) -----------------------------------------------------------------------------------------------------------


def test_a_version_from_the_future_is_replaced_by_its_correction(serve, command, lake):
    api = serve(case("from-the-future"), case("from-the-future-corrected"))
    first, _ = synced(command, api)
    assert rows(lake)["c-1"]["csat_rating"] == 1
    assert instant(first["watermark"]) <= datetime.now(timezone.utc) + timedelta(seconds=1)
    synced(command, api)
    row = rows(lake)["c-1"]
    assert row["csat_rating"] == 5 and row["updated_at"] == instant("2024-03-02T00:00:00Z")
    command("verify")


@pytest.mark.parametrize("compacted", [False, True])
def test_a_backfill_brings_the_correction_too(serve, command, lake, compacted):
    api = serve(case("from-the-future"), case("from-the-future-corrected"))
    command("sync" if compacted else "export", api)
    command("backfill", api, "--from", "2024-03-01", "--to", "2024-04-01")
    command("compact")
    assert rows(lake)["c-1"]["csat_rating"] == 5


def test_the_server_s_clock_counts_not_the_machine_s(serve, command, lake):
    """To the server it is 2024, so this machine's clock is years ahead."""
    api = serve(at(page(conversation("a", "2024-06-30T10:00:00Z"), conversation("b", "2024-07-09T10:00:00Z")), DATE))
    report, _ = synced(command, api)
    now = instant("2024-07-01T10:00:00Z")
    assert now - timedelta(seconds=2) <= instant(report["watermark"]) <= now
    exported = {row["_exported_at"] for row in rows(lake).values()}
    assert exported == {now + timedelta(microseconds=999_999)}
    assert now - timedelta(seconds=60) <= instant(status(command)["exported_at"]) <= now
    synced(command, api)
    assert asked(api, 1) <= seconds("2024-07-01T09:50:00Z"), "nothing is skipped"


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_without_a_readable_date_this_machine_s_clock_counts(serve, command, lake, date):
    before = datetime.now(timezone.utc)
    synced(command, serve(at(page(conversation("a")), date)))
    assert before - timedelta(seconds=1) <= rows(lake)["a"]["_exported_at"] <= datetime.now(timezone.utc)


def test_of_equal_versions_the_later_commit_wins_even_with_wrong_clocks(serve, command, lake):
    """The server's clock is set back between two runs, and the host of the first was decades ahead."""
    dates = [DATE, "Mon, 03 Jun 2024 10:00:00 GMT"]
    api = serve(*(at(page(conversation("a", csat_rating=number)), date) for number, date in enumerate(dates, 1)))
    command("export", api)
    leases = lake / "_state" / "leases"
    newest = max(leases.glob("*.json"))
    lease = json.loads(newest.read_text())
    newest.write_text(json.dumps({**lease, "run_id": "20990101T000000Z-ffffff"}))
    report, _ = synced(command, api)
    assert report["run_id"].startswith("20990101T000001Z-")
    row = rows(lake)["a"]
    assert (row["csat_rating"], row["_run_id"]) == (2, report["run_id"])


# -- late arrivals (7) ----------------------------------------------------------------------------------------------------


def late_account(serve, *late):
    first = [conversation("a", "2024-03-01T11:00:00Z"), conversation("b", "2024-03-01T10:55:00Z")]
    return serve(at(page(*first), DATE), at(page(*late, *first), DATE))


def test_late_arrivals_are_counted_and_reported_with_an_overlap_that_is_enough(serve, command, lake):
    late = [conversation("late", "2024-03-01T10:52:30Z"), conversation("a little", "2024-03-01T10:59:00Z"),
            conversation("in time", "2024-03-01T11:01:00Z")]
    api = late_account(serve, *late)
    report, output = synced(command, api)
    assert (report["late_arrivals"], report["latest_arrival_secs"]) == (0, 0) and not warnings(output)
    report, output = synced(command, api)
    assert (report["late_arrivals"], report["latest_arrival_secs"]) == (2, 450)
    [warning] = [line for line in warnings(output) if "late" in line]
    assert "2 late arrivals" in warning and "7m 30s" in warning and "--overlap 15m" in warning and "backfill" in warning
    report, output = synced(command, api)
    assert report["late_arrivals"] == 0 and "late arrivals" not in output, "each comes late once"
    assert len(rows(lake)) == 5


def test_late_arrivals_are_reported_by_the_compaction_after_several_exports(serve, command):
    api = late_account(serve, conversation("late", "2024-03-01T10:55:01Z"))
    for _ in range(3):
        command("export", api)
    done = command("compact", None, "--json")
    assert json.loads(done.stdout)["late_arrivals"] == 1 and "--overlap 10m or more" in done.stderr


@pytest.mark.parametrize("late", [
    [],
    # Changed, but known before.
    [conversation("b", "2024-03-01T10:56:00Z")],
    # It is old, and does not say when it was published.
    [{"conversation_id": "uploaded", "created_at": "2019-01-01T00:00:00Z"}],
    # A lag that any database has between a time and its commit.
    [conversation("at once", "2024-03-01T10:59:59.7Z")],
])
def test_nothing_else_is_taken_for_late(serve, command, late):
    api = late_account(serve, *late)
    for _ in range(2):
        _, output = synced(command, api)
        assert "late arrivals" not in output
