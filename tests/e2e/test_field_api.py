"""Odd responses that real accounts, or proxies before them, have sent: nothing around them is lost, and none of them
ends a walk too early."""

import json
import random
from pathlib import Path

import pytest
from test_contract import account, conversation, ids, in_turn, open_account, report, status, warnings
from conftest import ROOT, page
from test_api_failures import MB, measured
from test_kills import until
from truth import assert_exact, read_table

CASES = ROOT / "tests" / "data" / "cases"
fixtures = (account, in_turn, open_account)


def case(name):
    return (CASES / f"{name}.json").read_bytes().decode()


def quarantine(lake):
    lines = [line for path in sorted(Path(lake, "_state", "quarantine").glob("*")) for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def row(lake, own_id, table="conversations"):
    [found] = [row for row in read_table(lake, table) if row["conversation_id"] == own_id]
    return found


@pytest.fixture
def followed_by(open_account):
    """An API that has this body as its first page, and another page behind it."""

    def start(body, behind="behind"):
        account = open_account()
        before, _, end = body.rpartition("}")
        for name in ('"next_page_cursor":null', '"next_page_cursor": null'):
            before = before.replace(name, '"next_page_cursor":"2"')
        pages = {None: before + "}" + end, "2": page(conversation(behind))}
        account.instead = lambda query: (200, pages[query.get("cursor")])
        return account

    return start


# -- malformed pages --------------------------------------------------------------------------------------------------


def test_a_number_that_json_lacks_becomes_null_alone(followed_by, command, lake):
    api = followed_by(case("nan-in-one-record"))
    done = command("sync", api, "--json")
    assert ids(lake) == ["behind", "c-1", "c-2", "c-3"]
    kept = row(lake, "c-2")
    assert kept["metadata"] == {"score": None}
    assert kept["extra"] == {"_not_json": {"/metadata/score": "NaN"}}
    assert [query.get("cursor") for query in api.asked] == [None, None, "2"], "once more, and no oftener"
    assert json.loads(done.stdout)["repaired"] == 1 and not quarantine(lake)
    assert [line for line in warnings(done) if "malformed JSON: repaired 1 conversation, could not repair 0 entries" in line]


def test_a_raw_newline_in_a_text_is_that_newline(followed_by, command, lake):
    command("sync", followed_by(case("raw-newline-in-text")))
    assert ids(lake) == ["behind", "c-1", "c-2"]
    assert row(lake, "c-2", "messages")["text"] == "two\nlines"


def test_a_record_that_is_broken_beyond_reading_is_quarantined_alone(followed_by, command, lake):
    body = case("half-a-record")
    api = followed_by(body)
    done = command("sync", api, code=6)
    assert ids(lake) == ["behind", "c-1", "c-3"]
    [line] = quarantine(lake)
    sent = body.encode()
    assert sent[line["byte_offset"]:].startswith(line["raw"].encode()) and line["raw"].startswith('{"conversation_id":"c-2"')
    assert line["raw"].endswith("]}") and "malformed JSON" in line["reason"] and line["page"] == 1
    assert len(api.asked) == 3 and "1 malformed entry was quarantined" in done.stderr
    assert status(command)["watermark"] and not status(command)["unfinished"], "the walk has ended"


BROKEN = {
    "a missing value": '{"conversation_id": "x", "messages": [{"text": }]}',
    "a missing quote": '{"conversation_id": "x", "messages": [{"text": "no end}]}',
    "a missing bracket": '{"conversation_id": "x", "messages": [{"text": "a"}',
    "a bracket too many": '{"conversation_id": "x", "messages": []]}',
    "a bad escape": r'{"conversation_id": "x", "path": "C:\data"}',
    "half an escape": r'{"conversation_id": "x", "text": "\u12"}',
    "no JSON": "<b>error</b>",
    "an octal number": '{"conversation_id": "x", "zip": 0123}',
}


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "between", "last"])
@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_wherever_a_record_breaks_its_neighbors_are_kept(open_account, command, lake, broken, place):
    around = [conversation(f"c{n}", tags=[{"name": "]}{["}]) for n in range(2)]
    entries = [json.dumps(one) for one in around]
    entries.insert(place, BROKEN[broken])
    pages = {None: '{"conversations": [%s], "next_cursor": "2"}' % ", ".join(entries), "2": page(conversation("behind"))}
    api = open_account()
    api.instead = lambda query: (200, pages[query.get("cursor")])
    command("sync", api, code=6)
    assert_exact(lake, [*around, conversation("behind")])
    [line] = quarantine(lake)
    assert pages[None][line["byte_offset"]:].startswith(line["raw"]) and line["raw"][:2] == BROKEN[broken][:2]
    assert len(api.asked) <= 4, "a fault that stays is not tried for minutes"


