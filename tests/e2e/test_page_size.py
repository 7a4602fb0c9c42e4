"""How many conversations a request asks for: whatever the API does with `page_size`, and whenever it changes its mind,
nothing is lost and no more requests are sent than that takes."""

import itertools
import json
import random
import signal
import subprocess

import pytest
from conftest import BINARY, KEY, PATIENCE_SECS, environment, page, run
from test_contract import account, conversation, ids, open_account, status, warnings
from truth import assert_exact

fixtures = (account, open_account)
MANY = ["--conversations", 2_500, "--days", 10, "--messages", 1]
CAPPED = ["--on-page-size", "cap", "--largest-page"]


def synced(command, api, *arguments, **options):
    return json.loads(command("sync", api, "--json", *arguments, **options).stdout)


def minutes(count):
    return [conversation(f"c{n:04}", updated_at=f"2024-01-{2 + n // 1440:02} {n // 60 % 24:02}:{n % 60:02}:00")
            for n in range(count)]


def opaque(account):
    """The account's cursors do not look like numbers."""
    sound = account.page

    def paged(query):
        told = json.loads(sound({**query, "cursor": query.get("cursor", "at 0").removeprefix("at ")}))
        return json.dumps({**told, "next_cursor": told["next_cursor"] and f"at {told['next_cursor']}"})

    account.page = paged


def too_large(above):
    """Answers that are larger than 100 kB if more is asked for, or the parameter is not sent."""
    return lambda query, size: (200, "x" * 200_000) if (size or 10**9) > above else None


@pytest.fixture
def sized(account):
    """An account with opaque cursors and large pages, whose answers may depend on the size that was asked for."""
    account.page_size = 1_000
    opaque(account)
    sound = account.page
    account.page = lambda query: sound({**query, "page_size": account.sizes[-1] or 100})

    def start(conversations, answer):
        account.conversations = minutes(conversations)
        account.instead = lambda query: answer(query, account.sizes[-1])
        return account

    return start


# -- what an API may do with it ---------------------------------------------------------------------------------------


def test_an_api_that_honors_it_is_asked_for_a_tenth_of_the_pages(simulate, command, lake):
    api = simulate(*MANY, "--on-page-size", "honor")
    told = synced(command, api)
    assert (told["pages"], told["requests"], told["retries"], told["page_size"]) == (3, 3, 0, 1_000)
    assert_exact(lake, api.conversations())
    api.advance(hours=20)
    command("backfill", api, "--from", "2024-02-01", "--to", "2024-03-03")
    assert set(api.page_sizes()) == {1_000}
    synced(command, api)
    assert_exact(lake, api.conversations())


def test_an_api_that_caps_it_is_asked_for_more_than_it_returns(simulate, command, lake):
    api = simulate(*MANY, *CAPPED, 350)
    told = synced(command, api)
    assert (told["pages"], told["requests"], told["retries"], told["page_size"]) == (8, 8, 0, 1_000)
    assert_exact(lake, api.conversations())


def test_an_api_that_ignores_it_costs_nothing(simulate, command, lake):
    api = simulate(*MANY, "--on-page-size", "ignore")
    done = command("sync", api, "--json")
    told = json.loads(done.stdout)
    # One request more than there are pages, because the last one is full.
    assert (told["pages"], told["retries"]) == (25, 0) and told["requests"] <= 26 and not warnings(done)
    assert_exact(lake, api.conversations())


@pytest.mark.parametrize("refusal", ["refuse-400", "refuse-422"])
def test_an_api_that_refuses_it_costs_one_request_once(simulate, command, lake, refusal):
    api = simulate(*MANY, "--on-page-size", refusal)
    done = command("sync", api, "--json")
    told = json.loads(done.stdout)
    assert (told["pages"], told["retries"], told["page_size"], told["restarted_walks"]) == (25, 1, None, 0)
    assert not warnings(done) and "without page_size" in done.stderr
    assert_exact(lake, api.conversations())
    api.advance(hours=20)
    assert synced(command, api)["retries"] == 0 and api.page_sizes()[1:] == [None] * (len(api.page_sizes()) - 1)
    assert_exact(lake, api.conversations())


