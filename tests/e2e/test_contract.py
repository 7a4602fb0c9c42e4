"""The API breaks its contract, or sends odd records: what it sent is kept, and what is missing is reported."""

import json
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import BINARY, KEY, environment, page
from truth import TABLES, assert_exact, connect, instant, read_table

CURSOR_NAMES = ["next_cursor", "next_page_cursor", "next_page_updated_after"]
SMALL = ["--conversations", 300, "--days", 6, "--messages", 4]


# -- what it serves ---------------------------------------------------------------------------------------------------


def conversation(own_id, created_at="2024-01-01 10:00:00", **fields):
    message = {"role": "USER", "text": f"I am {own_id}", "created_at": created_at}
    return {"conversation_id": own_id, "created_at": created_at, "messages": [message], **fields}


def raw_page(*conversations, cursor=None):
    """A page of texts, as no library would write them."""
    return '{"conversations": [%s], "next_cursor": %s}' % (", ".join(conversations), json.dumps(cursor))


class Account:
    """An account's export API. A test can change how it behaves, also while it serves."""

    def __init__(self):
        # The largest page, which is also its usual one.
        self.conversations, self.page_size = [], 100
        self.cursor_is_a_second = self.ignores_filter = False
        # A function that may answer a request instead: from its parameters to a status and a body.
        self.instead = lambda query: None
        # The parameters of each request, and apart from them its `page_size`.
        self.asked, self.sizes = [], []
        account = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                query = dict(parse_qsl(urlsplit(self.path).query))
                account.sizes.append(int(query["page_size"]) if "page_size" in query else None)
                account.asked.append({name: value for name, value in query.items() if name != "page_size"})
                status, body = account.instead(query) or (200, account.page(query))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        # Polls so often that no test waits for the server's end.
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def page(self, query):
        meant = "created_at" if self.ignores_filter else query["timestamp_filter"]

        def second(one):
            return int(instant(one[meant]).timestamp())

        first, last = int(query.get("min_timestamp", 0)), int(query.get("max_timestamp", 10**12))
        rows = sorted((one for one in self.conversations if first <= second(one) <= last), key=second)
        size = min(int(query.get("page_size", self.page_size)), self.page_size)
        if self.cursor_is_a_second:
            rows = [one for one in rows if int(query.get("cursor", 0)) <= second(one)]
            cursor = second(rows[size - 1]) if len(rows) > size else None
            return page(*rows[:size], cursor=cursor, name="next_page_updated_after")
        begin = int(query.get("cursor", 0))
        more = begin + size < len(rows)
        return page(*rows[begin:begin + size], cursor=str(begin + size) if more else None)


@pytest.fixture
def open_account():
    """Opens accounts; they are closed with the test."""
    accounts = []

    def start():
        accounts.append(Account())
        return accounts[-1]

    yield start
    for it in accounts:
        it.server.shutdown()


@pytest.fixture
def account(open_account):
    return open_account()


@pytest.fixture
def in_turn(open_account):
    """Serves given responses in turn, and the last one for ever: bodies, or (status, body)."""

    def start(*responses):
        left, account = list(responses), open_account()

        def respond(_):
            response = left.pop(0) if len(left) > 1 else left[0]
            return response if isinstance(response, tuple) else (200, response)

        account.instead = respond
        return account

    return start


# -- what the tests read ----------------------------------------------------------------------------------------------


def status(command):
    return json.loads(command("status", None, "--json").stdout)


def evidence(lake):
    """What is known of the API, as committed last."""
    newest = max(Path(lake, "_state", "checkpoints").glob("*.json"))
    return json.loads(newest.read_text())["evidence"]


def ids(lake):
    return sorted(row["conversation_id"] for row in read_table(lake, "conversations"))


def warnings(done):
    return [line for line in done.stderr.splitlines() if "WARN" in line]


def report(lake):
    """The report of the last run."""
    newest = max(Path(lake, "_state", "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return json.loads(newest.read_text())


# -- cursors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURSOR_NAMES)
@pytest.mark.parametrize("loop", [["x"], ["x", "y", "z"]], ids=["at once", "of three"])
def test_repeated_cursors_end_the_run_and_lose_nothing(in_turn, command, lake, loop, name):
    pages = [page(conversation(f"c{n}"), cursor=loop[n % len(loop)], name=name) for n in range(20)]
    api = in_turn(*pages)
    done = command("sync", api, code=3)
    assert 'paging is stuck: the API returned cursor "x" again' in done.stderr and "--restart" in done.stderr
    assert len(api.asked) == len(loop) + 1
    command("compact")
    assert ids(lake) == [f"c{n}" for n in range(len(loop) + 1)], "what came before is there"
    [walk] = status(command)["unfinished"]
    assert walk["command"] == "export" and status(command)["watermark"] is None

    command("sync", api, code=3)
    assert len(api.asked) <= 3 * len(loop) + 2, "and again, as soon"
    assert not status(command)["watermark"]


@pytest.mark.parametrize("loop", [["x"], ["x", "y", "z"]], ids=["at once", "of three"])
def test_a_walk_with_a_repeated_cursor_continues_once_that_is_fixed(in_turn, command, lake, loop):
    pages = [page(conversation(f"c{n}"), cursor=loop[n % len(loop)]) for n in range(len(loop) + 1)]
    api = in_turn(*pages, page(conversation("the last")))
    command("sync", api, code=3)
    command("sync", api)
    assert api.asked[-1]["cursor"] == "x"
    assert ids(lake) == [*(f"c{n}" for n in range(len(loop) + 1)), "the last"]


@pytest.mark.parametrize("before", [0, 60, 99])
def test_more_in_a_second_than_a_page_holds_is_reported_as_that(account, command, lake, before):
    account.cursor_is_a_second = True
    account.conversations = [
        *(conversation(f"before {n}", updated_at="2024-01-02 09:59:59") for n in range(before)),
        *(conversation(f"then {n}", updated_at="2024-01-02 10:00:00.25") for n in range(250)),
        *(conversation(f"after {n}", updated_at="2024-01-02 10:00:01") for n in range(30)),
    ]
    done = command("sync", account, code=3)
    assert "2024-01-02 10:00:00 UTC" in done.stderr and "a page of 100" in done.stderr, "which second, and the size"
    assert str(int(instant("2024-01-02 10:00:00").timestamp())) in done.stderr
    assert "--page-size" in done.stderr and "--restart" in done.stderr
    assert len(account.asked) <= 4
    command("compact")
    came = ids(lake)
    assert len([own_id for own_id in came if own_id.startswith("before")]) == before
    assert len([own_id for own_id in came if own_id.startswith("then")]) >= 100
    assert status(command)["watermark"] is None

    account.page_size = 300
    command("sync", account, "--restart", "--page-size", 300)
    assert_exact(lake, account.conversations)


# -- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    ["{}", '{"conversations": null}', '{"conversations": {}}', '{"conversations": "none"}', '{"conversations": 0}',
     '{"data": {"conversations": []}}', '{"Conversations": []}', '{"detail": "no such account"}'],
)
def test_a_page_without_conversations_is_a_broken_contract(in_turn, command, lake, body):
    api = in_turn(page(conversation("a"), cursor="1"), body)
    done = command("sync", api, code=3)
    assert "no array `conversations`" in done.stderr and body.replace("  ", " ") in done.stderr
    assert api.url in done.stderr and len(api.asked) == 2, "it would not get better"
    command("compact")
    assert ids(lake) == ["a"] and status(command)["watermark"] is None


