"""`status` for people: whether the lake is healthy, how fresh it is, and what to do next; and following a run."""

import json
import os
import pty
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from conftest import BINARY, KEY, PATIENCE_SECS, environment, page, run

TODAY = ["--now", datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")]


def shown(command):
    return command("status").stdout


def on_terminal(*arguments, columns=80, **env):
    """What a command prints on a terminal, and its exit code."""
    parent, child = pty.openpty()
    os.set_blocking(parent, True)
    size = environment(COLUMNS=columns, LINES=24, TERM="xterm-256color", **env)
    process = subprocess.Popen([BINARY, *map(str, arguments)], stdin=child, stdout=child, stderr=child, env=size)
    os.close(child)
    parts = []

    def read():
        try:
            while part := os.read(parent, 65536):
                parts.append(part)
        except OSError:
            pass  # The other end is closed.

    reading = threading.Thread(target=read)
    reading.start()
    code = process.wait(timeout=PATIENCE_SECS)
    reading.join(PATIENCE_SECS)
    os.close(parent)
    return b"".join(parts).decode(), code


@pytest.mark.parametrize("by", ["day", "month"])
def test_a_healthy_lake_on_a_terminal(simulate, command, lake, by):
    api = simulate("--conversations", 300, "--days", 40, "--messages", 2, *TODAY)
    command("sync", api, "--partition-by", by)
    plain = shown(command)
    assert plain.startswith("● healthy · last run: `sync`") and "nothing to do" in plain
    assert "\x1b" not in plain and "█" not in plain, "a pipe gets neither colours nor bars"
    text, code = on_terminal("status", "--lake", lake)
    assert code == 0 and "\x1b[" in text and "█" in text and "healthy" in text
    lines = text.splitlines()
    assert len(lines) <= 24, "it is one screen"
    # Some 7 conversations begin each day, so each of the 14 days has a bar.
    lowest = [line for line in lines if "█" in line][-1]
    assert lowest.count("██") == 14
    days = [f"{datetime.now(timezone.utc) - timedelta(days=days):%d}" for days in range(13, -1, -1)]
    assert any(" ".join(days) in line for line in lines)
    without, _ = on_terminal("status", "--lake", lake, NO_COLOR="1")
    assert "\x1b[" not in without and "█" in without


def test_what_to_do_next(simulate, command, serve, lake):
    api = simulate("--conversations", 300, "--days", 10, *TODAY)
    command("export", api)
    assert "run `decagon-lake compact`" in shown(command) and shown(command).startswith("▲ needs attention")
    command("compact")
    assert shown(command).startswith("● healthy")
    command("sync", api, key="another-key-altogether", code=3)
    broken = shown(command)
    assert broken.startswith("✖ broken") and "`sync` failed with exit code 3" in broken and "mend what the error names" in broken
    assert "another-key-altogether" not in broken
    command("sync", api)
    assert shown(command).startswith("● healthy")
    malformed = serve((200, {"Date": "Fri, 01 Mar 2024 00:00:00 GMT"}, page("no conversation")))
    run("sync", "--lake", f"{lake}-bad", "--base-url", malformed.url, "--requests-per-second", 0, code=6)
    bad = run("status", "--lake", f"{lake}-bad").stdout
    assert "1 malformed entry quarantined by the last run" in bad and "done, with entries quarantined" in bad
    old = simulate("--conversations", 30)
    run("sync", "--lake", f"{lake}-old", "--base-url", old.url, "--requests-per-second", 0)
    stale = run("status", "--lake", f"{lake}-old").stdout
    assert "no export was complete for more than a day" in stale and "run `decagon-lake sync`" in stale


def test_the_last_words_of_a_run(simulate, command, lake):
    api = simulate("--conversations", 300, "--days", 10)
    asked = ["sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0]
    text, code = on_terminal(*asked, columns=60, DECAGON_API_KEY=KEY)
    assert code == 0
    block = text[text.index("sync done in"):].splitlines()
    assert [line.split()[0] for line in block[1:4]] == ["fetched", "tables", "next"]
    assert "300 conversations staged" in block[1] and "0 duplicates resolved" in block[2]
    # Elsewhere it is one line, with the same words.
    said = [line for line in command("sync", api).stderr.splitlines() if "sync done" in line]
    assert len(said) == 1 and "in 1 request" in said[0]


def test_a_run_is_followed_until_it_ends(simulate, command, lake):
    api = simulate("--conversations", 2_000, "--days", 10, "--messages", 2)
    command("sync", api, "--page-size", 100)
    none = command("status", None, "--watch")
    assert "no run is in progress" in none.stderr and "watermark" in none.stdout
    api.advance(days=2)
    api.hold(after=2)
    asked = ["--lake", str(lake), "--base-url", api.url, "--requests-per-second", "0", "--page-size", "100"]
    syncing = subprocess.Popen([BINARY, "backfill", *asked, "--from", "2024-02-20", "--to", "2024-03-02"],
                               env=environment(DECAGON_API_KEY=KEY), stderr=subprocess.DEVNULL)
    watching = None
    try:
        api.wait_for(api.gaps()[0] + 0, syncing)
        deadline = time.monotonic() + PATIENCE_SECS
        while "is running on" not in shown(command):
            assert time.monotonic() < deadline, "the run is not seen"
        watching = subprocess.Popen([BINARY, "status", "--lake", lake, "--watch", "--json"], env=environment(),
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = json.loads(watching.stdout.readline())
        assert first["tables"]["conversations"]["rows"] == 2_000
        api.release()
        out, errors = watching.communicate(timeout=PATIENCE_SECS)
        assert watching.returncode == 0 and "`backfill` has ended: done" in errors
        assert syncing.wait(timeout=PATIENCE_SECS) == 0
        last = json.loads(out.splitlines()[-1])
        assert last["landing"]["objects"] > 0 and last["unfinished"] == []
    finally:
        syncing.kill()
        if watching:
            watching.kill()