def test_it_is_refused_also_if_a_request_is_tried_only_once(simulate, command, lake):
    api = simulate(*MANY, "--on-page-size", "refuse-422")
    synced(command, api, "--max-tries", 1)
    assert_exact(lake, api.conversations())


def test_a_refusal_of_something_else_is_reported_and_teaches_nothing(sized, command):
    account = sized(10, lambda query, size: (422, '{"detail": "user_filters"}'))
    done = command("sync", account, code=3)
    assert "user_filters" in done.stderr and account.sizes == [1_000, None]
    account.instead = lambda query: None
    command("sync", account)
    assert account.sizes[2:] == [1_000]


@pytest.mark.parametrize("asked, sent", [("none", None), (70, 70), (1_500, 1_500)], ids=str)
def test_a_number_and_none_are_sent_unchanged(sized, command, lake, asked, sent):
    account = sized(500, lambda query, size: None)
    told = synced(command, account, "--page-size", asked)
    assert set(account.sizes) == {sent} and told["page_size"] == sent
    assert_exact(lake, account.conversations)
    account.instead = lambda query: (422, "{}")
    account.sizes.clear()
    command("sync", account, "--page-size", asked, code=3)
    assert account.sizes == [sent]


# -- smaller pages ----------------------------------------------------------------------------------------------------


def test_a_slow_api_is_asked_for_less_which_the_next_run_knows(simulate, command, lake):
    """Pages of 1,000 and 500 take longer than --timeout."""
    api = simulate("--conversations", 1_200, "--days", 10, "--messages", 1, "--on-page-size", "honor",
                   "--millis-per-conversation", 6)
    done = command("sync", api, "--json", "--timeout", "2s")
    told = json.loads(done.stdout)
    assert api.page_sizes()[:3] == [1_000, 500, 250] and told["retries"] >= 2
    assert "trying again with pages of 500" in done.stderr
    assert_exact(lake, api.conversations())
    api.advance(hours=20)
    before = len(api.page_sizes())
    synced(command, api, "--timeout", "2s")
    assert api.page_sizes()[before] <= 250
    assert_exact(lake, api.conversations())


@pytest.mark.parametrize("status", [408, 500, 503, 504])
def test_pages_that_fail_are_halved_and_grow_again_slowly(sized, command, lake, status):
    account = sized(2_000, lambda query, size: (status, "too much") if size > 500 else None)
    told = synced(command, account)
    # Eight pages of 500 are more than there are.
    assert account.sizes == [1_000, 500, 500, 500, 500, *account.sizes[5:]] and told["retries"] == 1
    assert {*account.sizes[5:]} <= {500}
    assert_exact(lake, account.conversations)
    fetched = len(account.sizes)
    for _ in range(6):
        synced(command, account)
    assert account.sizes[fetched] == 500 and 1_000 in account.sizes[fetched:], "it is tried again by a later run"


def test_what_is_no_matter_of_size_leaves_it_as_it_is(sized, command, lake):
    answers = iter([(429, "slow down"), (200, "<html>"), None, (425, "early"), None])
    account = sized(1_500, lambda query, size: next(answers, None))
    synced(command, account)
    assert set(account.sizes) == {1_000}
    assert_exact(lake, account.conversations)


def test_pages_that_are_too_large_to_read_are_halved_without_a_pause(sized, command, lake):
    account = sized(900, too_large(70))
    told = synced(command, account, "--max-response-bytes", "100KB")
    assert account.sizes[:6] == [1_000, 500, 250, 125, 62, 62] and told["retries"] >= 4
    assert_exact(lake, account.conversations)


def test_what_a_failed_run_learned_is_kept(sized, command, lake):
    account = sized(900, too_large(300))
    limits = ["--max-response-bytes", "100KB", "--max-tries", 1]
    for size in (1_000, 500):
        done = command("sync", account, *limits, code=3)
        assert account.sizes[-1] == size and "--max-response-bytes" in done.stderr
    synced(command, account, *limits)
    assert account.sizes[2] == 250
    assert_exact(lake, account.conversations)