@pytest.mark.parametrize("body", ["[]", '[{"conversation_id": "b"}]', '"conversations"', "null", "0", ""])
def test_a_response_that_is_not_an_object_is_a_broken_contract(in_turn, command, lake, body):
    api = in_turn(page(conversation("a"), cursor="1"), body)
    done = command("sync", api, "--max-tries", 1, code=3)
    assert "not a JSON object" in done.stderr and (body or "(empty)") in done.stderr
    command("compact")
    assert ids(lake) == ["a"] and status(command)["watermark"] is None


def full_page(rows, **others):
    return json.dumps({"conversations": [conversation(f"c{n}") for n in range(rows)], **others})


@pytest.mark.parametrize(
    "rows, arguments",
    [(100, []), (7, ["--page-size", 7]), (1_000, ["--page-size", 1_000]), (100, ["--page-size", 500])],
    ids=["as usual", "as asked for", "as much as there is", "as usual, whatever was asked for"],
)
def test_a_full_page_without_a_cursor_is_asked_about_and_reported_with_what_else_there_was(
    in_turn, command, lake, rows, arguments
):
    """There is more behind it."""
    behind = page(conversation("behind", created_at="2024-01-01 10:00:01"))
    api = in_turn(full_page(rows, nextPage="abc", total=4_711, next_cursor=None), behind)
    done = command("sync", api, "--json", *arguments, code=3)
    assert '"nextPage"' in done.stderr and '"total"' in done.stderr and '"behind"' in done.stderr
    assert '"conversations"' not in done.stderr and '"next_cursor"' not in done.stderr, "those it knows"
    assert json.loads(done.stdout)["full_pages_without_cursor"] == 1
    assert len(ids(lake)) == rows and len(api.asked) == 2 and status(command)["watermark"] is None


@pytest.mark.parametrize("others", [{}, {"nextPage": "abc"}], ids=["nothing else", "another field"])
def test_a_full_page_that_was_the_last_needs_no_warning(in_turn, command, others):
    done = command("sync", in_turn(full_page(100, **others)), "--json")
    assert not warnings(done) and json.loads(done.stdout)["full_pages_without_cursor"] == 1


def test_a_full_page_of_conversations_without_times_cannot_be_asked_about(in_turn, command):
    rows = [{"conversation_id": f"c{n}"} for n in range(100)]
    api = in_turn(json.dumps({"conversations": rows, "nextPage": "abc"}))
    [warning] = warnings(command("sync", api))
    assert '"nextPage"' in warning and "last page of the export is full" in warning and len(api.asked) == 1


def test_a_full_page_is_known_by_those_before_it(in_turn, command):
    """The API's pages may have any size."""
    pages = [page(*(conversation(f"{n}, {row}") for row in range(40)), cursor=str(n)) for n in (1, 2)]
    api = in_turn(*pages, full_page(40, nextPage="abc"))
    done = command("sync", api, "--json")
    assert json.loads(done.stdout)["full_pages_without_cursor"] == 1 and len(api.asked) == 4


SMALLER = [[0], [1], [99], [100, 1], [100, 99], [40, 40, 39], [100, 0], [100, 0, 40], [101, 100, 20], [150], [0, 5]]


@pytest.mark.parametrize("sizes", SMALLER, ids=str)
def test_a_last_page_that_is_not_full_needs_no_warning(in_turn, command, sizes):
    rows = [[conversation(f"{n}, {row}") for row in range(size)] for n, size in enumerate(sizes)]
    pages = [page(*of_page, cursor=str(n)) for n, of_page in enumerate(rows, start=1)]
    last = json.dumps({"conversations": rows[-1], "nextPage": None, "total": sum(sizes)})
    done = command("sync", in_turn(*pages[:-1], last), "--json")
    assert not warnings(done) and json.loads(done.stdout)["full_pages_without_cursor"] == 0


# -- rows that were not asked for -------------------------------------------------------------------------------------


STRAYS = [
    conversation("long before", updated_at="2023-11-05T06:07:08Z"),
    conversation("before", updated_at="2024-01-31T23:59:00Z"),
    conversation("after", updated_at="2024-02-15T00:01:00Z"),
]
INSIDE = [
    conversation("first", updated_at="2024-02-01T00:00:00Z"),
    conversation("last", updated_at="2024-02-14T23:59:59.9Z"),
]
# Asked for, as the API's bounds are whole seconds and perhaps inclusive.
BESIDE = [
    conversation("just before", updated_at="2024-01-31T23:59:59.9Z"),
    conversation("at the end", updated_at="2024-02-15T00:00:00Z"),
]


def test_a_backfill_leaves_out_rows_outside_its_window_and_reports_them(in_turn, command, lake):
    api = in_turn(page(INSIDE[0], *BESIDE, *STRAYS[:2], cursor="1"), page(STRAYS[2], INSIDE[1]))
    done = command("backfill", api, "--from", "2024-02-01", "--to", "2024-02-15", "--json")
    [warning] = warnings(done)
    assert "long before" in warning and "2023-11-05 06:07:08" in warning and "2024-02-15T00:00:00Z" in warning
    assert json.loads(done.stdout)["outside_window"] == len(STRAYS) + len(BESIDE)
    assert "5 outside the range left out" in done.stderr
    command("compact")
    assert_exact(lake, INSIDE)


@pytest.mark.parametrize("meant", ["created_at", "last_message_time"])
def test_outside_means_the_time_that_was_asked_for(in_turn, command, lake, meant):
    field = {"created_at": "created_at", "last_message_time": "last_message_at"}[meant]
    inside = conversation("inside", **{field: "2024-02-03 10:00:00"}, updated_at="2024-03-01 00:00:00")
    outside = conversation("outside", **{field: "2024-01-03 10:00:00"}, updated_at="2024-02-03 00:00:00")
    api = in_turn(page(inside, outside))
    done = command("backfill", api, "--from", "2024-02-01", "--to", "2024-02-15", "--timestamp-filter", meant, "--json")
    [warning] = warnings(done)
    assert "conversation outside" in warning and "2024-01-03 10:00:00" in warning
    assert json.loads(done.stdout)["outside_window"] == 1
    command("compact")
    assert_exact(lake, [inside])


def increment_with_strays(in_turn, command):
    known = conversation("known", updated_at="2024-02-10T10:00:00Z")
    again = conversation("known", updated_at="2024-02-11T10:00:00Z", csat_rating=5)
    api = in_turn(page(known), page(STRAYS[0], STRAYS[1], again))
    command("sync", api)
    return command("sync", api, "--json"), [again, *STRAYS[:2]]


def test_an_increment_keeps_rows_outside_its_window_and_reports_them(in_turn, command, lake):
    done, there = increment_with_strays(in_turn, command)
    [warning] = warnings(done)
    assert "long before" in warning and "2023-11-05 06:07:08" in warning and "2024-02-10T09:50:00Z" in warning
    assert json.loads(done.stdout)["outside_window"] == 2
    assert_exact(lake, there)


def test_rows_that_an_increment_keeps_are_not_reported_as_left_out(in_turn, command):
    done, _ = increment_with_strays(in_turn, command)
    assert "2 outside the range kept" in done.stderr


def test_an_older_version_that_was_not_asked_for_replaces_nothing(in_turn, command, lake):
    newest = conversation("a", updated_at="2024-02-10T10:00:00Z", csat_rating=5)
    older = conversation("a", updated_at="2024-01-10T10:00:00Z", notes="old")
    command("sync", api := in_turn(page(newest), page(older)))
    done = command("sync", api, "--json")
    assert json.loads(done.stdout)["outside_window"] == 1 and len(warnings(done)) == 1
    assert_exact(lake, [newest])