REPAIRED = [
    (r'"text": "it\'s"', {"text": "it's"}), (r'"text": "\x41"', {"text": "A"}), ('"text": "a\tb\x01"', {"text": "a\tb\x01"}),
    ('"text": "a",', {"text": "a"}), ('"role": None', {"role": None}), ('"text": "\ufffd"', {"text": "\ufffd"}),
]


@pytest.mark.parametrize("sent, read", REPAIRED, ids=str)
def test_malformed_text_with_one_clear_meaning_is_read(in_turn, command, lake, sent, read):
    entry = '{"conversation_id": "a", "created_at": "2024-01-01T10:00:00Z", "messages": [{%s}]}' % sent
    command("sync", in_turn('{"conversations": [%s, ], "next_cursor": null}' % entry))
    kept = row(lake, "a", "messages")
    assert {name: kept[name] for name in read} == read


@pytest.mark.parametrize("number", ["NaN", "-NaN", "Infinity", "-Infinity", "inf"])
def test_no_number_is_one(in_turn, command, lake, number):
    entry = '{"conversation_id": "a", "csat_rating": %s, "messages": [{"text": "t", "score": %s}]}' % (number, number)
    command("sync", in_turn('{"conversations": [%s], "next_cursor": null}' % entry))
    kept = row(lake, "a")
    assert kept["csat_rating"] is None
    assert kept["extra"]["_not_json"] == {"/csat_rating": number, "/messages/0/score": number}


def test_malformed_once_it_is_as_if_it_had_not_been(in_turn, command, lake):
    api = in_turn(page(conversation("a"))[:-1] + ', "x": }', page(conversation("b")))
    done = command("sync", api, "--json")
    assert ids(lake) == ["b"] and json.loads(done.stdout)["retries"] == 1


def test_a_page_that_is_malformed_elsewhere_is_refused_at_once(in_turn, command, lake):
    api = in_turn(page(conversation("a"), cursor="1"), '{"conversations": [], "next_cursor": }')
    done = command("sync", api, code=3)
    assert "not a JSON object" in done.stderr and len(api.asked) == 3
    assert ids(lake) == ["a"], "compacted all the same"
    assert status(command)["watermark"] is None


def test_a_page_that_is_cut_at_the_same_byte_every_time_is_not_taken_for_whole(in_turn, command, lake):
    cut = page(conversation("b"), cursor="2")
    api = in_turn(page(conversation("a"), cursor="1"), cut[: cut.index("}]") + 1])
    command("sync", api, "--max-tries", 3, code=3)
    assert len(api.asked) == 4 and ids(lake) == ["a"] and status(command)["watermark"] is None


def test_a_byte_order_mark_is_skipped(followed_by, command, lake):
    api = followed_by(case("bom"))
    done = command("sync", api)
    assert ids(lake) == ["behind", "c-1"] and not warnings(done)
    assert [query.get("cursor") for query in api.asked[:2]] == [None, "2"]


def test_a_bad_record_stops_a_run_that_is_set_to_fail(in_turn, command, lake):
    done = command("sync", in_turn(case("half-a-record")), "--on-bad-record", "fail", code=6)
    assert "c-2" in done.stderr and "malformed JSON" in done.stderr


# -- pages that look like the end -------------------------------------------------------------------------------------


FAILURES = [
    {"error": "upstream timeout"}, {"errors": [{"code": 7}]}, {"status": "error"}, {"status": 503}, {"message": "try again"},
    {"detail": {"code": 1}}, {"error_message": "x"}, {"error": True}, {"status": False},
]


@pytest.mark.parametrize("sign", FAILURES, ids=str)
def test_an_empty_page_with_an_error_is_not_the_end(in_turn, command, lake, sign):
    bad = json.dumps({"conversations": [], "next_cursor": None, **sign})
    api = in_turn(page(conversation("a"), cursor="1"), bad)
    done = command("sync", api, code=3)
    [name] = sign
    assert f'"{name}"' in done.stderr and [query.get("cursor") for query in api.asked] == [None, "1", "1"]
    assert ids(lake) == ["a"] and status(command)["watermark"] is None
    [walk] = status(command)["unfinished"]
    assert walk["pages"] == 1
    # Once the API is fixed, the walk continues there.
    api.instead = lambda query: (200, page(conversation("b")))
    command("sync", api)
    assert api.asked[-1]["cursor"] == "1" and ids(lake) == ["a", "b"]


