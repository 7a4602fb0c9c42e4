"""Runs that are killed, stopped, paused, or not alone: nothing is lost, and nobody is disturbed."""

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import BINARY, JITTER, KEY, PATIENCE_SECS, environment, run
from deltalake import DeltaTable
from test_api_failures import Misbehaving, answer, conversation, good, hang, head, misbehave, retry_after
from truth import FORMATS, TABLES, assert_exact

# The longest time for which a test kills a command again and again.
KILLING_SECS = 600
# Clocks are read one after the other.
TOLERANCE = 0.01
RANGE = ["--from", "2024-02-01", "--to", "2024-02-20"]
# The commands that write to a lake, and the arguments that they need.
FETCHING = {"sync": [], "export": [], "backfill": RANGE}
WRITING = {**FETCHING, "compact": [], "verify": ["--repair"]}


# -- runs beside a test -----------------------------------------------------------------------------------------------


def start(lake, url, *arguments, name="sync", pace=0, log=None):
    """Starts a command; its output goes to the file `log`, or can be read after its end."""
    api = ["--base-url", url, "--requests-per-second", pace] if name in FETCHING else []
    return subprocess.Popen(
        [BINARY, name, "--lake", lake, *map(str, [*api, *arguments])], stdout=subprocess.PIPE, text=True,
        stderr=log.open("w") if log else subprocess.PIPE, env=environment(DECAGON_API_KEY=KEY),
    )


def until(condition, process=None):
    """Waits until a condition holds, as long as a process runs."""
    deadline = time.monotonic() + PATIENCE_SECS
    while not (found := condition()):
        assert process is None or process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)
    return found


def ended(process, code=0):
    """The output of a process, once it has ended by itself."""
    stdout, stderr = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == code, f"ended with {process.returncode}\n{stdout}\n{stderr}"
    return SimpleNamespace(stdout=stdout, stderr=stderr)


def killed(process):
    """Kills a process; returns whether that was in time."""
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.fixture
def begin(lake):
    """Begins commands on the test's lake; none of them outlives the test."""
    begun = []

    def begin(api, *arguments, **options):
        begun.append(start(lake, api.url, *arguments, **options))
        return begun[-1]

    yield begin
    for process in begun:
        if process.poll() is None:
            killed(process)


def kept(lake):
    """Every file of a lake except those that name its holder."""
    def is_kept(path):
        return path.is_file() and path.parent.name != "leases" and path.name != "lock"

    return {str(path.relative_to(lake)): path.read_bytes() for path in Path(lake).rglob("*") if is_kept(path)}


def holder(lake):
    """The holder of the lake, or the last one."""
    newest = max(Path(lake, "_state", "leases").glob("*.json"))
    return json.loads(newest.read_text())


def temporary(lake):
    """The temporary files, not yet renamed into place."""
    return [path for path in Path(lake).rglob("*#*") if path.is_file()]


# -- kills ------------------------------------------------------------------------------------------------------------


def assert_none_twice(rows, seen):
    """No conversation is there twice, and all of `seen` are; returns their ids."""
    now = {row["conversation_id"] for row in rows}
    assert len(now) == len(rows) and seen <= now
    return now


