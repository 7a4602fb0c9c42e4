"""The wheel and its Python module: what `pip install decagon-lake` gives."""

import importlib
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pytest
from conftest import BINARY, KEY, PATIENCE_SECS, ROOT, blocks, environment, page
from installed import with_duckdb
from truth import assert_exact

SOURCE = ROOT / "python" / "decagon_lake"
UTC = timezone.utc


@pytest.fixture
def module(packages, monkeypatch):
    """The installed module, in this process."""
    for name in [name for name in os.environ if name.startswith("DECAGON_")]:
        monkeypatch.delenv(name)
    monkeypatch.syspath_prepend(packages)
    module = importlib.import_module("decagon_lake")
    assert Path(module.__file__).is_relative_to(packages)
    return module


@pytest.fixture
def account(simulate):
    """A simulated account, and the options that lead there."""
    api = simulate("--conversations", 310, "--days", 9)
    return api, {"base_url": api.url, "requests_per_second": 0, "api_key": KEY}


@pytest.fixture
def stand_in(module, monkeypatch, tmp_path):
    """Puts a shell script in the place of the binary."""

    def stand_in(script):
        path = tmp_path / "stand-in"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr("decagon_lake._process.find_binary", lambda: str(path))

    return stand_in


def until(happened, what):
    deadline = time.monotonic() + PATIENCE_SECS
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def reports(lake):
    return [json.loads(path.read_text()) for path in sorted((lake / "_state" / "runs").iterdir())]


def test_the_wheel_is_small_and_says_what_it_is(wheel):
    assert wheel.stat().st_size < 30e6
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    assert wheel.name.startswith(f"decagon_lake-{version}-py3-none-")
    with zipfile.ZipFile(wheel) as parts:
        metadata, _, readme = parts.read(f"decagon_lake-{version}.dist-info/METADATA").decode().partition("\n\n")
        assert "decagon_lake/py.typed" in parts.namelist()
    for line in ("Name: decagon-lake", f"Version: {version}", "Requires-Python: >=3.10", "License-Expression: Apache-2.0",
                 "Requires-Dist: duckdb>=1.1 ; extra == 'duckdb'"):
        assert f"\n{line}\n" in f"{metadata}\n"
    assert readme.strip() == (ROOT / "python" / "README.md").read_text().strip()


def test_the_page_on_the_package_index_leads_nowhere_wrong(module):
    """Its links are whole, its example is the one that test_install.py runs, and it names what there is."""
    readme = (ROOT / "python" / "README.md").read_text()
    assert all(link.startswith("https://") for link in re.findall(r"\]\(([^)]+)\)", readme))
    assert re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE) == blocks("python")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", readme, re.MULTILINE)
    told = set(re.findall(r"^  (\w+)  ", subprocess.run([BINARY, "--help"], check=True, capture_output=True, text=True).stdout, re.MULTILINE))
    assert {name for name, _ in rows} < told
    functions = {name for name in module.__all__ if name[0].islower()} - {"find_binary"}
    assert {name for _, cell in rows for name in re.findall(r"`(\w+)\(\)`", cell)} == functions


def test_a_new_environment_has_the_command_and_the_module(venv, packages, tmp_path):
    def python(*arguments, code=0):
        done = subprocess.run([venv / "bin" / "python", *arguments], capture_output=True, text=True, cwd=tmp_path,
                              env=environment(), timeout=PATIENCE_SECS)
        assert done.returncode == code, done.stderr
        return done

    demo = [venv / "bin" / "decagon-lake", "demo", "--conversations", "200", "--days", "5"]
    subprocess.run(demo, check=True, cwd=tmp_path, env=environment(), capture_output=True)
    version = subprocess.run([BINARY, "--version"], check=True, capture_output=True, text=True).stdout
    assert python("-m", "decagon_lake", "--version").stdout == version
    assert "hint: " in python("-m", "decagon_lake", "status", "--lake", "nowhere", code=2).stderr

    query = "import decagon_lake; print(*decagon_lake.connect('demo-lake').sql('SELECT count(*) FROM tags').fetchone())"
    assert python("-c", query, code=1).stderr.endswith("ImportError: connect() needs DuckDB: pip install 'decagon-lake[duckdb]'\n")
    with with_duckdb(packages):
        counted = python("-c", query).stdout
    files = tmp_path / "demo-lake" / "tags" / "*" / "*.parquet"
    assert int(counted) == duckdb.sql(f"SELECT count(*) FROM read_parquet('{files}')").fetchone()[0] > 0


