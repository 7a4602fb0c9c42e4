"""File systems other than a local disk: without hard links, with locks that keep nobody out, or shared by two machines.

They are stood in for by tests/support/shim.c, which is preloaded into the binary and answers some calls of the C library as
those file systems do.
"""

import errno
import json
import subprocess
import sys
import threading
import time

import pytest
from conftest import BINARY, KEY, ROOT, environment
from truth import assert_exact

sys.path.insert(0, str(ROOT / "tests" / "support"))
from proxy import Proxy  # noqa: E402
from servers import until  # noqa: E402

SMALL = ["--conversations", 310, "--days", 4, "--messages", 3]
NO_LINKS = [errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV]
RUNS = ["--requests-per-second", "0", "--page-size", 60, "--flush-conversations", 120]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads a library as Linux does")


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The library, built by the compiler that Rust links with."""
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, ROOT / "tests" / "support" / "shim.c", "-ldl"], check=True)
    return library


@pytest.fixture
def start(shim, lake):
    """Starts commands on the lake's file system, as it looks from some machine."""
    started = []

    def start(*arguments, **file_system):
        env = environment(DECAGON_API_KEY=KEY, LD_PRELOAD=shim, **file_system)
        command = [BINARY, arguments[0], "--lake", lake, *arguments[1:]]
        started.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def on(start):
    """Runs commands so, and checks their exit code."""

    def on(*arguments, code=0, **file_system):
        process = start(*arguments, **file_system)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{stdout}\n{stderr}"
        return stdout, stderr

    return on


class StillApi:
    """An account whose API answers one request, and holds the others until it is released."""

    def __init__(self, api):
        self.api, self.goes_on, self.proxy = api, threading.Event(), Proxy(api.url)
        self.proxy.hold = lambda *_: self.goes_on if self.proxy.total > 1 else None
        self.url = self.proxy.url

    def is_held(self):
        return self.proxy.total == 2


@pytest.fixture
def still(simulate):
    made = []

    def get():
        made.append(StillApi(simulate(*SMALL)))
        return made[-1]

    yield get
    for one in made:
        one.goes_on.set()
        one.proxy.stop()


@pytest.mark.parametrize("error", NO_LINKS, ids=errno.errorcode.get)
def test_without_hard_links_a_lake_is_as_any_other_and_check_says_so(simulate, lake, on, error):
    api = simulate(*SMALL)
    output, _ = on("check", "--base-url", api.url, SHIM_LINK=error)
    assert output.count("\nok  ") == 8
    for hours in (0, 5, 30):
        api.advance(hours=hours)
        on("sync", "--base-url", api.url, *RUNS, SHIM_LINK=error)
        assert_exact(lake, api.conversations())
    on("verify", SHIM_LINK=error)
    assert not [path for path in lake.rglob("*#*")], "nothing is left"
    # The numbers continue once links work again.
    api.advance(hours=20)
    on("sync", "--base-url", api.url, *RUNS)
    assert_exact(lake, api.conversations())


def test_without_hard_links_a_delta_lake_is_as_any_other(simulate, lake, on):
    api = simulate(*SMALL)
    for hours in (0, 30):
        api.advance(hours=hours)
        on("sync", "--base-url", api.url, "--format", "delta", *RUNS, SHIM_LINK=errno.EPERM)
    on("verify", SHIM_LINK=errno.EPERM)


def test_without_hard_links_two_at_once_are_kept_apart(still, lake, on, start):
    api = still()
    first = start("sync", "--base-url", api.url, *RUNS, SHIM_LINK=errno.EPERM)
    until(api.is_held, "a second page")
    _, output = on("sync", "--base-url", api.url, code=7, SHIM_LINK=errno.EPERM)
    assert f"process {first.pid}" in output
    api.goes_on.set()
    assert first.wait(timeout=60) == 0
    assert_exact(lake, api.api.conversations())


@pytest.mark.parametrize("file_system, hint", [
    ({"SHIM_FLOCK": errno.ENOLCK}, "--unsafe-no-lock"),
    ({"SHIM_FLOCK": errno.EOPNOTSUPP}, "--unsafe-no-lock"),
    ({"SHIM_FLOCK": errno.ENOSYS}, "--unsafe-no-lock"),
    ({"SHIM_OPEN": errno.EROFS, "SHIM_WHERE": "/lake/"}, "read-only"),
    ({"SHIM_OPEN": errno.EACCES, "SHIM_WHERE": "/lake/"}, "owner and mode"),
    ({"SHIM_OPEN": errno.ESTALE, "SHIM_WHERE": "/lake/"}, "mount it again"),
    ({"SHIM_OPEN": errno.ENOTCONN, "SHIM_WHERE": "/lake/"}, "mount it again"),
    ({"SHIM_WRITE": errno.ENOSPC, "SHIM_WHERE": "/lake/_state/"}, "free space"),
    ({"SHIM_WRITE": errno.EDQUOT, "SHIM_WHERE": "/lake/_state/"}, "quota"),
], ids=lambda value: next((errno.errorcode[e] for e in value.values() if isinstance(e, int)), "") if isinstance(value, dict) else value)
def test_check_and_a_run_name_the_call_that_a_file_system_refuses(simulate, on, file_system, hint):
    api = simulate(*SMALL)
    output, _ = on("check", "--base-url", api.url, code=5, **file_system)
    assert "FAILED" in output and hint in output
    _, output = on("sync", "--base-url", api.url, code=5, **file_system)
    assert hint in output and api.gaps()[0] == 1, "by the check alone"