# -- is timestamp_filter honored? -------------------------------------------------------------------------------------


def test_an_api_that_ignores_the_filter_is_detected_and_can_be_exported(simulate, command, lake):
    api = simulate(*SMALL, "--ignore-filter")
    command("sync", api)
    assert_exact(lake, api.conversations())
    watermark = status(command)["watermark"]
    assert evidence(lake)["verdict"] is None and evidence(lake)["witnesses"]

    api.advance(hours=30)
    for attempt in range(2):
        done = command("sync", api, code=3)
        assert "ignores timestamp_filter" in done.stderr and "--on-ignored-filter full" in done.stderr
        assert status(command)["watermark"] == watermark, "what changed since has not come"
        assert status(command)["unfinished"] == [] and evidence(lake)["verdict"] == "ignored"
        assert report(lake)["outcome"] == "failed" and report(lake)["watermark"] in (None, watermark)
    assert report(lake)["pages"] == 0, "it does not fetch what is of no use"

    for hours in (0, 40):
        api.advance(hours=hours)
        result = json.loads(command("sync", api, "--on-ignored-filter", "full", "--json").stdout)
        assert_exact(lake, api.conversations())
        assert result["request"]["window"]["from"] is None and evidence(lake)["verdict"] == "ignored"
        assert status(command)["watermark"] > watermark
        watermark = status(command)["watermark"]
    command("sync", api, code=3)

    window = ["--from", "2024-02-27", "--to", "2024-03-10"]
    before = report(lake)
    refused = command("backfill", api, *window, code=3)
    assert "ignores timestamp_filter" in refused.stderr and "--timestamp-filter created_at" in refused.stderr
    assert before != report(lake) and report(lake)["landed_objects"] == 0
    api.advance(hours=9)
    command("backfill", api, *window, "--timestamp-filter", "created_at")
    command("compact")
    assert status(command)["watermark"] == watermark, "a backfill leaves it alone"
    changed = {row["conversation_id"]: row["updated_at"] for row in read_table(lake, "conversations")}
    inside = [c for c in api.conversations() if instant("2024-02-27T00:00:00Z") <= instant(c["created_at"])]
    assert len(inside) > 100
    assert all(changed[one["conversation_id"]] == instant(one["updated_at"]) for one in inside)


def test_a_vendor_that_fixes_the_filter_is_noticed_at_once(simulate, command, lake):
    api = simulate(*SMALL, "--ignore-filter")
    command("sync", api)
    api.advance(hours=30)
    command("sync", api, code=3)
    assert evidence(lake)["verdict"] == "ignored"
    watermark = status(command)["watermark"]
    api.stop()

    fixed = simulate(*SMALL, "--port", api.url.rsplit(":", 1)[1])
    assert fixed.url == api.url
    fixed.advance(hours=36)
    result = json.loads(command("sync", fixed, "--json").stdout)
    assert evidence(lake)["verdict"] == "honoured" and status(command)["watermark"] > watermark
    assert result["request"]["window"]["from"] is not None, "an increment again"
    assert_exact(lake, fixed.conversations())
    fixed.advance(hours=3)
    result = json.loads(command("sync", fixed, "--json").stdout)
    assert result["requests"] == result["pages"], "nothing more is asked"
    assert_exact(lake, fixed.conversations())


def test_a_row_from_before_the_window_proves_the_filter_without_asking(simulate, command, lake):
    api = simulate(*SMALL)
    command("sync", api)
    assert evidence(lake)["verdict"] is None, "everything would have come from any server"
    api.advance(hours=30)
    result = json.loads(command("sync", api, "--json").stdout)
    before = [
        c for c in read_table(lake, "conversations")
        if c["_run_id"] == result["run_id"] and c["created_at"] < instant(result["request"]["window"]["from"])
    ]
    assert before, "or this shows nothing"
    assert evidence(lake)["verdict"] == "honoured"
    # The first sync ends with a full page, so the run sends one more request.
    assert result["requests"] == result["pages"] and api.gaps()[0] == 4 + result["pages"]
    assert_exact(lake, api.conversations())


def hour(text):
    return f"2024-02-01 {text}"


# Six that changed long after they were created, and one that did not. A run asks for the last five of the six.
CANARIES = [
    conversation(f"w{n}", hour(f"0{n}:00:00"), updated_at=hour(f"1{n}:30:15.7{n}")) for n in range(6)
]
QUICK = conversation("quick", hour("19:55:00"), updated_at=hour("19:59:59"))
LATER = conversation("later", hour("20:00:00"), updated_at=hour("20:10:00"))


def at(text):
    return int(instant(text).timestamp())


def is_probe(query):
    return "max_timestamp" in query


def probe(canary, field="updated_at"):
    """The request for the second in which a canary changed, or in which it was created."""
    second = at(canary[field])
    return {"timestamp_filter": "updated_at", "min_timestamp": str(second - 1), "max_timestamp": str(second + 1)}


@pytest.fixture
def quiet(account, command, lake):
    """An account that was synced and then got one conversation more, which any server would send."""
    account.conversations = [*CANARIES, QUICK]
    command("sync", account)
    assert len(evidence(lake)["witnesses"]) == 5 and len(account.asked) == 1
    account.conversations.append(LATER)
    account.asked.clear()
    return account


def test_if_no_row_proves_the_filter_a_canary_is_asked_for(quiet, command, lake):
    done = command("sync", quiet)
    increment, *probes = quiet.asked
    assert increment == {"timestamp_filter": "updated_at", "min_timestamp": str(at(QUICK["updated_at"]) - 601)}
    assert probes == [probe(CANARIES[5])], "the second in which the last one changed"
    assert not warnings(done) and evidence(lake)["verdict"] == "honoured"
    assert_exact(lake, quiet.conversations)
    assert instant(status(command)["watermark"]) == instant(LATER["updated_at"])

    quiet.conversations.append(conversation("latest", hour("21:00:00"), updated_at=hour("21:10:00")))
    quiet.asked.clear()
    command("sync", quiet)
    assert len(quiet.asked) == 1, "it is known"
    assert_exact(lake, quiet.conversations)


def test_a_missing_canary_proves_nothing_while_another_is_returned(quiet, command, lake):
    quiet.conversations = [one for one in quiet.conversations if one["conversation_id"] not in ("w5", "w4")]
    command("sync", quiet)
    assert quiet.asked[1:] == [probe(CANARIES[n]) for n in (5, 4, 3)]
    assert evidence(lake)["verdict"] == "honoured"
    assert_exact(lake, [*CANARIES, QUICK, LATER])


def test_a_canary_returned_for_its_creation_proves_the_filter_ignored(quiet, command, lake):
    quiet.ignores_filter = True
    done = command("sync", quiet, code=3)
    assert "ignores timestamp_filter" in done.stderr
    probes = [probe(CANARIES[n]) for n in (5, 4, 3, 2, 1)]
    assert quiet.asked[1:] == [*probes, probe(CANARIES[5], "created_at")]
    assert evidence(lake)["verdict"] == "ignored"
    assert instant(status(command)["watermark"]) == instant(QUICK["updated_at"])
    command("compact")
    assert_exact(lake, [*CANARIES, QUICK, LATER])

    quiet.asked.clear()
    command("sync", quiet, "--on-ignored-filter", "full")
    assert quiet.asked[:2] == [probe(CANARIES[5]), probe(CANARIES[5], "created_at")], "is it fixed?"
    assert quiet.asked[2:] == [{"timestamp_filter": "updated_at"}]
    assert_exact(lake, quiet.conversations)