@pytest.mark.parametrize("kept_as, read", FORMATS)
def test_killed_again_and_again_it_is_always_continued(simulate, command, begin, lake, kept_as, read):
    seed = int(os.environ.get("KILLS_SEED", random.randrange(2**32)))
    print(f"again: KILLS_SEED={seed}")
    chance = random.Random(seed)
    api = simulate("--conversations", 3_000, "--messages", 3)
    # The median duration of a command, measured on the way.
    usual = {"sync": 0.5, "compact": 0.1}
    enough = {"sync killed": 12, "compact killed": 3, "sync ended": 4, "compact ended": 1, "left something behind": 1}
    tally, seen, deadline = Counter(), set(), time.monotonic() + KILLING_SECS
    while any(tally[what] < count for what, count in enough.items()):
        assert time.monotonic() < deadline, dict(tally)
        if chance.random() < 0.2:
            api.advance(hours=chance.choice([1, 5, 20]))
        flush = ["--flush-conversations", chance.choice([50, 300, 1_000]), "--format", kept_as]
        name = "sync"
        if chance.random() < 0.2:
            api.advance(hours=12)
            command("export", api, *flush)
            name, flush = "compact", []
        process = begin(api, *flush, name=name)
        try:
            process.wait(timeout=usual[name] * chance.uniform(0, 2))
        except subprocess.TimeoutExpired:
            pass
        if killed(process):
            tally[f"{name} killed"] += 1
            tally["left something behind"] += bool(temporary(lake))
            usual[name] *= 1.1
        else:
            assert process.returncode == 0, process.args
            tally[f"{name} ended"] += 1
            usual[name] /= 1.1
        begun = any(Path(lake, "conversations").glob(f"{'_delta_log' if kept_as == 'delta' else '*'}/*"))
        seen = assert_none_twice(read(lake, "conversations") if begun else [], seen)
    print(dict(tally), usual)
    command("sync", api)
    command("verify")
    assert_exact(lake, api.conversations(), read)
    # Files that a killed run has not committed stay for an hour.
    for path in Path(lake).glob("*/created_date=*/*.parquet"):
        os.utime(path, (time.time() - 3_700,) * 2)
    command("compact", None, "--retain", "0s", "--force-short-retain")

    files = [path.relative_to(lake) for path in Path(lake).rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} == {*TABLES, "_state"}, "nothing waits, and there is nothing else"
    if kept_as == "parquet":
        assert {path.name for path in files if path.parts[0] in TABLES} == {"part-0.parquet"}
    else:
        named = [uri for table in TABLES for uri in DeltaTable(Path(lake, table)).file_uris()]
        assert {Path(lake, path) for path in files if path.suffix == ".parquet" and "_delta_log" not in path.parts} == {
            Path(uri) for uri in named}
    assert not temporary(lake)


# -- asked to stop ----------------------------------------------------------------------------------------------------


# How long calls under way may take after a run is asked to stop.
GRACE_SECS = 5