def test_the_case_of_an_error_in_200(in_turn, command, lake):
    api = in_turn(page(conversation("a"), cursor="1"), case("error-in-200"))
    done = command("sync", api, code=3)
    assert "upstream timeout" in done.stderr and status(command)["watermark"] is None


def test_an_error_that_passes_is_asked_through(in_turn, command, lake):
    bad = json.dumps({"conversations": [], "next_cursor": None, "error": "upstream timeout"})
    api = in_turn(page(conversation("a"), cursor="1"), bad, page(conversation("b")))
    done = command("sync", api)
    assert ids(lake) == ["a", "b"] and not warnings(done)


def test_a_last_page_with_conversations_and_an_error_is_not_the_end_either(in_turn, command, lake):
    api = in_turn(page(conversation("a"), cursor="1"),
                  json.dumps({"conversations": [conversation("b")], "next_cursor": None, "error": "partial result"}))
    command("sync", api, code=3)
    assert status(command)["watermark"] is None


WELL = [{"status": "ok"}, {"status": "success"}, {"status": 200}, {"error": None}, {"errors": []}, {"message": ""},
        {"error": False}, {"status": True}, {"detail": {}}, {"total": 5}]


@pytest.mark.parametrize("before", [(), (page(conversation("a"), cursor="1"),)], ids=["alone", "behind another"])
@pytest.mark.parametrize("sign", WELL, ids=str)
def test_a_field_that_reports_success_is_not_an_error(in_turn, command, sign, before):
    api = in_turn(*before, json.dumps({"conversations": [], "next_cursor": None, **sign}))
    command("sync", api)
    assert len(api.asked) == len(before) + 1


def test_a_field_of_every_page_is_not_an_error(in_turn, command, lake):
    pages = [json.dumps({"conversations": list(rows), "next_cursor": cursor, "message": "page of the export"})
             for rows, cursor in [([conversation("a")], "1"), ([], None)]]
    api = in_turn(*pages)
    command("sync", api)
    assert len(api.asked) == 2 and ids(lake) == ["a"]


def test_an_empty_page_without_a_field_for_a_cursor_is_asked_for_once_more(in_turn, command, lake):
    api = in_turn(page(conversation("a"), cursor="1"), json.dumps({"conversations": []}))
    done = command("sync", api, "--json")
    assert [query.get("cursor") for query in api.asked] == [None, "1", "1"]
    assert json.loads(done.stdout)["ends_without_cursor_field"] == 1 and "without any field for a cursor" in done.stderr
    assert ids(lake) == ["a"] and status(command)["watermark"]



def test_and_what_comes_then_counts(in_turn, command, lake):
    command("sync", in_turn(page(conversation("a"), cursor="1"), json.dumps({"conversations": []}), page(conversation("b"))))
    assert ids(lake) == ["a", "b"]


def test_a_cursor_that_cannot_be_sent_back_is_not_the_end(in_turn, command, lake):
    done = command("sync", in_turn(case("cursor-with-half-a-surrogate")), code=3)
    assert "cursor" in done.stderr and "ud800" in done.stderr and status(command)["watermark"] is None


# -- a full last page without a cursor --------------------------------------------------------------------------------


def renamed(account):
    """The account calls its cursor by a name that nobody knows."""
    sound = account.page
    account.page = lambda query: sound(query).replace('"next_cursor"', '"nextPageToken"')


def minutes(count):
    return [conversation(f"c{n:04}", created_at="2024-01-01 10:00:00",
                         updated_at=f"2024-01-{2 + n // 1440:02} {n // 60 % 24:02}:{n % 60:02}:00") for n in range(count)]


def test_a_renamed_cursor_is_found_by_the_conversations_behind_it(account, command, lake):
    account.conversations = minutes(250)
    renamed(account)
    done = command("sync", account, code=3)
    assert '"nextPageToken"' in done.stderr and len(account.asked) == 2
    assert len(ids(lake)) == 100 and status(command)["watermark"] is None
    # Once the API is fixed, the walk continues where it stopped.
    del account.page
    command("sync", account)
    assert_exact(lake, account.conversations)


@pytest.mark.parametrize("count, page_size, requests", [(100, 100, 2), (300, 100, 4), (7, 7, 1), (5, 1, 6), (1, 1, 1)])
def test_a_history_that_ends_with_a_full_page_needs_no_warning(account, command, lake, count, page_size, requests):
    account.conversations, account.page_size = minutes(count), page_size
    done = command("sync", account)
    assert not warnings(done) and len(account.asked) == requests, "one more, at most"
    assert_exact(lake, account.conversations)
    again = command("sync", account)
    assert not warnings(again)