def test_an_ignored_filter_can_be_detected_and_handled_in_one_run(quiet, command, lake):
    quiet.ignores_filter = True
    quiet.conversations[0] = {**CANARIES[0], "updated_at": hour("20:30:00"), "csat_rating": 5}
    done = command("sync", quiet, "--on-ignored-filter", "full")
    assert len(warnings(done)) == 1 and "ignores timestamp_filter" in warnings(done)[0]
    assert [is_probe(query) for query in quiet.asked] == [False] + [True] * 6 + [False]
    assert quiet.asked[-1] == {"timestamp_filter": "updated_at"} and evidence(lake)["verdict"] == "ignored"
    assert_exact(lake, quiet.conversations)


def test_a_whole_history_fetched_instead_continues_where_it_was_interrupted(quiet, command, lake):
    quiet.ignores_filter, quiet.page_size = True, 3
    quiet.conversations[0] = {**CANARIES[0], "updated_at": hour("20:30:00"), "csat_rating": 5}
    quiet.instead = lambda query: (401, "{}") if query.get("cursor") == "6" else None
    command("sync", quiet, "--on-ignored-filter", "full", code=3)
    [walk] = status(command)["unfinished"]
    assert walk["window"]["from"] is None and walk["pages"] == 2

    quiet.instead = lambda query: None
    quiet.asked.clear()
    result = json.loads(command("sync", quiet, "--json").stdout)
    assert result["resumed"] and [query["cursor"] for query in quiet.asked] == ["6"]
    assert evidence(lake)["verdict"] == "ignored"
    assert_exact(lake, quiet.conversations)
    command("sync", quiet, code=3)


def test_a_probe_asks_as_the_walk_does(account, command):
    account.conversations = [*CANARIES, QUICK]
    asked = ["--page-size", 50, "--user-filters", '{"flow_filter": ["chat"]}']
    command("sync", account, *asked)
    account.conversations.append(LATER)
    command("sync", account, *asked)
    assert account.asked[-1] == {**probe(CANARIES[5]), "user_filters": '{"flow_filter":["chat"]}'}
    assert set(account.sizes) == {50}


def test_a_canary_on_a_later_page_of_its_second_is_found(quiet, command, lake):
    quiet.page_size = 2
    quiet.conversations[:0] = [
        conversation(f"also {n}", hour("20:00:00"), updated_at=CANARIES[5]["updated_at"]) for n in range(5)
    ]
    command("sync", quiet)
    probes = [query for query in quiet.asked if is_probe(query)]
    assert [query.get("cursor") for query in probes] == [None, "2", "4"] and evidence(lake)["verdict"] == "honoured"


def erased(account, *numbers):
    """Erases canaries at the source."""
    gone = {f"w{number}" for number in numbers}
    account.conversations = [one for one in account.conversations if one["conversation_id"] not in gone]


def change_evidence(lake, **fields):
    """Changes what is known of the API, in the checkpoint that was committed last."""
    newest = max(Path(lake, "_state", "checkpoints").glob("*.json"))
    checkpoint = json.loads(newest.read_text())
    checkpoint["evidence"].update(fields)
    newest.write_text(json.dumps(checkpoint))


def days_ago(days):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - days * 86_400))


@pytest.mark.parametrize("known", [1, 2])
def test_one_or_two_canaries_that_were_erased_say_nothing(quiet, command, lake, known):
    change_evidence(lake, witnesses=evidence(lake)["witnesses"][:known])
    erased(quiet, 5, 4)
    done = command("sync", quiet)
    assert len(quiet.asked) == 1 + 2 * known and "unknown whether the API honors" in done.stderr
    assert evidence(lake)["verdict"] is None and instant(status(command)["watermark"]) == instant(LATER["updated_at"])
    assert evidence(lake)["witnesses"] == [], "nobody asks for them again"
    quiet.asked.clear()
    command("sync", quiet)
    assert len(quiet.asked) == 1
    assert_exact(lake, [*CANARIES, QUICK, LATER])


def test_if_three_are_absent_the_filter_counts_as_ignored_until_others_are_known(quiet, command, lake):
    change_evidence(lake, witnesses=evidence(lake)["witnesses"][:3])
    erased(quiet, 5, 4, 3)
    for _ in range(2):
        command("sync", quiet, code=3)
        assert evidence(lake)["verdict"] == "ignored" and len(evidence(lake)["witnesses"]) == 3
    command("backfill", quiet, "--from", "2024-02-01", "--to", "2024-02-02", "--timestamp-filter", "created_at")
    command("sync", quiet)
    assert evidence(lake)["verdict"] == "honoured"
    assert_exact(lake, [*CANARIES, QUICK, LATER])


def test_a_lake_that_relied_on_a_canary_that_was_erased_goes_on(quiet, command, lake):
    """Earlier releases took one absence for enough."""
    change_evidence(lake, verdict="ignored", witnesses=evidence(lake)["witnesses"][:1])
    erased(quiet, 5)
    command("sync", quiet)
    assert evidence(lake)["verdict"] is None and instant(status(command)["watermark"]) == instant(LATER["updated_at"])
    assert_exact(lake, [*CANARIES, QUICK, LATER])


def later(n):
    """One more conversation that any server would send."""
    return conversation(f"later {n}", hour(f"2{n}:00:00"), updated_at=hour(f"2{n}:10:00"))


@pytest.mark.parametrize("proven_at", [days_ago(8), None], ids=["a week ago", "by an older version"])
def test_a_filter_that_was_honored_is_asked_about_again_after_a_week(quiet, command, lake, proven_at):
    command("sync", quiet)
    proven = instant(evidence(lake)["proven_at"])
    assert evidence(lake)["verdict"] == "honoured" and abs(time.time() - proven.timestamp()) < 300
    change_evidence(lake, proven_at=proven_at)
    quiet.conversations.append(later(1))
    quiet.asked.clear()
    command("sync", quiet)
    assert quiet.asked[1:] == [probe(CANARIES[5])] and instant(evidence(lake)["proven_at"]) >= proven
    quiet.conversations.append(later(2))
    quiet.asked.clear()
    command("sync", quiet)
    assert len(quiet.asked) == 1

    change_evidence(lake, proven_at=proven_at)
    quiet.ignores_filter = True
    before = status(command)["watermark"]
    assert "ignores timestamp_filter" in command("sync", quiet, code=3).stderr
    assert evidence(lake)["verdict"] == "ignored" and status(command)["watermark"] == before


def test_each_row_that_proves_it_renews_the_proof(quiet, command, lake):
    command("sync", quiet)
    change_evidence(lake, proven_at=days_ago(8))
    quiet.conversations[0] = {**CANARIES[0], "updated_at": hour("20:30:00"), "csat_rating": 5}
    quiet.asked.clear()
    command("sync", quiet)
    assert len(quiet.asked) == 1, "that is proof enough"
    assert evidence(lake)["verdict"] == "honoured" and instant(evidence(lake)["proven_at"]) > instant(days_ago(1))


def test_a_proof_that_cannot_be_had_again_leaves_it_as_it_was(quiet, command, lake):
    command("sync", quiet)
    change_evidence(lake, proven_at=days_ago(8), witnesses=evidence(lake)["witnesses"][:1])
    erased(quiet, 5)
    quiet.conversations.append(later(1))
    command("sync", quiet)
    assert evidence(lake)["verdict"] == "honoured" and evidence(lake)["witnesses"] == []
    assert instant(status(command)["watermark"]) == instant(later(1)["updated_at"])