FIRST = good("a", "b", cursor="1")
# What the API does; when to stop the run: after a number of requests, or at a log line; further arguments.
STUCK = {
    "no answer at all": ([hang()], 1, []),
    "no answer to the second page": ([FIRST, hang()], 2, []),
    "a body that does not end": ([FIRST, hang(head("200 OK", "Content-Length: 999"), b'{"conversations": [')], 2, []),
    "an error that does not end": ([FIRST, hang(head("503 Service Unavailable", "Content-Length: 999"), b"no")], 2, []),
    "a long wait for the next try": ([FIRST, retry_after(600)], "trying again", []),
    "a long wait for the turn": ([FIRST, hang()], 1, ["--requests-per-second", "0.001"]),
}
SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Runs that are stuck and were asked to stop, by name: all start at once, and each test waits for its own."""
    servers, folder = [], tmp_path_factory.mktemp("lakes")

    def go(name):
        how, what = name.split(": ")
        behaviours, moment, arguments = STUCK[what]
        server, lake = Misbehaving(behaviours), folder / name.replace(" ", "-")
        servers.append(server)
        log = lake.with_suffix(".stderr")
        process = start(lake, server.url, *arguments, log=log)
        try:
            until(lambda: len(server.times) >= moment if isinstance(moment, int) else moment in log.read_text())
            began = time.monotonic()
            process.send_signal(SIGNALS[how])
            code = process.wait(timeout=PATIENCE_SECS)
            took = time.monotonic() - began
        finally:
            killed(process)
        return SimpleNamespace(server=server, lake=lake, code=code, took=took, stderr=log.read_text())

    names = [f"{how}: {what}" for how in SIGNALS for what in STUCK]
    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        begun = {name: pool.submit(go, name) for name in names}
        yield lambda name: begun[name].result()
    for server in servers:
        server.stop()


@pytest.mark.parametrize("what", STUCK)
@pytest.mark.parametrize("how", SIGNALS)
def test_a_run_that_is_stuck_ends_in_time_and_stages_what_it_has(stopped, how, what):
    it = stopped(f"{how}: {what}")
    assert it.code == 130, it.stderr
    assert it.took < GRACE_SECS or "wait" not in what, "nothing was under way"
    assert "stopping" in it.stderr and "interrupted" in it.stderr and "run the same command again" in it.stderr
    status = json.loads(run("status", "--lake", it.lake, "--json", key=None).stdout)
    rows = 0 if what == "no answer at all" else 2
    assert status["landing"]["rows"]["conversations"] == rows and status["watermark"] is None
    [report] = Path(it.lake, "_state", "runs").iterdir()
    assert json.loads(report.read_text())["outcome"] == "interrupted"
    assert not temporary(it.lake) and holder(it.lake)["ended"], "the next one need not wait"

    it.server.left = [good("c")]
    before = len(it.server.times)
    run("sync", "--lake", it.lake, "--base-url", it.server.url, "--requests-per-second", 1_000)
    assert len(it.server.times) == before + 1 and ("cursor=1" in it.server.asked[-1]) == (rows > 0)
    assert_exact(it.lake, map(conversation, "abc" if rows else "c"))


@pytest.mark.parametrize("how", SIGNALS)
def test_asked_twice_it_stops_at_once(misbehave, begin, lake, how):
    api = misbehave([FIRST, hang()])
    log = lake.with_suffix(".stderr")
    process = begin(api, log=log)
    until(lambda: len(api.times) == 2, process)
    process.send_signal(SIGNALS[how])
    until(lambda: "stopping" in log.read_text(), process)
    began = time.monotonic()
    process.send_signal(SIGNALS[how])
    assert process.wait(timeout=PATIENCE_SECS) == 130 and time.monotonic() - began < GRACE_SECS
    api.left = [FIRST, good("c")]
    run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0)
    assert_exact(lake, map(conversation, "abc"))


# -- two at once ------------------------------------------------------------------------------------------------------


# How long a run waits for the holder of a lake that cannot be locked, before it takes it for dead.
EXPIRY_SECS = 20

def assert_refused(command, lake, api, process, name="sync"):
    """Each command that writes is refused with the name of the one that has the lake, and leaves nothing."""
    first = holder(lake)
    assert first["pid"] == process.pid and first["ended"] is None
    since = f"{first['since'][:10]} {first['since'][11:19]} UTC"
    who = f"`{name}` run {first['run_id']} (process {process.pid} on {socket.gethostname()}) since {since}"
    for other, more in WRITING.items():
        began = time.monotonic()
        done = command(other, api if other in FETCHING else None, *more, "--json", code=7)
        assert who in done.stderr and str(lake) in done.stderr and "one run at a time" in done.stderr
        assert not done.stdout and time.monotonic() - began < EXPIRY_SECS, "without waiting for any sign of life"
        assert holder(lake) == first
    return first


def test_while_one_run_writes_every_other_is_refused(simulate, command, begin, lake):
    api = simulate("--conversations", 480)
    api.hold(after=1)
    first = begin(api, "--json", pace=2)
    api.wait_for(2, first)
    held_by = assert_refused(command, lake, api, first)
    status = json.loads(command("status", None, "--json").stdout)
    assert status["lake"] == str(lake) and status["watermark"] is None
    command("verify")
    assert first.poll() is None and api.gaps()[0] == 2, "nobody else has asked for anything"

    api.release()
    result = json.loads(ended(first).stdout)
    assert result["run_id"] == held_by["run_id"]
    assert api.gaps()[0] == result["requests"] == result["pages"] == 5
    assert min(api.gaps()[1]) >= 0.5 - JITTER
    assert [path.stem for path in Path(lake, "_state", "runs").iterdir()] == [result["run_id"]]
    assert holder(lake)["ended"] and holder(lake)["run_id"] == result["run_id"]
    assert_exact(lake, api.conversations())

    for name, more in WRITING.items():
        command(name, api if name in FETCHING else None, *more)
    assert len(list(Path(lake, "_state", "runs").iterdir())) == 1 + len(WRITING)
    command("compact")
    assert_exact(lake, api.conversations())


@pytest.mark.parametrize("name", ["export", "backfill"])
def test_each_command_holds_the_lake_under_its_own_name(simulate, command, begin, lake, name):
    api = simulate("--conversations", 480)
    api.hold(after=1)
    first = begin(api, *WRITING[name], name=name)
    api.wait_for(2, first)
    assert_refused(command, lake, api, first, name=name)
    assert first.poll() is None, "or this shows nothing"
    api.release()
    ended(first)


def test_of_many_that_start_together_one_works(simulate, begin, lake):
    api = simulate("--conversations", 280)
    api.hold()
    processes = [begin(api) for _ in range(8)]
    until(lambda: sum(process.poll() is not None for process in processes) == 7)
    api.release()
    codes = Counter()
    for process in processes:
        process.communicate(timeout=PATIENCE_SECS)
        codes[process.returncode] += 1
    assert codes == {0: 1, 7: 7} and api.gaps()[0] == 3
    assert_exact(lake, api.conversations())


def test_who_has_the_lake_is_not_mistaken_for_who_had_it(simulate, command, lake):
    """Between taking the lake and having written its name, a run has none."""
    api = simulate("--conversations", 20)
    command("sync", api)
    with Path(lake, "_state", "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command("sync", api, code=7)
    assert "is held by" in done.stderr and holder(lake)["run_id"] not in done.stderr, "that one has ended"
    command("sync", api)


def test_after_a_kill_the_next_starts_at_once(simulate, command, begin, lake):
    api = simulate("--conversations", 480)
    for name in WRITING:
        asked = api.gaps()[0]
        api.hold()
        first = begin(api, *RANGE, "--restart", name="backfill")
        api.wait_for(asked + 1, first)
        assert holder(lake)["pid"] == first.pid and killed(first)
        api.release()
        began = time.monotonic()
        command(name, api if name in FETCHING else None, *WRITING[name])
        assert time.monotonic() - began < EXPIRY_SECS, "the lock died with its holder"
        api.advance(hours=5)
    command("sync", api)
    assert_exact(lake, api.conversations())


def test_a_run_that_is_held_up_keeps_the_lake(simulate, command, begin, lake):
    api = simulate("--conversations", 480)
    api.hold(after=1)
    first = begin(api, "--json", "--flush-conversations", 1)
    api.wait_for(2, first)
    first.send_signal(signal.SIGSTOP)
    until(lambda: Path(f"/proc/{first.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
    before = kept(lake)
    for _ in range(3):
        assert_refused(command, lake, api, first)
    assert api.gaps()[0] == 2 and kept(lake) == before, "and those that are refused leave nothing"
    api.release()
    first.send_signal(signal.SIGCONT)
    result = json.loads(ended(first).stdout)
    assert result["outcome"] == "done" and result["pages"] == 5 == api.gaps()[0]
    assert_exact(lake, api.conversations())


# -- the pace of several runs -----------------------------------------------------------------------------------------


def assert_paced(api, requests):
    count, gaps = api.gaps()
    assert count == requests and len(gaps) == requests - 1
    assert min(gaps) >= 0.5 - JITTER and sum(gaps) >= 0.5 * len(gaps) - JITTER, gaps


def test_one_run_after_the_other_keeps_the_pace(simulate, command, lake):
    api = simulate("--conversations", 150)
    requests = 0
    for name in ("sync", "sync", "compact", "export", "compact", "backfill", "sync"):
        api.advance(minutes=40)
        paced = [*WRITING[name], *(["--requests-per-second", 2] if name in FETCHING else [])]
        result = json.loads(command(name, api if name in FETCHING else None, *paced, "--json").stdout)
        assert result["retries"] == 0
        requests += result["requests"]
    assert requests >= 6
    assert_paced(api, requests)


@pytest.mark.parametrize("between", [[], ["compact"]], ids=["at once", "after a compaction"])
def test_the_pace_is_kept_after_a_kill_too(simulate, command, begin, lake, between):
    api = simulate("--conversations", 280)
    for answered, requests in ((0, 1), (1, 3)):
        api.hold(after=answered)
        process = begin(api, pace=2)
        api.wait_for(requests, process)
        assert killed(process) and api.gaps()[0] == requests
        api.release()
        for name in between:
            command(name)
    result = json.loads(command("sync", api, "--requests-per-second", 2, "--json").stdout)
    assert result["retries"] == 0
    assert_paced(api, 3 + result["requests"])
    assert_exact(lake, api.conversations())


@pytest.mark.parametrize("how", SIGNALS)
def test_the_pace_is_kept_after_a_run_that_was_asked_to_stop(simulate, command, begin, lake, how):
    api = simulate("--conversations", 280)
    api.hold(after=1)
    log = lake.with_suffix(".stderr")
    process = begin(api, pace=2, log=log)
    api.wait_for(2, process)
    process.send_signal(SIGNALS[how])
    until(lambda: "stopping" in log.read_text(), process)
    api.release()
    assert process.wait(timeout=PATIENCE_SECS) == 130
    result = json.loads(command("sync", api, "--requests-per-second", 2, "--json").stdout)
    assert_paced(api, 2 + result["requests"])


def test_the_pace_is_kept_after_a_run_that_was_refused(misbehave, lake):
    api = misbehave([answer("401 Unauthorized", "{}"), answer("403 Forbidden", "{}"), good("a")])
    for code in (3, 3, 0, 0):
        run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 2, code=code)
    assert len(api.times) == 4 and min(api.gaps()) >= 0.5 - TOLERANCE, api.gaps()


class Reluctant(Misbehaving):
    """Accepts no connection until it is released."""

    def accept(self):
        self.released.wait()
        super().accept()

    def connecting(self):
        """How many connections to it have failed."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(state == "02" and remote.endswith(f":{self.port:04X}") for _, _, remote, state, *_ in rows)