def test_the_commands_return_what_the_binary_reports(module, account, lake):
    api, options = account
    report = module.sync(lake, **options)
    assert (report.command, report.outcome, report.error) == ("sync", "done", ())
    assert report.staged_rows.conversations == 310 == report.tables.conversations.rows == report.raw["landed_rows"]["conversations"]
    assert report.tables.messages.rows == report.table_rows.messages == report.staged_rows.messages > 310
    assert report.started_at.tzinfo is UTC and timedelta(0) < report.duration < timedelta(minutes=5)
    assert report.watermark == datetime.fromisoformat(report.raw["watermark"])
    assert len(report.compacted_partitions) == report.tables.tags.partitions
    assert report.tables.conversations.first_partition == date.fromisoformat(min(report.compacted_partitions))

    api.advance(hours=30)
    staged = module.export(str(lake), **options)
    status = module.status(lake)
    assert status.staged_rows.conversations == staged.staged_rows.conversations > 0
    assert status.staged_files > 0 and status.unfinished == ()
    assert (status.lake, status.format, status.partition_by) == (str(lake), "parquet", "day")
    assert status.watermark == staged.watermark > report.watermark
    assert status.lag == timedelta(seconds=status.raw["lag_secs"])

    start = datetime(2024, 2, 1, 12, 30)
    again = module.backfill(lake, from_=start, to=date(2024, 3, 3), timestamp_filter="created_at", **options)
    assert again.raw["request"]["window"]["from"] == "2024-02-01T12:30:00Z"
    compacted = module.compact(lake)
    assert compacted.duplicates_resolved > 0
    assert_exact(lake, api.conversations())

    verified = module.verify(lake)
    assert verified.problems == () and verified.rows.conversations == len(api.conversations())

    connection = module.connect(lake)
    by_tag = connection.sql("SELECT name, count(*) FROM conversations_latest JOIN tags_latest USING (conversation_id) GROUP BY name")
    truth = [tag["name"] for conversation in api.conversations() for tag in conversation["tags"]]
    assert dict(by_tag.fetchall()) == {name: truth.count(name) for name in set(truth)}
    assert connection.sql("SELECT max(created_at) FROM conversations").fetchone()[0].utcoffset() == timedelta(0)

    own = duckdb.connect()
    assert module.connect(lake, connection=own) is own
    assert own.sql("SELECT count(*) FROM conversations").fetchone() == (len(api.conversations()),)


def test_the_page_goes_to_a_file_or_to_a_store(module, account, lake, tmp_path):
    _, options = account
    module.sync(lake, **options)
    path = tmp_path / "page.html"
    assert module.report(lake, path) == module.report(lake, str(path), days=30) == path
    url = f"file://{tmp_path}/other.html"
    assert module.report(lake, url, days=30) == url
    page = (tmp_path / "other.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "Decagon conversations" in page
    assert len(page) == pytest.approx(len(path.read_text()), rel=0.01)
    for dash in ("-", Path("-")):
        error = failed(module.UsageError, module.report, lake, dash)
        assert error.code == 2 and "report.html" in error.hint


def test_a_status_does_not_watch(module, account, lake, monkeypatch):
    """Watching prints a line at each change, so that a run in progress would make two results of one."""
    api, options = account
    api.hold(after=1)
    run = threading.Thread(target=module.export, args=(lake,), kwargs=options)
    run.start()
    try:
        until(lambda: api.gaps()[0] > 1, "no request")
        # A status that watched would end with the run.
        end = threading.Timer(5, api.release)
        end.start()
        assert failed(module.UsageError, module.status, lake, watch=True).code == 2
        monkeypatch.setenv("DECAGON_WATCH", "true")
        for env in (None, {"DECAGON_WATCH": "true"}):
            assert module.status(lake, env=env, watch=False).lake == str(lake)
        end.cancel()
    finally:
        api.release()
        run.join(PATIENCE_SECS)


def test_the_log_comes_while_the_run_goes_on(module, account, lake, caplog):
    api, options = account
    caplog.set_level(logging.DEBUG, "decagon_lake")
    api.hold(after=1)
    ended = []
    run = threading.Thread(target=lambda: ended.append(module.sync(lake, **options)))
    run.start()
    try:
        until(lambda: any("fetching the whole history" in record.getMessage() for record in caplog.records), "no log line")
        assert not ended
    finally:
        api.release()
        run.join(PATIENCE_SECS)
    [report] = ended
    logged = [record for record in caplog.records if record.name == "decagon_lake"]
    assert {record.levelno for record in logged} == {logging.DEBUG, logging.INFO}
    assert logged[-1].getMessage().startswith("sync done: ")
    assert logged[-1].decagon_lake["run_id"] == report.run_id
    caplog.clear()
    caplog.set_level(logging.INFO, "decagon_lake")
    module.sync(lake, **options)
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_levels_are_those_of_the_binary(module, stand_in, caplog):
    lines = [{"level": level, "message": f"so {level}"} for level in ("ERROR", "WARN", "INFO")]
    told = "\n".join(map(json.dumps, lines))
    stand_in(f"cat >&2 <<'END'\n{told}\nno JSON\nEND\necho '{{}}'")
    caplog.set_level(logging.INFO, "decagon_lake")
    module.compact("lake")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "so ERROR"), ("WARNING", "so WARN"), ("INFO", "so INFO"), ("ERROR", "no JSON")]


