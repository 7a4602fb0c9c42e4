"""A misbehaving API is survived or refused: failures, limits, redirects, the key's secrecy, and a disk that is full."""

import gzip
import json
import math
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import BINARY, JITTER, KEY, PATIENCE_SECS, environment, run
from truth import assert_exact

MB = 1_000_000
# Clocks are read one after the other.
TOLERANCE = 0.01
# The longest delay that a busy machine adds.
BUSY_SECS = 10
WITHOUT_PROXY = {name: "" for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")}


# -- a server that misbehaves -----------------------------------------------------------------------------------------


class Misbehaving:
    """Answers each request on a raw socket with the next of its behaviours, then always with the last one.

    A behaviour is called with the server and the connection, which stays open for the next request unless it closes it.
    """

    def __init__(self, behaviours, host="127.0.0.1"):
        self.left = list(behaviours)
        self.times, self.asked, self.waits = [], [], []
        self.was_asked, self.released, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.sent, self.sent_all = 0, False
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.stopped.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.attend, args=(connection,), daemon=True).start()

    def attend(self, connection):
        try:
            while request := connection.recv(65_536):
                arrived = time.monotonic()
                while not request.endswith(b"\r\n\r\n"):
                    request += connection.recv(65_536) or b"\r\n\r\n"
                self.times.append(arrived)
                self.asked.append(request.decode())
                self.waits.append(0)
                behave = self.left.pop(0) if len(self.left) > 1 else self.left[0]
                self.was_asked.set()
                behave(self, connection)
        except OSError:
            pass  # the client has hung up, or the behaviour has
        finally:
            connection.close()

    def gaps(self):
        """The seconds between the requests."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:])]

    def stop(self):
        self.stopped.set()
        self.released.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.fixture
def misbehave():
    """Starts servers with lists of behaviours; they end with the test."""
    servers = []

    def start(behaviours, host="127.0.0.1"):
        servers.append(Misbehaving(behaviours, host))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def head(status, *headers):
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def answer(status, body, *headers):
    """A whole response."""
    body = body if isinstance(body, bytes) else body.encode()
    response = head(status, f"Content-Length: {len(body)}", *headers) + body
    return lambda server, connection: connection.sendall(response)


def cut(*parts):
    """These bytes, and then the connection is closed."""

    def behave(server, connection):
        connection.sendall(b"".join(parts))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    return behave


def reset(server, connection):
    """The connection is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(*parts):
    """These bytes, and then nothing more for as long as the test takes."""

    def behave(server, connection):
        connection.sendall(b"".join(parts))
        server.stopped.wait()

    return behave


def hold(behave):
    """Behaves so once the test lets it."""

    def wait(server, connection):
        server.released.wait()
        behave(server, connection)

    return wait


def retry_after(secs, as_date=False, cut_short=False, status="429 Too Many Requests"):
    """Asks the client to wait for a while; the server records for how long."""

    def behave(server, connection):
        # A date has whole seconds.
        until = math.ceil(time.time() + secs)
        server.waits[-1] = until - time.time() if as_date else secs
        value = formatdate(until, usegmt=True) if as_date else str(secs)
        if cut_short:
            respond = cut(head(status, f"Retry-After: {value}", "Content-Length: 99"), b"slow")
        else:
            respond = answer(status, SLOW_DOWN, f"Retry-After: {value}")
        respond(server, connection)

    return behave


def stream(headers, first, block, times, chunked=False):
    """`first` and then `block` so many times, unless the client hangs up before."""

    def framed(part):
        return b"%x\r\n%s\r\n" % (len(part), part) if chunked else part

    def behave(server, connection):
        connection.sendall(head("200 OK", *headers, *(["Transfer-Encoding: chunked"] if chunked else [])))
        connection.sendall(framed(first))
        for _ in range(times):
            connection.sendall(framed(block))
            server.sent += len(block)
        server.sent_all = True
        connection.close()

    return behave


# -- what it serves ---------------------------------------------------------------------------------------------------


def conversation(own_id):
    message = {"role": "USER", "text": f"I am {own_id}", "created_at": "2024-01-01 10:00:00"}
    return {"conversation_id": own_id, "created_at": "2024-01-01 10:00:00", "messages": [message], "tags": []}


def page(*own_ids, cursor=None):
    return json.dumps({"conversations": [conversation(own_id) for own_id in own_ids], "next_cursor": cursor})