@pytest.mark.parametrize("gone", [0, 1, 4])
def test_seconds_with_too_much_in_them_prove_nothing(quiet, command, lake, gone):
    """A second with more pages than a run looks at gives no answer, and the run does not ask for all of them."""
    empty = [probe(canary) for canary in CANARIES[:gone + 1]]
    crowd = ((200, page(conversation("one of many"), cursor=str(n))) for n in range(1, 1_000))
    quiet.instead = lambda query: ((200, page()) if query in empty else next(crowd)) if is_probe(query) else None
    command("sync", quiet)
    assert evidence(lake)["verdict"] is None and len(quiet.asked) < 30
    assert instant(status(command)["watermark"]) == instant(LATER["updated_at"])
    quiet.instead = lambda query: None
    quiet.asked.clear()
    command("sync", quiet)
    assert len(quiet.asked) == 2 and evidence(lake)["verdict"] == "honoured", "it is asked again"


@pytest.mark.parametrize("refusal", [401, 403, 422])
def test_a_probe_that_is_refused_is_asked_again_by_the_next_run(quiet, command, lake, refusal):
    quiet.instead = lambda query: (refusal, '{"detail": "not now"}') if is_probe(query) else None
    done = command("sync", quiet, code=3)
    assert "not now" in done.stderr and "ignores" not in done.stderr
    assert evidence(lake)["verdict"] is None
    assert instant(status(command)["watermark"]) == instant(QUICK["updated_at"]), "it may not have been all"
    [walk] = status(command)["unfinished"]
    assert walk["command"] == "export" and report(lake)["landed_rows"]["conversations"] == 2

    quiet.instead = lambda query: None
    quiet.asked.clear()
    result = json.loads(command("sync", quiet, "--json").stdout)
    assert result["resumed"] and [is_probe(query) for query in quiet.asked] == [False, True]
    assert evidence(lake)["verdict"] == "honoured" and status(command)["unfinished"] == []
    assert instant(status(command)["watermark"]) == instant(LATER["updated_at"])
    assert_exact(lake, quiet.conversations)


def test_a_run_killed_while_it_asks_for_a_canary_is_continued(quiet, command, lake):
    asked, released = threading.Event(), threading.Event()

    def hold(query):
        if is_probe(query):
            asked.set()
            released.wait()

    quiet.instead = hold
    process = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", quiet.url, "--requests-per-second", "0"],
        stderr=subprocess.DEVNULL, env=environment(DECAGON_API_KEY=KEY),
    )
    assert asked.wait(timeout=120)
    process.kill()
    process.wait()
    released.set()
    quiet.instead = lambda query: None
    quiet.asked.clear()
    result = json.loads(command("sync", quiet, "--json").stdout)
    assert result["resumed"] and [is_probe(query) for query in quiet.asked] == [False, True]
    assert evidence(lake)["verdict"] == "honoured"
    assert_exact(lake, quiet.conversations)


def test_a_walk_stays_before_its_last_page_until_the_filter_is_known_to_be_honored(quiet, command, lake):
    quiet.page_size = 2
    more = [conversation(f"more {n}", hour("20:20:00"), updated_at=hour(f"20:2{n}:00")) for n in range(6)]
    quiet.conversations += more
    quiet.instead = lambda query: (401, "{}") if is_probe(query) else None
    for _ in range(2):
        command("sync", quiet, code=3)
    assert [query.get("cursor") for query in quiet.asked] == [None, "2", "4", "6", None, None, "6", None]
    quiet.instead = lambda query: None
    command("sync", quiet)
    assert_exact(lake, quiet.conversations)


@pytest.mark.parametrize("updated_at, is_canary", [("18:00:00", False), ("18:59:59.9", False), ("19:00:00", True)])
def test_a_canary_changed_an_hour_or_more_after_its_creation(account, command, lake, updated_at, is_canary):
    account.conversations = [conversation("a", hour("18:00:00"), updated_at=hour(updated_at))]
    command("sync", account)
    account.conversations.append(LATER)
    # With such an overlap it comes again, and from any server.
    command("sync", account, "--overlap", "1h")
    assert account.asked[2:] == [probe(account.conversations[0])] * is_canary
    assert evidence(lake)["verdict"] == ("honoured" if is_canary else None)
    assert len(evidence(lake)["witnesses"]) == is_canary
    assert instant(status(command)["watermark"]) == instant(LATER["updated_at"])
    assert_exact(lake, account.conversations)


def test_quarantined_entries_are_reported_although_the_filter_has_to_be_asked_about(quiet, command, lake):
    odd = {"created_at": hour("20:30:00"), "updated_at": hour("20:30:00"), "notes": "whose?"}
    quiet.conversations.append(odd)
    done = command("sync", quiet, "--json", code=6)
    assert json.loads(done.stdout)["quarantined"] == 1 and evidence(lake)["verdict"] == "honoured"
    assert_exact(lake, [*CANARIES, QUICK, LATER])


# -- odd records ------------------------------------------------------------------------------------------------------


TEXTS = {
    "conversations": ["user_id", "destination", "summary", "resolution", "csat_role", "customer_feedback", "flow_type",
                      "notes"],
    "messages": ["role", "text"], "tags": ["id", "name"], "audit_logs": ["text"],
}
NUMBERS = {"conversations": ["csat_rating", "csat"], "tags": ["level"]}
TIMES = {
    "conversations": ["created_at", "updated_at", "last_message_at", "last_user_message_at"],
    "messages": ["created_at"], "audit_logs": ["created_at"],
}
BOOLEANS = {"conversations": ["undeflected", "csat_resolved"]}
JSONS = {"conversations": ["metadata"], "audit_logs": ["payload"]}
INDEX = {"messages": "message_index", "tags": "tag_index", "audit_logs": "log_index"}
COLUMN = {("tags", "id"): "tag_id"}

# JSON texts by name; no two fields of the API expect all of them.
ODD = {
    "null": "null", "true": "true", "false": "false", "zero": "0", "minus": "-7", "fraction": "4.50", "whole": "4.0",
    "power": "40e-1", "huge": "123456789012345678901234567890", "endless": "1e400", "beyond": "2147483648",
    "nothing": '""', "space": '" "', "word": '"soon"', "digits": '"4"', "truth": '"true"', "null word": '"null"',
    "half": r'"before \ud83d after"', "other half": r'"\ude00"', "turned": r'"\ude00\ud83d"',
    "whole pair": r'"\ud83d\ude00"',
    "NUL": r'"a\u0000b"', "escapes": r'"\"\\\/\b\f\n\r\t\u00e9"', "no array": "[]", "array": r'[1, "x\ud83d", null]',
    "object": '{}', "objects": r'{"a" : 1.50, "a":{"\ud83d": [ ]}, "b": "é"}', "time": '"2024-01-05T10:00:00.25Z"',
}


# Values that are read from another type; the original is kept too.
READ = {("number", '"4"'): 4, ("boolean", '"true"'): True, ("boolean", "0"): False,
        ("time", "2147483648"): 2_147_483_648_000_000}


def fits(kind, raw):
    """Whether a value is one that a column of its kind can hold; worked out from the JSON alone."""
    value = json.loads(raw)
    if kind == "number":
        whole = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**31
        return whole and value == int(value)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "time":
        return raw == ODD["time"]
    if kind == "text":
        return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
    return True


def rows_by_id(lake, table):
    """The rows of a table as text, but for numbers; times in microseconds since 1970."""
    connection = connect()
    source = f"read_parquet('{lake}/{table}/*/*.parquet', hive_partitioning = true)"
    kinds = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM {source})").fetchall())
    shown = [f"epoch_us({name}) AS {name}" if "TIMESTAMP" in kind else f'"{name}"' for name, kind in kinds.items()]
    result = connection.execute(f"SELECT {', '.join(shown)} FROM {source} ORDER BY conversation_id, _seq")
    rows = {}
    for values in result.fetchall():
        row = dict(zip(kinds, values))
        rows.setdefault(row["conversation_id"], []).append(row)
    for of_one in rows.values():
        of_one.sort(key=lambda row: row.get(INDEX.get(table), 0))
    return rows


