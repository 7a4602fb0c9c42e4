"""The benchmark of a far store: its proxy delays all and limits nothing, and its report holds what was measured."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import BINARY, ROOT

CLOUD = ROOT / "benches" / "compare" / "cloud"
sys.path.insert(0, str(CLOUD))
from delay import longest_chain, most_at_once  # noqa: E402

RTT_SECS, AT_ONCE = 0.3, 40


@pytest.mark.parametrize("calls, chain, most", [
    ([], 0, 0),
    ([(0, 1), (1, 2), (2, 3)], 3, 1),
    ([(0, 3), (0, 1), (1, 2), (2, 4)], 3, 2),
    ([(0, 9), (1, 2), (3, 4)], 2, 2),
    ([(5, 6), (0, 1), (0, 1), (0, 1)], 2, 3),
])
def test_calls_are_counted_in_sequence_and_at_a_time(calls, chain, most):
    assert (longest_chain(calls), most_at_once(calls)) == (chain, most)


class Echo(BaseHTTPRequestHandler):
    """Answers with what was sent."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 2 * AT_ONCE


@contextmanager
def delayed():
    """A server behind the proxy: the port to send to, and what the proxy tells."""
    server = Server(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    proxy = subprocess.Popen(
        [sys.executable, CLOUD / "delay.py", f"127.0.0.1:{server.server_address[1]}", str(RTT_SECS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )

    def told():
        proxy.stdin.write("\n")
        proxy.stdin.flush()
        return json.loads(proxy.stdout.readline())

    try:
        yield int(proxy.stdout.readline().rsplit(":", 1)[1]), told
    finally:
        proxy.stdin.close()
        assert proxy.wait() == 0
        server.shutdown()


def test_the_proxy_delays_each_call_and_none_waits_for_another():
    def call(port, body, connection=None):
        connection = connection or HTTPConnection("127.0.0.1", port)
        begin = time.monotonic()
        connection.request("PUT", "/data/key", body)
        assert connection.getresponse().read() == body
        return time.monotonic() - begin

    large = bytes(range(256)) * 8_192
    with delayed() as (port, told):
        kept = HTTPConnection("127.0.0.1", port)
        # The proxy takes off by how much the system wakes it late on average.
        assert all(call(port, body, kept) > RTT_SECS - 0.01 for body in (b"small", large, b"small"))
        first = told()
        assert first["calls"] == {"put": 3} and first["round_trips"] == 3 and first["most_at_once"] == 1
        assert min(first["sent_bytes"], first["received_bytes"]) > len(large)
        begin = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda _: call(port, large[:20_000]), range(AT_ONCE)))
        assert time.monotonic() - begin < AT_ONCE * RTT_SECS / 2
        second = told()
        assert second["calls"] == {"put": AT_ONCE} and second["most_at_once"] > 1
        assert told()["calls"] == {}, "each is told once"


def test_the_benchmark_measures_and_reports(tmp_path):
    done = subprocess.run(
        [sys.executable, CLOUD / "latency.py", "--binary", BINARY, "--rtt", "0.01", "--conversations", "200", "--dates",
         "4", "--rounds", "1", "--only", "first,duckdb,one-date,status,query,query-duckdb", "--data", tmp_path / "data",
         "--json", tmp_path / "told.json"], capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["answers"] == {"day": True, "duckdb": True} and told["added_secs"] > 0.008
    for name, case in told["cases"].items():
        calls = sum(case["calls"].values())
        assert 0 < case["round_trips"] <= calls and case["wall_secs"] > case["round_trips"] * 0.008, name
    [increment] = told["cases"]["one-date"]["runs"]
    assert increment["changed_partitions"] == 1
    assert "| increment of one date" in done.stdout and "| … store calls" in done.stdout