def test_without_locks_a_run_works_at_one_s_own_risk(simulate, lake, on):
    api = simulate(*SMALL)
    output, _ = on("check", "--base-url", api.url, "--unsafe-no-lock", SHIM_FLOCK=errno.ENOLCK)
    assert output.count("\nok  ") == 8
    on("sync", "--base-url", api.url, "--unsafe-no-lock", *RUNS, SHIM_FLOCK=errno.ENOLCK)
    assert_exact(lake, api.conversations())


def test_a_disk_that_fills_up_later_is_named_and_the_next_run_continues(simulate, lake, on):
    api = simulate(*SMALL)
    _, output = on("sync", "--base-url", api.url, *RUNS, code=5, SHIM_WRITE=errno.ENOSPC, SHIM_WHERE="/lake/messages/")
    assert "free space" in output and "messages/" in output
    on("sync", "--base-url", api.url, *RUNS)
    assert_exact(lake, api.conversations())


def leases(lake):
    return sorted((lake / "_state" / "leases").glob("*.json"))


@pytest.fixture
def machine(tmp_path):
    """A machine that has the lake's folder mounted: started at another time than the others."""

    def get(name, **file_system):
        (tmp_path / name).write_text(f"{name} was started\n")
        return {"SHIM_BOOT": tmp_path / name, **file_system}

    return get


@pytest.mark.parametrize("links", [{}, {"SHIM_LINK": errno.EOPNOTSUPP}], ids=["links", "no-links"])
def test_if_locks_keep_nobody_out_the_lease_does(still, lake, on, start, machine, links):
    """As long as the holder lives, others are refused before they ask the API; on its own machine too."""
    here, there = (machine(name, SHIM_FLOCK=0, **links) for name in ("here", "there"))
    api = still()
    first = start("sync", "--base-url", api.url, *RUNS, **here)
    until(api.is_held, "a second page")
    for seen_from in (there, here, there):
        _, output = on("sync", "--base-url", api.url, code=7, **seen_from)
        assert f"process {first.pid}" in output
    assert api.proxy.total == 2
    api.goes_on.set()
    assert first.wait(timeout=60) == 0
    assert_exact(lake, api.api.conversations())
    output, _ = on("check", "--base-url", api.url, **here)
    assert output.count("\nok  ") == 8, "as a run works, so does the check"


def test_a_lease_of_another_machine_counts_if_its_lock_is_not_seen(still, lake, on, start, machine):
    """Each machine keeps its locks to itself, as the clients of some network file systems do."""
    here, there = machine("here"), machine("there")
    api = still()
    first = start("sync", "--base-url", api.url, *RUNS, **here)
    until(api.is_held, "a second page")
    # What the other machine locks is another file to the kernel that both share here.
    (lake / "_state" / "lock").unlink()
    _, output = on("sync", "--base-url", api.url, code=7, **there)
    assert f"process {first.pid}" in output and api.proxy.total == 2
    api.goes_on.set()
    assert first.wait(timeout=60) == 0
    assert_exact(lake, api.api.conversations())


@pytest.mark.parametrize("seen_from", ["its machine", "another machine", "a machine of another name"])
def test_a_run_that_was_killed_is_waited_for_on_other_machines_than_its_own(still, lake, on, start, machine, seen_from):
    api = still()
    first = start("sync", "--base-url", api.url, *RUNS, **machine("here"))
    until(api.is_held, "a second page")
    first.kill()
    first.wait()
    if seen_from == "a machine of another name":
        newest = leases(lake)[-1]
        newest.write_text(json.dumps({**json.loads(newest.read_text()), "host": "elsewhere"}))
    begun = time.monotonic()
    _, output = on("compact", **machine("there" if seen_from == "another machine" else "here"))
    waited = seen_from != "its machine"
    assert ("waiting to see" in output) == waited, output
    assert time.monotonic() - begun >= 20 or not waited