def assert_kept(row, table, kind, field, raw):
    """A value is in its column, exactly, or in `extra`, as it came."""
    held, extra = row[COLUMN.get((table, field), field)], row["extra"]
    if raw == "null":
        assert held is None and extra is None
    elif fits(kind, raw):
        expected = {"json": raw, "time": 1704448800250000}.get(kind, json.loads(raw))
        assert held == expected and type(held) is type(expected) or kind == "number" and held == expected
        assert extra is None or extra == "{}" and field == "id", extra
    else:
        assert extra == '{"%s":%s}' % (field, raw)
        json.loads(extra)
        if kind != "text" or raw[0] in "[{":
            assert held == READ.get((kind, raw))
        elif raw[0] != '"':
            assert held == raw, "so that it can be joined on"
        else:
            assert "\ufffd" in held
            assert ("before" in held and "after" in held) == ("before" in raw), "the rest can be searched"


def test_any_value_in_any_field_is_kept(in_turn, command, lake):
    sent = {}
    for kind, fields in (("text", TEXTS), ("number", NUMBERS), ("time", TIMES), ("boolean", BOOLEANS), ("json", JSONS)):
        for table, of_table in fields.items():
            for field in of_table:
                for name, raw in ODD.items():
                    element = f'{{"{field}": {raw}}}'
                    own = element[1:-1] if table == "conversations" else f'"{table}": [{element}, {{}}, {element}]'
                    sent[f"{table} {field} {name}"] = table, kind, field, raw, own
    records = [f'{{"conversation_id": "{own_id}", {own}}}' for own_id, (*_, own) in sent.items()]
    pages = [records[begin:begin + 99] for begin in range(0, len(records), 99)]
    api = in_turn(*(raw_page(*of_page, cursor=n) for n, of_page in enumerate(pages[:-1], 1)), raw_page(*pages[-1]))
    result = json.loads(command("sync", api, "--json").stdout)
    assert result["outcome"] == "done" and result["quarantined"] == 0
    tables = {table: rows_by_id(lake, table) for table in TABLES}
    assert len(sent) > 500 and set(tables["conversations"]) == set(sent)
    for own_id, (table, kind, field, raw, _) in sent.items():
        [row] = tables["conversations"][own_id]
        if table == "conversations":
            assert_kept(row, table, kind, field, raw)
            continue
        assert row["extra"] is None and row["message_count"] == (3 if table == "messages" else 0)
        first, empty, last = tables[table][own_id]
        assert [row[INDEX[table]] for row in (first, empty, last)] == [0, 1, 2]
        assert_kept(first, table, kind, field, raw)
        assert_kept(last, table, kind, field, raw)
        assert empty["extra"] is None


def test_any_value_in_place_of_a_list_or_an_element_is_kept(in_turn, command, lake):
    lists, elements = {}, {}
    for table in INDEX:
        for name, raw in ODD.items():
            (lists if raw[0] != "[" else {})[f"{table} is {name}"] = table, raw
            if raw[0] != "{":
                elements[f"{table} has {name}"] = table, raw
    records = [f'{{"conversation_id": "{own_id}", "{table}": {raw}}}' for own_id, (table, raw) in lists.items()]
    records += [f'{{"conversation_id": "{own_id}", "{table}": [{raw}]}}' for own_id, (table, raw) in elements.items()]
    command("sync", in_turn(raw_page(*records)))
    tables = {table: rows_by_id(lake, table) for table in TABLES}
    assert set(tables["conversations"]) == {*lists, *elements}
    for own_id, (table, raw) in lists.items():
        [row] = tables["conversations"][own_id]
        assert row["extra"] == (None if raw == "null" else '{"%s":%s}' % (table, raw)), own_id
        assert not any(own_id in tables[child] for child in INDEX)
    for own_id, (table, raw) in elements.items():
        [row] = tables[table][own_id]
        if table == "tags" and raw[0] == '"' and fits("text", raw):
            assert (row["tag_id"], row["extra"]) == (json.loads(raw), None), "a bare id"
        else:
            assert row["extra"] == raw, own_id


def test_unknown_fields_are_kept_as_they_came(in_turn, command, lake):
    """Also fields that have the name of one of the lake's own columns."""
    names = ["extra", "_run_id", "_seq", "_exported_at", "created_date", "message_count", "tag_id", "message_index", "",
             "Notes", r"\ud83d", r"with \"quotes\"", "mit Umlaut: ä", "a.b", "conversation_id "]
    values = list(ODD.values())
    others = ",".join(f'"{name}":{values[n % len(values)]}' for n, name in enumerate(names))
    lists = f'"messages": [{{{others}}}], "tags": [{{{others}}}]'
    record = f'{{"conversation_id": "a", {others}, "notes": "known", {lists}}}'
    command("sync", in_turn(raw_page(record)))
    for table in ("conversations", "messages", "tags"):
        [row] = rows_by_id(lake, table)["a"]
        assert row["extra"] == f"{{{others}}}"
        assert row["_seq"] == 0 and row["_run_id"] == report(lake)["run_id"]
    [row] = rows_by_id(lake, "conversations")["a"]
    assert row["notes"] == "known" and row["message_count"] == 1 and row["created_date"] is None


IDS = {
    "17": "17", "-3": "-3", "1.50": "1.50", "12345678901234567890123": "12345678901234567890123", "1e400": "1e400",
    r'"\ud83d"': r"\ud83d", r'"half \ude00 way"': r"half \ude00 way", r'"\u00e9\n\"\\"': 'é\n"\\',
    r'"a\u0000b"': "a\0b",
    '" "': " ", '"null"': "null", '"0"': "0", '"a/b=c%2F.."': "a/b=c%2F..", '"' + "x" * 100_000 + '"': "x" * 100_000,
}


def test_odd_ids_are_ids(in_turn, command, lake):
    """Each is recognized when it comes again, and keeps its messages."""

    def records(text):
        return [
            f'{{"conversation_id": {raw}, "notes": "{text}", "messages": [{{"text": "{number} {text}"}}]}}'
            for number, raw in enumerate(IDS)
        ]

    api = in_turn(raw_page(*records("one"), *records("two")), raw_page(*records("three")))
    for text in ("two", "three"):
        command("sync", api)
        conversations, messages = rows_by_id(lake, "conversations"), rows_by_id(lake, "messages")
        assert set(conversations) == set(messages) == set(IDS.values())
        for number, (raw, own_id) in enumerate(IDS.items()):
            [row], [message] = conversations[own_id], messages[own_id]
            assert row["notes"] == text and message["text"] == f"{number} {text}"
            exact = raw[0] == '"' and fits("text", raw)
            assert row["extra"] == (None if exact else '{"conversation_id":%s}' % raw)