def test_the_number_of_tries_bounds_the_halvings_too(sized, command):
    account = sized(900, too_large(0))
    command("sync", account, "--max-response-bytes", "100KB", "--max-tries", 3, code=3)
    assert account.sizes == [1_000, 500, 250]


def test_an_api_that_fails_because_of_the_parameter_is_asked_without_it(sized, command, lake):
    account = sized(900, lambda query, size: (413, "no") if size and size > 30 else (500, "no") if size else None)
    synced(command, account)
    first = [1_000, 500, 250, 125, 62, 31, 25, None]
    assert account.sizes[:8] == first and account.sizes[8:10] == [25, None], "twice, because once may be an outage"
    assert set(account.sizes[10:]) == {None}
    assert_exact(lake, account.conversations)


def test_a_second_with_more_than_a_small_page_holds_is_passed_with_a_larger_one(account, command, lake):
    account.cursor_is_a_second, account.page_size = True, 1_000
    account.conversations = [conversation(f"{second} {n}", updated_at=f"2024-01-02 10:00:0{second}")
                             for second in range(5) for n in range(90)]
    sound = account.page
    account.page = lambda query: sound({**query, "page_size": account.sizes[-1] or 100})
    account.instead = lambda query: (200, "x" * 200_000) if len(account.asked) < 7 else None
    synced(command, account, "--max-response-bytes", "100KB")
    assert account.sizes[6] == 25 and len(account.sizes) < 40
    assert_exact(lake, account.conversations)


def test_a_cursor_that_counts_pages_gets_no_larger_pages(account, command, lake):
    """Page 3 of 500 conversations each begins elsewhere than page 3 of 1,000."""
    account.conversations = minutes(5_900)
    ordered = sorted(account.conversations, key=lambda one: one["updated_at"])

    def numbered(query):
        size, number = account.sizes[-1] or 100, int(query.get("cursor", 1))
        more = number * size < len(ordered)
        return page(*ordered[(number - 1) * size:number * size], cursor=str(number + 1) if more else None)

    account.page = numbered
    account.instead = lambda query: (200, "x" * 9_000_000) if len(account.asked) == 3 else None
    told = synced(command, account, "--max-response-bytes", "8MB", "--flush-conversations", 1)
    assert account.sizes[:4] == [1_000, 1_000, 1_000, 500] and set(account.sizes[3:]) == {500}
    assert told["pages"] == 12 and len(ids(lake)) == 5_900
    assert_exact(lake, account.conversations)


# -- a change of mind -------------------------------------------------------------------------------------------------


# How many pages a walk over 6,500 conversations has.
MODES = {"honor": 7, "cap": 7, "ignore": 65, "refuse-422": 65, "refuse-400": 65}
CHANGES = [("honor", "refuse-422"), ("honor", "ignore"), ("ignore", "honor"), ("ignore", "refuse-400"), ("cap", "refuse-400"),
           ("refuse-422", "honor"), ("refuse-400", "ignore")]


@pytest.mark.parametrize("one, then", CHANGES, ids=str)
def test_a_change_of_mind_in_a_walk_that_is_killed_loses_nothing(simulate, command, lake, one, then):
    """The API changes its mind after four requests, and the run is killed two requests later."""
    api = simulate("--conversations", 6_500, "--days", 30, "--messages", 1, "--on-page-size", one,
                   "--then-on-page-size", then, "--then-after", 4)
    api.hold(after=6)
    process = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0", "--flush-conversations", "1"],
        stderr=subprocess.DEVNULL, env=environment(DECAGON_API_KEY=KEY),
    )
    api.wait_for(7, process)
    process.kill()
    assert process.wait(timeout=PATIENCE_SECS) == -signal.SIGKILL
    api.release()
    told = synced(command, api)
    assert told["restarted_walks"] == 0 and told["retries"] <= 1
    # At most the six pages and the held request that were lost with the run, a refusal, and a question after a full last
    # page. On a slow disk the run may have committed none of its pages.
    assert len(api.page_sizes()) <= max(MODES[one], MODES[then]) + 9
    assert_exact(lake, api.conversations())
    command("verify")