@pytest.fixture
def reluctant():
    server = Reluctant([good("a")])
    server.listener.listen(0)
    yield server
    server.stop()


def test_the_pace_is_kept_after_a_run_that_was_long_in_connecting(reluctant, begin):
    """The first request leaves as its turn comes, and arrives when there is a connection, a second later."""
    api = reluctant
    waiting = [socket.socket() for _ in range(3)]
    for connection in waiting:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", api.port))
    others = until(api.connecting)
    began = time.monotonic()
    process = begin(api, pace=2)
    until(lambda: api.connecting() > others, process)
    api.released.set()
    ended(process)
    assert api.times[0] - began > 0.7, "it took its time, or this shows nothing"
    ended(begin(api, pace=2))
    assert len(api.times) == 2 and min(api.gaps()) >= 0.5 - TOLERANCE, api.gaps()


# -- wrong input ------------------------------------------------------------------------------------------------------


def wrong_inputs(lake, api):
    """Arguments that cannot be right, and whether a key is given."""
    url = ["--base-url", api.url, "--requests-per-second", 0]
    backwards = ["--from", "2024-02-20", "--to", "2024-02-01"]
    return [
        (["backfill", "--lake", lake, *url, *backwards], KEY, "--from"),
        (["backfill", "--lake", lake, *url, "--from", "2024-02-01", "--to", "2024-02-01"], KEY, "--from"),
        (["backfill", "--lake", lake, *url, *RANGE], None, "DECAGON_API_KEY"),
        (["sync", "--lake", lake, *url], None, "DECAGON_API_KEY"),
        (["export", "--lake", lake, *url], " ", "DECAGON_API_KEY"),
        (["sync", "--lake", lake, *url, "--api-key-file", "no-such-file"], KEY, "no-such-file"),
        (["sync", "--lake", lake, "--base-url", "http://192.0.2.1"], KEY, "--allow-http"),
        (["sync", "--lake", lake, *url, "--user-filters", "[]"], KEY, "--user-filters"),
    ]