MICROS = 1_000_000
DATES = {
    '"0001-01-02T00:00:00Z"': (-62_135_510_400 * MICROS, "0001-01-02"),
    '"1969-12-31T23:59:59.999999Z"': (-1, "1969-12-31"),
    '"9999-12-31T23:59:59Z"': (253_402_300_799 * MICROS, "9999-12-31"),
    '"9999-12-31T23:59:59.999999"': (253_402_300_799 * MICROS + 999_999, "9999-12-31"),
    '"2024-02-29T23:30:00-08:00"': (1_709_278_200 * MICROS, "2024-03-01"),
    **{raw: (None, None) for raw in (
        '"0001-01-01T00:00:00Z"', '"0001-01-01 00:00:00"', '"10000-01-01T00:00:00Z"', '"+10000-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59-00:01"', '"0000-12-31T23:59:59Z"', '"0001-01-01T00:00:00+00:01"', '"-0001-01-01T00:00:00Z"',
        '"-1"', "-1", "0", '""', '"0001-01-01"', '"2023-02-29T00:00:00Z"', '"2024-01-01T25:00:00Z"', '"01/02/2024"',
        '"2024-01-01T00:00:00é"', '"9999"', "true", "[]",
    )},
}
# These are kept as they came too.
READ_DATES = {
    "1704067200": (1_704_067_200 * MICROS, "2024-01-01"), "1704067200123": (1_704_067_200_123_000, "2024-01-01"),
    "1e9": (1_000_000_000 * MICROS, "2001-09-09"), '"1704067200"': (1_704_067_200 * MICROS, "2024-01-01"),
    '"Mon, 01 Jan 2024 00:00:00 GMT"': (1_704_067_200 * MICROS, "2024-01-01"),
}
DATES |= READ_DATES


def test_odd_dates_are_read_or_kept(in_turn, command, lake):
    def record(number, raw):
        fields = [*TIMES["conversations"]]
        times = ", ".join(f'"{field}": {raw}' for field in fields)
        return f'{{"conversation_id": "{number}", {times}, "messages": [{{"created_at": {raw}}}]}}'

    records = [record(number, raw) for number, raw in enumerate(DATES)]
    api = in_turn(raw_page(*records), raw_page(*records))
    result = json.loads(command("sync", api, "--json").stdout)
    assert result["outcome"] == "done" and result["landed_rows"]["messages"] == len(DATES)
    for again in range(2):
        conversations, messages = rows_by_id(lake, "conversations"), rows_by_id(lake, "messages")
        assert len(conversations) == len(messages) == len(DATES)
        for number, (raw, (micros, date)) in enumerate(DATES.items()):
            [row], [message] = conversations[str(number)], messages[str(number)]
            assert [row[field] for field in TIMES["conversations"]] == [micros] * 4 and message["created_at"] == micros
            assert str(row["created_date"]) == str(message["created_date"]) == str(date), raw
            fits_whole = micros is not None and raw not in READ_DATES
            kept = None if fits_whole else [f'"{field}":{raw}' for field in TIMES["conversations"]]
            assert row["extra"] == (kept and "{%s}" % ",".join(kept))
        watermark = instant(status(command)["watermark"])
        assert abs(time.time() - watermark.timestamp()) < 300, "not in the year 9999: nothing would ever come again"
        command("sync", api)
    assert command("status").stdout


def test_large_and_deep_records_are_kept(in_turn, command, lake):
    text = "".join(f"{n} “é👋🏽” " for n in range(330_000))
    assert len(text.encode()) > 5_000_000
    deep = '{"a":[' * 1_000 + "1.50" + "]}" * 1_000

    def numbered(count):
        return {f"field {n}": n for n in range(count)}

    records = [
        json.dumps(conversation("long", messages=[{"text": text}, {"text": "short"}]), ensure_ascii=False),
        json.dumps(conversation("long, escaped", messages=[{"text": text}])),
        f'{{"conversation_id": "deep", "metadata": {deep}, "other": {deep}, "notes": {deep}, '
        f'"messages": [{deep}, {{"other": {deep}}}], "tags": {deep}, "audit_logs": [{{"payload": {deep}}}]}}',
        json.dumps(conversation("wide", metadata=numbered(20_000), **numbered(5_000))),
        json.dumps(conversation("many", messages=[{"text": str(n)} for n in range(20_000)])),
    ]
    command("sync", in_turn(raw_page(*records)))
    conversations, messages = rows_by_id(lake, "conversations"), rows_by_id(lake, "messages")
    assert [row["text"] == want for row, want in zip(messages["long"], [text, "short"])] == [True, True]
    assert messages["long, escaped"][0]["text"] == text
    [row] = conversations["deep"]
    assert row["metadata"] == deep and row["extra"] == f'{{"other":{deep},"tags":{deep},"notes":{deep}}}'
    assert [row["extra"] for row in messages["deep"]] == [deep.replace(" ", ""), f'{{"other":{deep}}}']
    [row] = rows_by_id(lake, "audit_logs")["deep"]
    assert row["payload"] == deep
    [row] = conversations["wide"]
    assert len(json.loads(row["metadata"])) == 20_000 and json.loads(row["extra"])["field 4999"] == 4_999
    assert [row["text"] for row in messages["many"]] == [str(n) for n in range(20_000)]
    assert conversations["many"][0]["message_count"] == 20_000


def test_of_a_name_that_comes_twice_the_last_counts_and_unknown_ones_are_all_kept(in_turn, command, lake):
    twice = (
        '{"conversation_id": "x", "conversation_id": "a", "notes": "one", "other": 1, "notes": "two", "other": 2, '
        '"metadata": {"k": 1, "k": 2}, "messages": [{"text": "one"}], "messages": [{"text": "two", "text": "three"}]}'
    )
    command("sync", in_turn(raw_page(twice, '{"conversation_id": "b", "n\\u006ftes": "one", "notes": null}')))
    conversations, messages = rows_by_id(lake, "conversations"), rows_by_id(lake, "messages")
    assert set(conversations) == {"a", "b"} and set(messages) == {"a"}
    [row], [message] = conversations["a"], messages["a"]
    assert row["notes"] == "two" and message["text"] == "three" and row["message_count"] == 1
    assert row["metadata"] == '{"k": 1, "k": 2}' and row["extra"] == '{"other":1,"other":2}'
    assert conversations["b"][0]["notes"] is None


# -- malformed entries ------------------------------------------------------------------------------------------------


NO_ID, ODD_ID, NO_OBJECT = "no conversation_id", "conversation_id is not a usable id", "not a JSON object"
BAD = {
    "{}": NO_ID, '{"user_id": "u", "messages": [{"text": "\\ud83d"}]}': NO_ID, '{"conversation_id": null}': NO_ID,
    '{"Conversation_id": "a"}': NO_ID, '{"conversation_id": "a", "conversation_id": null}': NO_ID,
    '{"conversation_id": ""}': ODD_ID, '{"conversation_id": true}': ODD_ID, '{"conversation_id": {"id": "a"}}': ODD_ID,
    '{"conversation_id": ["a"]}': ODD_ID, '"what?"': NO_OBJECT, "null": NO_OBJECT, "17": NO_OBJECT, "[]": NO_OBJECT,
    '[{"conversation_id": "a"}]': NO_OBJECT, "true": NO_OBJECT,
}


def good(*own_ids):
    return [json.dumps(conversation(own_id)) for own_id in own_ids]