def failed(error, call, *arguments, **options):
    """The exception of a call, which survives a pickle."""
    with pytest.raises(error) as raised:
        call(*arguments, **options)
    assert type(raised.value) is error
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (str(copy), copy.code, copy.report) == (str(raised.value), raised.value.code, raised.value.report)
    return raised.value


def test_each_exit_code_raises_its_exception(module, account, serve, lake, tmp_path):
    api, options = account
    error = failed(module.UsageError, module.status, lake)
    assert (error.code, error.message) == (2, f"there is no lake at {lake}") and "decagon-lake sync" in error.hint
    assert str(error) == f"{error.message}\nhint: {error.hint}"
    error = failed(module.UsageError, module.sync, lake, bogus=1)
    assert error.message == "unexpected argument '--bogus' found" and "Usage: " in "\n".join(error.log)

    refused = serve((401, {}, "no"))
    error = failed(module.ApiError, module.sync, lake, **{**options, "base_url": refused.url})
    assert error.code == 3 and error.report.outcome == "failed" and error.report.error and not error.retry_helps

    broken = serve((500, {}, "no"))
    error = failed(module.UnreachableError, module.sync, lake, max_tries=1, **{**options, "base_url": broken.url})
    assert error.code == 4 and error.retry_helps

    (tmp_path / "file").write_text("")
    error = failed(module.StoreError, module.sync, tmp_path / "file" / "lake", **options)
    assert error.code == 5 and error.retry_helps

    malformed = serve(page({"conversation_id": "whole"}, 5))
    lake = tmp_path / "other"
    error = failed(module.IntegrityError, module.sync, lake, **{**options, "base_url": malformed.url})
    assert error.code == 6 and error.report.outcome == "set_aside" and error.report.quarantined == 1
    assert error.report.tables.conversations.rows == 1 and error.verification is None
    [table_file] = (lake / "conversations").glob("*/*.parquet")
    table_file.write_bytes(b"")
    error = failed(module.IntegrityError, module.verify, lake)
    assert error.report is None and error.verification.problem_count > 0
    assert error.verification.problems[0].check == "readable" and "verification failed" in error.message


def test_a_held_lake_raises_its_exception(module, account, lake):
    api, options = account
    api.hold(after=1)
    run = threading.Thread(target=module.export, args=(lake,), kwargs=options)
    run.start()
    try:
        until(lambda: api.gaps()[0] > 1, "no request")
        error = failed(module.HeldError, module.compact, lake)
        assert error.code == 7 and not error.retry_helps
    finally:
        api.release()
        run.join(PATIENCE_SECS)


@pytest.mark.parametrize("script, name, code, message", [
    ("exit 70", "InternalError", 70, "decagon-lake ended with exit code 70"),
    ("exit 130", "InterruptedRunError", 130, "decagon-lake ended with exit code 130"),
    ("exit 99", "DecagonLakeError", 99, "decagon-lake ended with exit code 99"),
    ("kill -KILL $$", "DecagonLakeError", -9, "decagon-lake was ended by SIGKILL"),
])
def test_an_end_without_words_raises_too(module, stand_in, script, name, code, message):
    stand_in(script)
    error = failed(getattr(module, name), module.sync, "lake")
    assert (error.code, str(error), error.report) == (code, message, None)