def test_wrong_input_makes_nothing(simulate, lake):
    api = simulate("--conversations", 20)
    for arguments, key, named in wrong_inputs(lake, api):
        done = run(*arguments, key=key, code=2)
        assert named in done.stderr and not done.stdout
        assert not lake.exists()
    lake.mkdir()
    for arguments, key, _ in wrong_inputs(lake, api):
        run(*arguments, key=key, code=2)
        assert not list(lake.iterdir())
    assert api.gaps()[0] == 0


def test_wrong_input_changes_nothing(simulate, command, lake):
    api, other = simulate("--conversations", 20), simulate("--conversations", 20, "--seed", 2)
    command("sync", api)
    everything = {path: path.read_bytes() for path in Path(lake).rglob("*") if path.is_file()}
    for arguments, key, _ in wrong_inputs(lake, api):
        run(*arguments, key=key, code=2)
        assert everything == {path: path.read_bytes() for path in Path(lake).rglob("*") if path.is_file()}
    before = kept(lake)
    for name, more in FETCHING.items():
        assert other.url in command(name, other, *more, code=2).stderr
        assert "--user-filters" in command(name, api, *more, "--user-filters", "{}", code=2).stderr
        assert kept(lake) == before
    assert other.gaps()[0] == 0 and api.gaps()[0] == 1
    assert holder(lake)["ended"]