def quarantined_entries(lake):
    """The quarantined entries, oldest first."""
    files = sorted(Path(lake, "_state", "quarantine").glob("*"), key=lambda path: path.stat().st_mtime_ns)
    assert all(path.suffix == ".jsonl" for path in files)
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_every_malformed_entry_is_quarantined_with_its_place(in_turn, command, lake):
    half = len(BAD) // 2
    first, second = list(BAD)[:half], list(BAD)[half:]
    api = in_turn(
        raw_page(*good("a"), *first, *good("b"), cursor="1"), raw_page(*good("c"), cursor="2"),
        raw_page(*second, cursor="3"), raw_page(*good("d")),
    )
    done = command("sync", api, "--json", code=6)
    result = json.loads(done.stdout)
    assert result["outcome"] == "set_aside" and result["quarantined"] == len(BAD)
    assert f"{len(BAD)} malformed entries were quarantined" in done.stderr and f"{lake}/_state/quarantine" in done.stderr
    assert_exact(lake, [conversation(own_id) for own_id in "abcd"])
    lines = quarantined_entries(lake)
    assert [(line["raw"], line["reason"]) for line in lines] == list(BAD.items())
    assert [line["page"] for line in lines] == [1] * half + [3] * (len(BAD) - half)
    assert {line["run_id"] for line in lines} == {result["run_id"]}
    assert len({line["seq"] for line in lines}) == len(BAD)
    assert status(command)["unfinished"] == []

    result = json.loads(command("sync", api, "--json").stdout)
    assert result["quarantined"] == 0 and len(quarantined_entries(lake)) == len(BAD), "the next run has its own"


@pytest.mark.parametrize("name", ["sync", "export"])
def test_the_quarantine_of_an_interrupted_run_is_reported_by_the_one_that_completes_it(in_turn, command, lake, name):
    api = in_turn(
        raw_page(*good("a"), "{}", cursor="1"), (401, "{}"), raw_page(*good("b"), cursor="2"), (401, "{}"),
        raw_page(*good("c"), "[]"), raw_page(),
    )
    first = command(name, api, code=3)
    assert "401" in first.stderr and report(lake)["outcome"] == "failed" and len(quarantined_entries(lake)) == 1
    begun = report(lake)["run_id"]
    command(name, api, code=3)
    done = command(name, api, "--json", code=6)
    result = json.loads(done.stdout)
    assert result["resumed"] and result["outcome"] == "set_aside" and result["quarantined"] == 2
    assert "2 malformed entries were quarantined" in done.stderr, "its own, and those that no run has reported yet"
    lines = [(line["raw"], line["page"], line["run_id"]) for line in quarantined_entries(lake)]
    assert lines == [("{}", 1, begun), ("[]", 3, result["run_id"])]
    if name == "export":
        command("compact")
    assert_exact(lake, [conversation(own_id) for own_id in "abc"])
    assert json.loads(command(name, api, "--json").stdout)["quarantined"] == 0


def test_a_run_may_end_at_a_malformed_entry(account, command, lake):
    odd = '{"user_id": "whose?", "messages": []}'
    pages = [
        raw_page(*good("a"), cursor="1"), raw_page(*good("b"), cursor="2"),
        raw_page(*good("c"), odd, *good("d"), cursor="3"), raw_page(*good("e")),
    ]
    account.instead = lambda query: (200, pages[int(query.get("cursor", 0))])
    done = command("sync", account, "--on-bad-record", "fail", code=6)
    assert "page 3" in done.stderr and NO_ID in done.stderr and odd in done.stderr
    assert "--on-bad-record quarantine" in done.stderr
    assert report(lake)["outcome"] == "failed" and report(lake)["quarantined"] == 0
    assert not Path(lake, "_state", "quarantine").exists()
    assert status(command)["watermark"] is None and ids(lake) == ["a", "b"], "what came before is compacted"

    result = json.loads(command("sync", account, "--json", code=6).stdout)
    assert result["resumed"] and result["pages"] == 2 and result["outcome"] == "set_aside"
    assert account.asked[-2]["cursor"] == "2"
    assert [(line["raw"], line["page"]) for line in quarantined_entries(lake)] == [(odd, 3)]
    assert_exact(lake, [conversation(own_id) for own_id in "abcde"])


@pytest.mark.parametrize("odd", [odd for odd in BAD if len(odd) > 9])
def test_it_ends_so_on_the_first_page_too(in_turn, command, lake, odd):
    api = in_turn(raw_page(*good("a"), odd), raw_page(*good("a"), odd))
    done = command("export", api, "--on-bad-record", "fail", code=6)
    assert "page 1" in done.stderr and BAD[odd] in done.stderr and odd in done.stderr
    assert status(command)["landing"]["objects"] == 0
    command("sync", api, code=6)
    assert_exact(lake, [conversation("a")])


def test_an_entry_is_quoted_in_short_and_without_what_does_something_to_a_terminal(in_turn, command):
    odd = '{"notes": "\u202e\x7f' + "x" * 100_000 + '"}'
    done = command("sync", in_turn(raw_page(odd)), "--on-bad-record", "fail", code=6)
    assert len(done.stderr) < 2_000 and '{"notes": "' in done.stderr
    assert "\u202e" not in done.stderr and "\x7f" not in done.stderr


def test_a_run_that_ends_at_one_has_failed_even_if_others_were_quarantined(in_turn, command, lake):
    """An earlier run of the same walk has quarantined an entry; this one is set to fail instead."""
    api = in_turn(
        raw_page(*good("a"), "{}", cursor="1"), (401, "{}"), raw_page(*good("b"), cursor="2"), raw_page("[]"),
    )
    command("sync", api, code=3)
    done = command("sync", api, "--on-bad-record", "fail", "--json", code=6)
    assert "page 3" in done.stderr and len(quarantined_entries(lake)) == 1
    assert json.loads(done.stdout)["outcome"] == "failed", "it has not done what it was asked to"
    assert "sync done" not in done.stderr
    assert len(status(command)["unfinished"]) == 1


# -- pages that must not end the walk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name, more", [
    ("sync", []), ("backfill", ["--from", "2024-01-01", "--to", "2024-02-01", "--timestamp-filter", "created_at"]),
])
def test_a_bad_record_on_the_last_page_is_not_the_end_of_the_walk(in_turn, command, lake, name, more):
    last = raw_page(*good("b"), "{}")
    api = in_turn(raw_page(*good("a"), cursor="1"), last, last)
    command(name, api, *more, "--on-bad-record", "fail", code=6)
    [walk] = status(command)["unfinished"]
    assert walk["pages"] == 1 and status(command)["watermark"] is None
    command(name, api, *more, code=6)
    command("compact")
    assert {row["conversation_id"] for row in read_table(lake, "conversations")} == {"a", "b"}


def test_a_backfill_of_an_api_that_ignores_the_filter_is_not_complete(simulate, command):
    api = simulate("--conversations", 600, "--days", 10, "--ignore-filter")
    done = command("backfill", api, "--from", "2024-02-24", "--to", "2024-02-25", code=3)
    assert "ignores timestamp_filter" in done.stderr and "--timestamp-filter created_at" in done.stderr
    assert status(command)["timestamp_filter"] == "ignored" and status(command)["unfinished"] == []


def test_an_ignored_filter_is_detected_without_updated_at(simulate, command, lake):
    api = simulate("--conversations", 600, "--days", 10, "--ignore-filter", "--no-updated-at")
    command("sync", api)
    api.advance(days=1)
    assert "ignores timestamp_filter" in command("sync", api, code=3).stderr
    command("sync", api, "--on-ignored-filter", "full")
    assert_exact(lake, api.conversations())


def test_the_quarantine_of_a_killed_run_is_reported_by_the_next(in_turn, command, lake):
    """The run dies between the end of its export and its own end."""
    api = in_turn(raw_page(*good("a"), "{}"), raw_page())
    command("export", api, code=6)
    # The checkpoint as it was before a run reported the entries.
    newest = max(Path(lake, "_state", "checkpoints").iterdir())
    newest.unlink()
    command("compact")
    done = command("export", api, "--json", code=6)
    assert "1 malformed entry was quarantined" in done.stderr and json.loads(done.stdout)["outcome"] == "set_aside"
    command("export", api)