def test_a_change_during_the_question_proves_nothing(account, command, lake):
    account.conversations = minutes(100)
    sound = account.page

    def busy(query):
        body = sound(query)
        if len(account.asked) == 1:
            account.conversations.append(conversation("new", updated_at="2099-01-01 00:00:00"))
        return body

    account.page = busy
    done = command("sync", account)
    assert not warnings(done) and len(account.asked) == 2


def test_many_of_one_second_are_all_known_again(account, command, lake):
    account.conversations = [conversation(f"c{n}", updated_at="2024-01-02 10:00:00") for n in range(300)]
    done = command("sync", account)
    assert not warnings(done) and len(ids(lake)) == 300


# -- continuing a walk ------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(open_account, command):
    """An account of which a walk was left at the cursor `1`."""
    account = open_account()
    account.instead = lambda query: (500, "down") if query.get("cursor") else (200, page(conversation("a"), cursor="1"))
    command("sync", account, "--max-tries", 1, "--page-size", 200, code=4)
    account.asked.clear()
    account.sizes.clear()
    return account


def test_the_page_size_of_a_resumed_walk_can_be_changed(interrupted, command, lake):
    pages = {"1": page(conversation("b"), cursor="2")}
    interrupted.instead = lambda query: (200, pages[query["cursor"]]) if query["cursor"] in pages else (500, "down")
    command("sync", interrupted, "--max-tries", 1, "--page-size", 300, code=4)
    pages["2"] = page(conversation("c"))
    command("sync", interrupted, "--page-size", "none")
    assert [query["cursor"] for query in interrupted.asked] == ["1", "2", "2"] and interrupted.sizes == [300, 300, None]
    assert ids(lake) == ["a", "b", "c"]


@pytest.mark.parametrize("refusal", [400, 404, 410, 422])
def test_a_stored_cursor_that_is_refused_starts_the_walk_over(interrupted, command, lake, refusal):
    def expired(query):
        return (refusal, '{"detail": "cursor expired"}') if query.get("cursor") == "1" else None

    interrupted.instead, interrupted.conversations = expired, minutes(5)
    done = command("sync", interrupted, "--json")
    result = json.loads(done.stdout)
    assert result["restarted_walks"] == 1 and not result["resumed"]
    [warning] = warnings(done)
    assert "starting the walk over" in warning and "cursor expired" in warning
    # The size of the page may be what is refused by 400 and 422: one more request shows that it is not.
    once_more = refusal in (400, 422)
    assert [query.get("cursor") for query in interrupted.asked] == ["1", *["1"] * once_more, None]
    assert interrupted.sizes == [200, *[None] * once_more, 1_000]
    assert set(ids(lake)) == {"a", *(one["conversation_id"] for one in minutes(5))}
    assert report(lake)["restarted_walks"] == 1


def test_it_starts_over_once(interrupted, command, lake):
    interrupted.instead = lambda query: (422, '{"detail": "no"}')
    command("sync", interrupted, code=3)
    assert [query.get("cursor") for query in interrupted.asked] == ["1", "1", None, None]
    assert interrupted.sizes == [200, None, 1_000, None]
    [walk] = status(command)["unfinished"]
    assert walk["pages"] == 1, "the walk is not discarded without need"


@pytest.mark.parametrize("refusal", [401, 403, 500])
def test_other_refusals_are_not_the_cursors(interrupted, command, refusal):
    interrupted.instead = lambda query: (refusal, "no")
    command("sync", interrupted, "--max-tries", 1, code=4 if refusal == 500 else 3)
    assert len(interrupted.asked) == 1


# -- compaction after and within an export ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending, code", [((500, "down"), 4), ((403, "no"), 3), (page(cursor="1"), 3)], ids=str)
def test_pages_staged_before_a_failure_are_compacted(in_turn, command, lake, ending, code):
    command("sync", in_turn(page(conversation("a"), cursor="1"), page(conversation("b"), cursor="2"), ending),
            "--max-tries", 1, code=code)
    assert ids(lake) == ["a", "b"] and status(command)["landing"]["objects"] == 0
    assert report(lake)["outcome"] == "failed" and report(lake)["compacted_dates"]