def good(*own_ids, cursor=None):
    return answer("200 OK", page(*own_ids, cursor=cursor), "Content-Type: application/json")


SLOW_DOWN = '{"detail": "slow down please"}'
HTML = "<html>\r\n<body><h1>It is not you, it is us</h1></body></html>"
WHOLE = page("c").encode()
FIRST_CHUNK = b"%x\r\n%s\r\n" % (len(WHOLE) // 2, WHOLE[: len(WHOLE) // 2])

# Failures that pass, and the words that must describe them.
FAILURES = {
    "429 with seconds": (retry_after(2), ["429 Too Many Requests", "slow down please"]),
    "429 with a date": (retry_after(2, as_date=True), ["429 Too Many Requests", "slow down please"]),
    "429 without": (answer("429 Too Many Requests", SLOW_DOWN), ["429 Too Many Requests", "slow down please"]),
    "500": (answer("500 Internal Server Error", HTML), ["500 Internal Server Error", "it is us"]),
    "502": (answer("502 Bad Gateway", HTML), ["502 Bad Gateway", "it is us"]),
    "503": (answer("503 Service Unavailable", HTML), ["503 Service Unavailable", "it is us"]),
    "503 with seconds": (retry_after(2, status="503 Service Unavailable"), ["503 Service Unavailable"]),
    "no answer": (hang(), ["timed out"]),
    "reset": (reset, ["reset"]),
    "closed": (cut(), ["connection closed"]),
    "headers cut": (cut(b"HTTP/1.1 200 OK\r\nContent-Ty"), ["connection closed"]),
    "body cut": (cut(head("200 OK", f"Content-Length: {len(WHOLE) + 9}"), WHOLE), ["end of file"]),
    "body stopped": (hang(head("200 OK", f"Content-Length: {len(WHOLE)}"), WHOLE[:40]), ["timed out"]),
    "chunk cut": (cut(head("200 OK", "Transfer-Encoding: chunked"), FIRST_CHUNK[:-9]), ["end of file"]),
    "chunks cut": (cut(head("200 OK", "Transfer-Encoding: chunked"), FIRST_CHUNK), ["EOF"]),
    "gzip cut": (answer("200 OK", gzip.compress(WHOLE)[:-9], "Content-Encoding: gzip"), ["end of file"]),
    "200 with HTML": (answer("200 OK", HTML), ["200 OK", "not a JSON object", "it is us"]),
    "200 cut": (answer("200 OK", WHOLE[:40]), ["200 OK", "not a JSON object", "EOF"]),
    "200 empty": (answer("200 OK", ""), ["200 OK", "not a JSON object", "empty"]),
}
# Similar to others, so tests in which each takes long leave them out.
ALIKE = {"503 with seconds", "body stopped", "chunk cut", "gzip cut", "200 empty"}


def between(failure):
    """A failure between two pages, on the connection that the first came through."""
    return [good("a", "b", cursor="1"), failure, good("c")]


REFUSALS = {
    "401 Unauthorized": ("does not accept the API key", "DECAGON_API_KEY"),
    "403 Forbidden": ("forbids the export", "entitlement"),
    "400 Bad Request": ("refuses a parameter", "--user-filters"),
    "422 Unprocessable Entity": ("refuses a parameter", "--user-filters"),
}
ALWAYS_503 = [answer("503 Service Unavailable", HTML)]

# Runs that mostly wait: behaviours, arguments and exit code.
SCENARIOS = {
    **{
        f"then good: {name}": (between(failure), ["--timeout", "5s"] if words == ["timed out"] else [], 0)
        for name, (failure, words) in FAILURES.items()
    },
    "a 429 that is cut": (between(retry_after(3, cut_short=True)), [], 0),
    "a slow pace": (between(ALWAYS_503[0]), ["--requests-per-second", "0.1"], 0),
    "a turn that is waited for": (
        between(ALWAYS_503[0]), ["--requests-per-second", "0.15", "--max-retry-time", "12s"], 0,
    ),
    **{
        f"{status}, {name}": (
            [end(head(status, "Content-Length: 999"), b"no, and I will tell you why:")],
            ["--max-tries", "2", "--timeout", "5s"], 3,
        )
        for status in REFUSALS for name, end in (("cut", cut), ("stopped", hang))
    },
    "3 tries: 503": (ALWAYS_503, ["--max-tries", "3"], 4),
    "2 tries: 429": ([retry_after(1)], ["--max-tries", "2"], 4),
    "2 tries: reset": ([reset], ["--max-tries", "2"], 4),
    "2 tries: no answer": ([hang()], ["--max-tries", "2", "--timeout", "1s"], 4),
    "2 tries: headers cut": ([FAILURES["headers cut"][0]], ["--max-tries", "2"], 4),
    "2 tries: body cut": ([FAILURES["body cut"][0]], ["--max-tries", "2"], 4),
    "2 tries: 200 with HTML": ([FAILURES["200 with HTML"][0]], ["--max-tries", "2"], 3),
    "1 tries: 503": (ALWAYS_503, ["--max-tries", "1"], 4),
    "12 s: 503": (ALWAYS_503, ["--max-retry-time", "12s"], 4),
    "12 s: no answer": ([hang()], ["--max-retry-time", "12s", "--timeout", "1s"], 4),
    "3 s: 503 at a slow pace": (ALWAYS_503, ["--max-retry-time", "3s", "--requests-per-second", "0.05"], 4),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs of `SCENARIOS` by name: all start at once, and each test waits for its own."""
    servers, folder = [], tmp_path_factory.mktemp("lakes")

    def go(name):
        behaviours, arguments, code = SCENARIOS[name]
        server, lake = Misbehaving(behaviours), folder / name.replace(" ", "-")
        servers.append(server)
        began = time.monotonic()
        done = run("sync", "--lake", lake, "--base-url", server.url, "--requests-per-second", 0, "--log-format", "json",
                   "--json", *arguments, code=code)
        took = time.monotonic() - began
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        warnings, errors = ([line for line in lines if line["level"] == level] for level in ("WARN", "ERROR"))
        return SimpleNamespace(done=done, server=server, lake=lake, took=took, warnings=warnings, errors=errors)

    with ThreadPoolExecutor(max_workers=16) as pool:
        begun = {name: pool.submit(go, name) for name in SCENARIOS}
        yield lambda name: begun[name].result()
    for server in servers:
        server.stop()


# -- failures that pass -----------------------------------------------------------------------------------------------


def test_all_failures_in_a_row_lose_nothing_and_keep_the_pace(misbehave, lake):
    behaviours, names = [], [name for name in FAILURES if name not in ALIKE]
    for name in names[:-1]:
        behaviours += [FAILURES[name][0], good(f"{name}, one", f"{name}, two", cursor=name)]
    api = misbehave([*behaviours, FAILURES[names[-1]][0], good("the last")])
    done = run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 2, "--timeout", "5s", "--json")
    own_ids = [f"{name}, {number}" for name in names[:-1] for number in ("one", "two")]
    assert_exact(lake, map(conversation, [*own_ids, "the last"]))
    result = json.loads(done.stdout)
    assert result["requests"] == len(api.times) == 2 * len(names) and result["retries"] == len(names)
    assert done.stderr.count("trying again") == done.stderr.count("next_try_in_secs=") == len(names)
    assert min(api.gaps()) >= 0.5 - JITTER
    assert sum(wait > 0 for wait in api.waits) == 2
    assert all(gap >= wait for gap, wait in zip(api.gaps(), api.waits)), "the server said when"


@pytest.mark.parametrize("name", FAILURES)
def test_a_passing_failure_is_logged_and_tried_again(ran, name):
    it = ran(f"then good: {name}")
    assert_exact(it.lake, map(conversation, "abc"))
    result = json.loads(it.done.stdout)
    assert result["requests"] == len(it.server.times) == 3 and result["retries"] == 1 and result["pages"] == 2
    first, failed, again = (re.sub(r"&page_size=\d+", "", request.split("\r\n")[0]) for request in it.server.asked)
    assert "cursor=1" in failed and again == failed != first, "the same is asked for again"

    [warning] = it.warnings
    for words in FAILURES[name][1]:
        assert words in warning["message"]
    assert it.server.url in warning["message"] and "trying again" in warning["message"] and warning["attempt"] == 1
    timed_out, late = (5, JITTER) if "timed out" in warning["message"] else (0, TOLERANCE)
    gap = it.server.gaps()[1] - timed_out
    assert warning["next_try_in_secs"] - late <= gap <= warning["next_try_in_secs"] + BUSY_SECS, "when it said"
    assert warning["next_try_in_secs"] >= 0.5, "not at once"
    assert it.server.gaps()[1] >= it.server.waits[1], "not before the server wants it"


def test_a_server_that_closes_every_connection_needs_no_second_try(misbehave, lake):
    def closing(body):
        return cut(head("200 OK", f"Content-Length: {len(body)}"), body.encode())

    pages = [page(f"one of {number}", f"two of {number}", cursor=number) for number in range(1, 9)]
    api = misbehave(map(closing, [*pages, page("the last")]))
    done = run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 20, "--json")
    assert json.loads(done.stdout)["requests"] == len(api.times) == 9 and "WARN" not in done.stderr
    assert sum(api.gaps()) >= 8 * 0.05 - JITTER
    own_ids = [f"{which} of {number}" for number in range(1, 9) for which in ("one", "two")]
    assert_exact(lake, map(conversation, [*own_ids, "the last"]))


def test_a_wish_to_be_left_alone_counts_although_the_response_is_cut(ran):
    it = ran("a 429 that is cut")
    assert_exact(it.lake, map(conversation, "abc"))
    assert it.server.gaps()[1] >= 3, "the headers had come"


def test_the_next_try_is_announced_for_when_the_pace_allows_it(ran):
    it = ran("a slow pace")
    [warning] = it.warnings
    assert it.server.gaps()[1] >= 10 - JITTER
    assert warning["next_try_in_secs"] > 2, "longer than the failure alone would have it wait"


# -- caps on tries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SCENARIOS if " tries: " in name])
def test_a_request_is_tried_so_many_times_and_no_more(ran, name):
    it = ran(name)
    tries = int(name.split()[0])
    assert len(it.server.times) == tries and len(it.warnings) == tries - 1
    assert [warning["attempt"] for warning in it.warnings] == list(range(1, tries))
    [error] = it.errors
    assert f"gave up after {tries} tr" in error["message"] and it.server.url in error["message"]
    assert "--max-retry-time" not in error["message"], "that was not the reason"
    _, words = FAILURES.get(name.split(": ")[1], (None, ["429"]))
    assert all(word in error["message"] for word in words), "what happened last"
    assert json.loads(it.done.stdout)["outcome"] == "failed"


@pytest.mark.parametrize("name", [name for name in SCENARIOS if " s: " in name])
def test_a_request_is_tried_for_so_long_and_no_longer(ran, name):
    it = ran(name)
    most = int(name.split()[0])
    assert it.server.times[-1] - it.server.times[0] <= most + JITTER
    assert it.took < most + BUSY_SECS
    assert len(it.server.times) == len(it.warnings) + 1
    assert len(it.server.times) >= 2 or "pace" in name, "there was time for another"
    [error] = it.errors
    assert "gave up after" in error["message"] and it.server.url in error["message"]


def test_the_time_for_tries_begins_with_the_first(ran):
    it = ran("a turn that is waited for")
    assert_exact(it.lake, map(conversation, "abc"))


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_a_wish_to_wait_longer_than_is_allowed_ends_the_run_at_once(misbehave, lake, as_date):
    api = misbehave([retry_after(3_600, as_date=as_date)])
    began = time.monotonic()
    done = run("sync", "--lake", lake, "--base-url", api.url, "--max-retry-time", "3s", code=4)
    assert time.monotonic() - began < BUSY_SECS and len(api.times) == 1
    assert "--max-retry-time" in done.stderr and "slow down please" in done.stderr and "trying again" not in done.stderr
    assert any(f"wait {secs} s" in done.stderr for secs in range(3_601 - BUSY_SECS, 3_602))


# -- refusals ---------------------------------------------------------------------------------------------------------


def requests_until_refused(api, status):
    """Whether the server was asked once, or once more without page_size if that may be the parameter that it refuses."""
    sizes = ["page_size=" in request for request in api.asked]
    return sizes == ([True, False] if status[:3] in ("400", "422") else [True])


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_not_retried_and_is_reported_briefly(misbehave, lake, status):
    api = misbehave([answer(status, '{"detail": "these are the words of the server", "trace": "' + "x" * 100_000)])
    done = run("sync", "--lake", lake, "--base-url", api.url, code=3)
    assert requests_until_refused(api, status)
    assert "trying again" not in done.stderr and "gave up" not in done.stderr
    assert status in done.stderr and "these are the words of the server" in done.stderr
    assert all(words in done.stderr for words in REFUSALS[status])
    others = {hint for hint, _ in REFUSALS.values()} - {REFUSALS[status][0]}
    assert not any(words in done.stderr for words in others)
    assert len(done.stderr) < 2_000


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable"])
@pytest.mark.parametrize("body", ["<html>the words of the server", '{"data": "the words of the server", "more": "'])
def test_no_long_body_is_printed_in_full(misbehave, lake, status, body):
    api = misbehave([answer(status, f'{body}{"x" * 100_000}"}}')])
    done = run("sync", "--lake", lake, "--base-url", api.url, "--max-tries", 1, code=3 if status == "200 OK" else 4)
    assert "the words of the server" in done.stderr and len(done.stderr) < 2_000


@pytest.mark.parametrize("end", ["cut", "stopped"])
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_is_one_although_its_body_does_not_end(ran, status, end):
    it = ran(f"{status}, {end}")
    assert requests_until_refused(it.server, status) and REFUSALS[status][0] in it.done.stderr


# -- limits -----------------------------------------------------------------------------------------------------------


def measured(tmp_path, *arguments):
    """Runs the binary; gives its exit code, its stderr and the most memory it took.

    A small process of its own starts it: a process starts out with the peak of the one it was forked from.
    """
    starter = """if True:
        import os, pathlib, subprocess, sys
        child = subprocess.Popen(sys.argv[2:])
        _, status, usage = os.wait4(child.pid, 0)
        pathlib.Path(sys.argv[1]).write_text(str(usage.ru_maxrss * 1024))
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", starter, tmp_path / "peak", BINARY, *map(str, arguments)], capture_output=True,
        text=True, timeout=300, env=environment(DECAGON_API_KEY=KEY),
    )
    return done.returncode, done.stderr, int((tmp_path / "peak").read_text())


def bomb(filling):
    """The beginning of a page in gzip, and a megabyte that can follow it any number of times, packed to a kilobyte."""
    packer = zlib.compressobj(9, wbits=31)
    first = packer.compress(BEGINNING) + packer.flush(zlib.Z_FULL_FLUSH)
    packer.compress(filling * MB)
    packer.flush(zlib.Z_FULL_FLUSH)
    return first, packer.compress(filling * MB) + packer.flush(zlib.Z_FULL_FLUSH)


BEGINNING = b'{"conversations": [{"conversation_id": "a", "notes": "'
GZIP = "Content-Encoding: gzip"
ZEROS, SPACES = bomb(b"\0"), bomb(b" ")
TOO_LARGE = {
    "announced": (stream([f"Content-Length: {len(BEGINNING) + 320 * MB}"], BEGINNING, b"x" * MB, 320), 320),
    "in chunks": (stream([], BEGINNING, b"x" * MB, 320, chunked=True), 320),
    "until the end": (stream(["Connection: close"], BEGINNING, b"x" * MB, 320), 320),
    # So much that no buffer between here and there takes all of it: 20 GB, packed to 20 MB.
    "a bomb of zeros": (stream([GZIP], *ZEROS, 20_000, chunked=True), 20_000),
    "a bomb of spaces": (stream([GZIP], *SPACES, 20_000, chunked=True), 20_000),
    "an announced bomb": (stream([GZIP, "Content-Length: 9999999"], *SPACES, 20_000), 20_000),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_response_that_is_too_large_is_left_and_takes_no_memory(misbehave, lake, tmp_path, name):
    behave, blocks = TOO_LARGE[name]
    api = misbehave([behave])
    limits = ["--max-response-bytes", "10MB", "--page-size", "none"]
    code, output, peak = measured(tmp_path, "sync", "--lake", lake, "--base-url", api.url, *limits)
    assert code == 3 and "--max-response-bytes" in output
    assert len(api.times) == 1
    assert peak < 100 * MB, f"{peak / MB} MB"
    assert blocks >= 300 and not api.sent_all, "it hung up long before the end"


def test_the_limit_by_default_holds_for_a_bomb(misbehave, lake, tmp_path):
    api = misbehave([stream([GZIP], *SPACES, 20_000, chunked=True)])
    code, output, peak = measured(tmp_path, "sync", "--lake", lake, "--base-url", api.url, "--page-size", "none")
    assert code == 3 and "--max-response-bytes" in output
    assert peak < 400 * MB and not api.sent_all, "256 MiB and what else there is"


@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Service Unavailable"])
def test_an_endless_error_takes_no_memory(misbehave, lake, tmp_path, status):
    def behave(server, connection):
        connection.sendall(head(status, "Connection: close"))
        while not server.stopped.is_set():
            connection.sendall(b"the words of the server " * 10_000)

    api = misbehave([behave])
    code, output, peak = measured(
        tmp_path, "sync", "--lake", lake, "--base-url", api.url, "--max-tries", 1, "--max-response-bytes", "10MB"
    )
    assert code in (3, 4) and len(api.times) == 1 and len(output) < 2_000 and peak < 100 * MB


def test_endless_headers_take_no_memory(misbehave, lake, tmp_path):
    def behave(server, connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        while not server.stopped.is_set():
            connection.sendall(b"x" * MB)

    api = misbehave([behave])
    code, _, peak = measured(tmp_path, "sync", "--lake", lake, "--base-url", api.url, "--max-tries", 1)
    assert code == 4 and len(api.times) == 1 and peak < 100 * MB


# -- where the key goes -----------------------------------------------------------------------------------------------


REDIRECTS = ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]


@pytest.mark.parametrize("location", ["{other.url}/export", "//127.0.0.2:{other.port}/export"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_to_another_host_is_refused_by_its_name(misbehave, lake, status, location):
    other = misbehave([good("stolen")], host="127.0.0.2")
    api = misbehave([answer(status, "over there", f"Location: {location.format(other=other)}"), good("a")])
    done = run("sync", "--lake", lake, "--base-url", api.url, code=3)
    assert not other.asked and len(api.times) == 1
    assert "127.0.0.2" in done.stderr and "redirects" in done.stderr and status in done.stderr


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_to_another_port_is_refused(misbehave, lake, status):
    other = misbehave([good("stolen")])
    api = misbehave([answer(status, "", f"Location: {other.url}/conversation/export"), good("a")])
    done = run("sync", "--lake", lake, "--base-url", api.url, code=3)
    assert not other.asked and len(api.times) == 1
    assert "127.0.0.1" in done.stderr and "redirects" in done.stderr


@pytest.mark.parametrize("location", ["/v2/conversation/export", "export/", "{api.url}/v2/conversation/export"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_to_another_path_is_not_followed(misbehave, lake, status, location):
    api = misbehave([good("unused")])
    api.left = [answer(status, "", f"Location: {location.format(api=api)}"), good("a")]
    done = run("sync", "--lake", lake, "--base-url", api.url, code=3)
    assert len(api.times) == 1 and "redirects" in done.stderr and "--base-url" in done.stderr


def test_the_key_goes_unencrypted_to_another_machine_only_if_that_is_allowed(tmp_path):
    asked = ["sync", "--lake", "lake", "--base-url", "http://192.0.2.1", "--max-tries", 1, "--timeout", "1s"]
    done = run(*asked, code=2, cwd=tmp_path, **WITHOUT_PROXY)
    assert "--allow-http" in done.stderr and "http://192.0.2.1" in done.stderr and "unencrypted" in done.stderr
    assert not list(tmp_path.iterdir())
    # Nobody has this address: the run tries it and fails.
    done = run(*asked, "--allow-http", code=4, cwd=tmp_path, **WITHOUT_PROXY)
    assert "192.0.2.1" in done.stderr and "gave up after 1 tr" in done.stderr and "--allow-http" not in done.stderr


SECRET = "very-secret-key-4711"
ECHO = json.dumps({"detail": f"no such key: {SECRET}", "headers": {"authorization": f"Bearer {SECRET}"}})
# The key occurs so often, and at such places, that any shortening cuts one after eight letters or more.
ECHOES = {f"long, {shift}": "x" * shift + f"{SECRET} " * 999 for shift in (0, 7, 14)}
ECHOED = [f"X-Key: {SECRET}", f"WWW-Authenticate: Bearer {SECRET}", f"Set-Cookie: key={SECRET}"]

# The responses, the arguments, and the exit code.
INDISCREET = {
    "success": (good("a"), [], 0),
    "success, verbose": (good("a"), ["-v"], 0),
    "success, for machines": (good("a"), ["-v", "--log-format", "json", "--json"], 0),
    "success, echoing": (answer("200 OK", page("a"), *ECHOED), ["-v", "--json"], 0),
    "401": (answer("401 Unauthorized", ECHO, *ECHOED), ["-v"], 3),
    "401, for machines": (answer("401 Unauthorized", ECHO, *ECHOED), ["-v", "--log-format", "json", "--json"], 3),
    "400": (answer("400 Bad Request", ECHO, *ECHOED), ["--json"], 3),
    "500": (answer("500 Internal Server Error", ECHO, *ECHOED), ["-v", "--max-tries", "2"], 4),
    "no JSON": (answer("200 OK", f"<html>{ECHO}", *ECHOED), ["-v", "--json"], 3),
    "no conversations": (answer("200 OK", ECHO), ["-v", "--json"], 3),
    "redirect": (answer("302 Found", ECHO, f"Location: http://127.0.0.2/login?key={SECRET}"), ["-v", "--json"], 3),
    "redirect, relative": (answer("302 Found", "", f"Location: /login?key={SECRET}"), ["-v", "--json"], 3),
    "redirect, user": (answer("302 Found", "", f"Location: http://{SECRET}@127.0.0.2/"), ["-v", "--json"], 3),
    "redirect, host": (answer("302 Found", "", f"Location: http://{SECRET}.example/"), ["-v", "--json"], 3),
    "reset": (reset, ["-v", "--json"], 4),
    **{
        f"{kind}, {name}": (answer(status, body.replace("ECHO", echo)), ["-v", "--json"], code)
        for name, echo in ECHOES.items()
        for kind, status, body, code in (
            ("401", "401 Unauthorized", "ECHO", 3),
            ("500", "500 Internal Server Error", "ECHO", 4),
            ("no JSON", "200 OK", "<html>ECHO</html>", 3),
            ("no object", "200 OK", '["ECHO"]', 3),
            ("no conversations", "200 OK", '{"detail": "ECHO"}', 3),
        )
    },
}


@pytest.mark.parametrize("name", INDISCREET)
def test_the_key_is_shown_nowhere(misbehave, lake, name):
    behave, arguments, code = INDISCREET[name]
    api = misbehave([hold(behave), behave])
    tries = [] if "--max-tries" in arguments else ["--max-tries", "1"]
    process = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0", *tries, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(DECAGON_API_KEY=SECRET, RUST_LOG="trace", RUST_BACKTRACE="1"),
    )
    assert api.was_asked.wait(timeout=PATIENCE_SECS)
    seen = Path(f"/proc/{process.pid}/cmdline").read_text()
    assert str(lake) in seen
    api.released.set()
    stdout, stderr = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == code, stderr
    assert f"authorization: bearer {SECRET}" in api.asked[0].lower(), "it was sent"

    kept = [path for path in Path(lake).rglob("*") if path.is_file()]
    assert kept and any("runs" in path.parts for path in kept)
    written = "".join(path.read_bytes().decode(errors="replace") for path in kept)
    for place in (seen, stdout, stderr, "\n".join(map(str, kept)), written):
        assert SECRET[:8] not in place, "its beginning alone would tell enough"


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "most, arguments, named",
    [
        (60, [], ["_state/"]),
        (20_000, [], ["_landing/"]),
        # Room for the small staged files, not for the table files.
        (90_000, ["--flush-conversations", 100], ["messages/created_date=2024-02-", "/part-0.parquet"]),
    ],
    ids=["state", "staging", "tables"],
)
def test_a_full_disk_is_reported_and_loses_nothing(simulate, command, lake, most, arguments, named):
    def fill_the_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails and does not kill
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    api = simulate("--conversations", 700, "--days", 3, "--messages", 8)
    sync = ["sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0, *arguments]
    done = subprocess.run(
        [BINARY, *map(str, sync)], capture_output=True, text=True, timeout=300, preexec_fn=fill_the_disk,
        env=environment(DECAGON_API_KEY=KEY),
    )
    assert done.returncode == 5, done.stderr
    assert f"{lake}/{named[0]}" in done.stderr and all(part in done.stderr for part in named)
    assert "too large" in done.stderr, "the system's words"
    files = [path for path in Path(lake).rglob("*") if path.is_file()]
    assert all(path.stat().st_size < most for path in files), "nothing that was cut is left under its name"
    assert not [path for path in files if "#" in path.name], "nor under another"

    command(*sync[:1], api, *arguments)
    assert_exact(lake, api.conversations())
    assert len(list((lake / "messages").rglob("*.parquet"))) >= 3
    assert max(path.stat().st_size for path in Path(lake).rglob("*.parquet")) > most, "it would not have fitted"
    assert "hint: " in done.stderr and "space" in done.stderr
