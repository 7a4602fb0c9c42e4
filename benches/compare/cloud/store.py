"""The store: SeaweedFS on this machine, as it is (near) and behind the proxy that delays (far)."""

import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests" / "support"))
from servers import SeaweedFs  # noqa: E402

PROBES = 20


def round_trip(url):
    """The seconds that a call takes that does nothing, on a connection that is there."""
    address, taken = urlsplit(url), []
    connection = http.client.HTTPConnection(address.hostname, address.port)
    for _ in range(PROBES + 1):
        begin = time.perf_counter()
        connection.request("GET", "/status")
        connection.getresponse().read()
        taken.append(time.perf_counter() - begin)
    connection.close()
    return statistics.median(taken[1:])


class Store:
    """Runs while it is entered. `near` and `far` are the environments of programs that use it."""

    def __init__(self, folder, rtt_secs):
        self.server, self.rtt_secs = SeaweedFs(folder), rtt_secs

    def __enter__(self):
        try:
            self.server.start()
        except AssertionError:
            self.server.stop()
            sys.exit(f"SeaweedFS did not start; its log is {self.server.folder / 'log'}")
        self.near = self.server.environment
        target = self.server.url.removeprefix("http://")
        self.proxy = subprocess.Popen(
            [sys.executable, HERE / "delay.py", target, str(self.rtt_secs)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self.url = self.proxy.stdout.readline().strip()
        self.far = {**self.near, "AWS_ENDPOINT_URL": self.url}
        return self

    def added_secs(self):
        """What the proxy adds to a round trip, as measured."""
        added = round_trip(self.url) - round_trip(self.server.url)
        self.told()
        return added

    def told(self):
        """What went through the proxy since this was asked last."""
        self.proxy.stdin.write("\n")
        self.proxy.stdin.flush()
        return json.loads(self.proxy.stdout.readline())

    def lake(self, name):
        return self.server.lake(name)

    def __exit__(self, *_):
        self.proxy.stdin.close()
        self.proxy.wait()
        self.server.stop()