@pytest.mark.parametrize("kept_as", ["parquet", "delta"])
def test_a_long_walk_is_compacted_on_its_way(account, command, lake, kept_as):
    account.conversations, account.page_size = minutes(100), 10
    asked = []

    def look(query):
        asked.append(query)
        if len(asked) > 6:
            until(lambda: any(Path(lake, "conversations").rglob("*.parquet")))

    account.instead = look
    done = command("sync", account, "--compact-every", 3, "--format", kept_as, "--json")
    assert len(asked) == 11
    result = json.loads(done.stdout)
    assert result["pages"] == 10 and result["landed_rows"]["conversations"] == 100 and not result["resumed"]
    assert result["compacted_dates"] == ["2024-01-01"]
    command("verify")
    if kept_as == "parquet":
        assert_exact(lake, account.conversations)


def test_a_first_walk_compacts_the_days_that_it_is_past(account, command, lake):
    """Twelve days of ten conversations, and one of the first day that changes on the last."""
    days = [f"2024-01-{1 + n // 10:02} 10:{n % 10:02}:00" for n in range(120)]
    rows = [conversation(f"c{n:04}", created_at=day, updated_at=day) for n, day in enumerate(days)]
    rows[3] = {**rows[3], "updated_at": "2024-01-12 11:00:00", "summary": "changed late"}
    account.conversations, account.page_size = rows[:3] + rows[4:] + [rows[3]], 10
    asked = []

    def look(query):
        asked.append(query)
        if len(asked) > 10:
            until(lambda: all(any(Path(lake, "conversations", f"created_date=2024-01-0{day}").glob("*.parquet"))
                              for day in range(1, 5)))

    account.instead = look
    done = command("sync", account, "--flush-conversations", 20, "--json")
    result = json.loads(done.stdout)
    assert len(asked) >= 12 and result["table_rows"]["conversations"] >= 120
    assert result["compacted_dates"] == sorted({day[:10] for day in days})
    assert status(command)["landing"]["objects"] == 0
    assert row(lake, "c0003")["summary"] == "changed late"
    command("verify")
    assert_exact(lake, account.conversations)


def test_cursors_in_a_circle_are_found_across_the_parts_of_a_walk(in_turn, command, lake):
    pages = [page(conversation(f"c{n}"), cursor=str(n % 7 + 1)) for n in range(20)]
    api = in_turn(*pages)
    command("sync", api, "--compact-every", 2, code=3)
    assert len(api.asked) == 8


# -- memory -----------------------------------------------------------------------------------------------------------


def fat_page(number, cursor):
    """99 conversations with 20 MB of text that takes long to compress."""
    text = random.Random(number).randbytes(10 * MB).hex()
    rows = [conversation(f"c{number:02}-{row:02}", created_at=f"2024-01-{1 + number:02}T10:00:00Z",
                         audit_logs=[{"text": "t", "payload": {"blob": text[row * 200_000:(row + 1) * 200_000]}}])
            for row in range(99)]
    return page(*rows, cursor=cursor)


def large_page(number, cursor):
    """1,000 conversations with 40 MB of text: as many as are asked for by default, and as large as they get."""
    text = random.Random(number).randbytes(20 * MB).hex()
    rows = [conversation(f"c{number:02}-{row:04}", created_at=f"2024-01-{1 + number:02}T10:00:00Z",
                         messages=[{"role": "USER", "text": text[row * 40_000:(row + 1) * 40_000]}])
            for row in range(1_000)]
    return page(*rows, cursor=cursor)


def test_pages_of_1_000_conversations_and_40_mb_take_no_more(open_account, command, lake, tmp_path):
    account, last = open_account(), 7
    pages = [large_page(number, f"page {number + 1}" if number < last else None) for number in range(last + 1)]
    account.instead = lambda query: (200, pages[int(query.get("cursor", "page 0").split()[1])])
    code, _, peak = measured(tmp_path, "sync", "--lake", lake, "--base-url", account.url, "--requests-per-second", 0)
    print(f"{peak / MB} MB")
    assert code == 0 and set(account.sizes) == {1_000}
    assert len(ids(lake)) == 1_000 * len(pages)
    assert peak < 300 * MB, f"{peak / MB} MB"


def test_pages_of_20_mb_are_bounded_by_their_bytes(open_account, lake, tmp_path):
    """However fast they come: the bytes of the pages that wait to be flattened are bounded."""
    account, last = open_account(), 15
    pages = [fat_page(number, str(number + 1) if number < last else None) for number in range(last + 1)]
    account.instead = lambda query: (200, pages[int(query.get("cursor", 0))])
    code, _, peak = measured(tmp_path, "sync", "--lake", lake, "--base-url", account.url, "--requests-per-second", 0)
    print(f"{peak / MB} MB")
    assert code == 0 and peak < 300 * MB, f"{peak / MB} MB"