def test_options_are_flags_and_keys_are_not(module, stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("DECAGON_API_KEY_FILE", "file")
    stand_in(f"""printf '%s\\n' "$@" >{tmp_path}/flags; env >{tmp_path}/env; echo '{{}}'""")
    zone = timezone(timedelta(hours=2))
    module.backfill("s3://b/p", from_=datetime(2024, 1, 1, 1, tzinfo=zone), to=datetime(2024, 2, 1), api_key="the key",
                    policy_key="other key", env={"AWS_REGION": "eu"}, restart=True, allow_http=False, policy=None,
                    page_size=50, timeout=timedelta(seconds=1.5), metadata_columns=["plan", "vip:boolean"],
                    user_filters={"metadata_filter": {"plan": "pro"}}, api_key_file=tmp_path)
    flags = (tmp_path / "flags").read_text().splitlines()
    assert flags == ["backfill", "--lake=s3://b/p", "--json", "--from=2023-12-31T23:00:00+00:00",
                     "--to=2024-02-01T00:00:00+00:00", "--restart", "--page-size=50", "--timeout=1500ms",
                     "--metadata-columns=plan,vip:boolean", '--user-filters={"metadata_filter": {"plan": "pro"}}',
                     f"--api-key-file={tmp_path}", "--log-format=json"]
    env = (tmp_path / "env").read_text().splitlines()
    assert {"DECAGON_API_KEY=the key", "DECAGON_POLICY_KEY=other key", "AWS_REGION=eu"} <= set(env)
    assert not any(line.startswith("DECAGON_API_KEY_FILE=") for line in env)

    assert module.report("lake", tmp_path / "page.html", days=30) == tmp_path / "page.html"
    flags = (tmp_path / "flags").read_text().splitlines()
    assert flags == ["report", "--lake=lake", f"--out={tmp_path}/page.html", "--days=30", "--log-format=json"]


def test_fields_of_another_release_break_nothing(module):
    empty, later = module.Report.of({}), {"outcome": "new", "field": {"of": "later"}, "landed_rows": {"tags": 2, "new": 3}}
    assert (empty.outcome, empty.watermark, empty.tables, empty.duration) == ("", None, None, timedelta(0))
    report = module.Report.of(later)
    assert (report.outcome, report.staged_rows.tags, report.raw) == ("new", 2, later)
    assert module.Status.of({}).lag is None and module.Verification.of({}).problems == ()
    with pytest.raises(AttributeError):
        report.outcome = "done"


def test_an_exception_in_the_caller_ends_the_binary(module, account, lake, caplog):
    api, options = account
    api.hold(after=2)
    caplog.set_level(logging.INFO, "decagon_lake")
    seen = []

    def refuse(record):
        seen.append(record.getMessage())
        if len(seen) == 1:
            until(lambda: api.gaps()[0] > 2, "no request")
            raise RuntimeError("the caller has changed its mind")
        if "stopping" in seen[-1]:
            api.release()
        return True

    module._process.logger.addFilter(refuse)
    try:
        with pytest.raises(RuntimeError, match="changed its mind"):
            module.sync(lake, **options)
    finally:
        module._process.logger.removeFilter(refuse)
    # It has ended, with its pages staged, and nothing holds the lake.
    [report] = reports(lake)
    assert report["outcome"] == "interrupted" and report["landed_rows"]["conversations"] in (200, 300)
    assert seen[-1].startswith("interrupted")
    assert module.sync(lake, **options).raw["resumed"]
    assert_exact(lake, api.conversations())


def test_ctrl_c_in_a_terminal_stops_the_run_once(account, venv, lake):
    api, _ = account
    api.hold(after=2)
    script = "import logging, sys, decagon_lake\nlogging.basicConfig(level='INFO')\ndecagon_lake.sync(sys.argv[1], base_url=sys.argv[2], requests_per_second=0)"
    program = subprocess.Popen([venv / "bin" / "python", "-c", script, lake, api.url], env=environment(DECAGON_API_KEY=KEY),
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        api.wait_for(3, program)
        # A terminal signals the whole group. A second signal would stop the binary before it has a report.
        os.killpg(program.pid, signal.SIGINT)
        said = []
        while not said or "stopping when fetched rows are safe" not in said[-1]:
            said.append(program.stderr.readline())
            assert said[-1], said
        api.release()
        _, last = program.communicate(timeout=PATIENCE_SECS)
    finally:
        program.kill()
        api.release()
    assert last.rstrip().endswith("KeyboardInterrupt")
    [report] = reports(lake)
    assert report["outcome"] == "interrupted" and report["landed_rows"]["conversations"] in (200, 300)


def test_the_types_are_strict_and_reach_the_user(tmp_path):
    (tmp_path / "own.py").write_text(
        "import decagon_lake\n\n"
        "report = decagon_lake.sync('lake', page_size=5, restart=True)\n"
        "reveal_type(report.staged_rows.tags)\nreveal_type(report.watermark)\n"
        "reveal_type(decagon_lake.connect())\ndecagon_lake.backfill('lake')\n")
    mypy = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path / "cache"]
    checked = subprocess.run([*mypy, SOURCE, tmp_path / "own.py"], capture_output=True, text=True,
                             env=environment(MYPYPATH=SOURCE.parent))
    assert checked.returncode == 1, checked.stderr
    told = [line.split(": ", 1)[1] for line in checked.stdout.splitlines() if ": " in line]
    assert told == ['note: Revealed type is "builtins.int"', 'note: Revealed type is "datetime.datetime | None"',
                    'note: Revealed type is "_duckdb.DuckDBPyConnection"',
                    'error: Missing named argument "from_" for "backfill"  [call-arg]',
                    'error: Missing named argument "to" for "backfill"  [call-arg]'], checked.stdout