def test_wrong_input_does_not_disturb_a_run_under_way(simulate, command, begin, lake):
    api, other = simulate("--conversations", 480), simulate("--conversations", 20, "--seed", 2)
    api.hold(after=1)
    first = begin(api, "--json")
    api.wait_for(2, first)
    held_by = holder(lake)
    for arguments, key, named in wrong_inputs(lake, api):
        assert named in run(*arguments, key=key, code=2).stderr, "its own fault comes first"
    for name, more in FETCHING.items():
        command(name, other, *more, code=7)
    assert holder(lake) == held_by and first.poll() is None
    api.release()
    result = json.loads(ended(first).stdout)
    assert result["outcome"] == "done" and api.gaps()[0] == 5 and other.gaps()[0] == 0
    assert_exact(lake, api.conversations())


# -- a lake of a newer version ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("last_run", ["ended", "was killed"])
def test_a_lake_of_a_newer_version_is_left_alone(simulate, command, begin, lake, last_run):
    api = simulate("--conversations", 380)
    command("export", api)
    if last_run == "was killed":
        asked = api.gaps()[0]
        api.hold()
        process = begin(api, "--restart")
        api.wait_for(asked + 1, process)
        assert killed(process)
    description = json.loads(Path(lake, "_state", "lake.json").read_text())
    assert description["format_version"] < 99
    Path(lake, "_state", "lake.json").write_text(json.dumps({**description, "format_version": 99}))
    # Files that a newer version may need.
    staged = next(Path(lake, "_landing", "messages").rglob("*.parquet"))
    shutil.copy(staged, staged.with_name("20990101T000000Z-000000-0000.parquet"))
    shutil.copy(staged, staged.with_name(f"{staged.name}#1"))
    Path(lake, "_state", "lake.json#1").write_text("{}")
    before, asked = kept(lake), api.gaps()[0]
    for name, more in [*WRITING.items(), ("status", []), ("verify", [])]:
        for _ in range(2):
            done = command(name, api if name in FETCHING else None, *more, "--json", code=2)
            assert "newer" in done.stderr and "99" in done.stderr and str(lake) in done.stderr and not done.stdout
            assert kept(lake) == before
    assert api.gaps()[0] == asked