ODD = ["as asked", "fewer", "more", "the usual", "too large", "refused", "empty"]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_it_does_each_time_nothing_is_lost_and_it_ends(sized, command, lake, seed):
    draw = random.Random(seed)
    turns = draw.choices(ODD, weights=[draw.random() for _ in ODD], k=40)

    def answer(query, size):
        turn, account.sizes[-1] = turns.pop() if turns else "as asked", size or 100
        turn = "as asked" if turn == "refused" and size is None else turn
        match turn:
            case "fewer":
                account.sizes[-1] = max(1, (size or 100) // draw.randint(2, 9))
            case "more":
                account.sizes[-1] = 999
            case "the usual":
                account.sizes[-1] = 100
            case "too large":
                return 200, "x" * 3_000_000
            case "refused":
                return draw.choice([400, 422]), "no"
            case "empty":
                begin = query.get("cursor", "at 0").split("+")[0]
                return 200, page(cursor=f"{begin}+{len(turns)}")

    account = sized(3_000, answer)
    sound = account.page
    account.page = lambda query: sound({**query, "cursor": query.get("cursor", "at 0").split("+")[0]})
    for _ in range(20):
        done = subprocess.run(
            [BINARY, "sync", "--lake", lake, "--base-url", account.url, "--requests-per-second", "0", "--max-tries", "3",
             "--max-response-bytes", "2MB", "--flush-conversations", "1"],
            capture_output=True, text=True, env=environment(DECAGON_API_KEY=KEY),
        )
        assert done.returncode in (0, 3), done.stderr
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert len(account.asked) < 300 and status(command)["watermark"]
    assert_exact(lake, account.conversations)


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode, told, requests", [
    (["--on-page-size", "honor"], "it returns 1000 conversations per request, as page_size asks for", 1),
    ([*CAPPED, 300], "it returns 300 conversations per request, although page_size asks for 1000", 1),
    (["--on-page-size", "ignore"], "it returns 100 conversations per request, although page_size asks for 1000", 1),
    (["--on-page-size", "refuse-422"],
     "it refuses page_size 1000, and returns 100 conversations per request without it", 2),
], ids=str)
def test_check_says_what_the_api_does_with_it(simulate, lake, mode, told, requests):
    api = simulate(*MANY, *mode)
    asked = ["check", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0]
    assert f"ok       the API accepts the key; {told}\n" in run(*asked).stdout
    assert api.gaps()[0] == requests
    [of_api] = [one for one in json.loads(run(*asked, "--json").stdout) if one["check"] == "api"]
    assert of_api["note"] == told and of_api["outcome"] == "ok"
    assert "accepts the key\n" in run(*asked, "--page-size", "none").stdout
    assert api.page_sizes()[-1] is None


def test_check_says_nothing_about_an_account_that_has_few(simulate, lake):
    api = simulate("--conversations", 50)
    assert "accepts the key\n" in run("check", "--lake", lake, "--base-url", api.url).stdout


def test_a_last_page_is_full_by_what_was_asked_and_what_usually_came(sized, command, lake):
    """After a change of the size, a page is full that is as large as those since."""
    account = sized(0, lambda query, size: None)
    rows = [conversation(f"c{n:04}", updated_at=f"2024-01-02 {n // 60 % 24:02}:{n % 60:02}:00") for n in range(1_180)]
    pages = [(900, None), (0, "large"), (140, None), (140, "last")]
    left = iter(pages)
    given = iter(rows)

    def answer(query, size):
        count, kind = next(left, (0, None))
        if kind == "large":
            return 200, "x" * 900_000
        told = page(*itertools.islice(given, count), cursor=None if kind == "last" else f"at {count}, {size}")
        return 200, told if count else page()

    account.instead = lambda query: answer(query, account.sizes[-1])
    told = synced(command, account, "--max-response-bytes", "800KB")
    assert account.sizes == [1_000, 1_000, 450, 450, 450]
    assert told["full_pages_without_cursor"] == 1, "140 of 450, as the one before"
