"""The README, the pages in docs/, the demo and the examples say what happens."""

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import BINARY, DOCS, KEY, ROOT, blocks, environment, run
from truth import COLUMN, connect, instant, read_table

README = (ROOT / "README.md").read_text()


def execute(sql):
    """Runs a script in DuckDB and returns the result of each statement that has one."""
    connection = connect()
    results = []
    for statement in connection.extract_statements(sql):
        connection.execute(statement)
        if connection.description:
            results.append(connection.fetchall())
    return results


def test_the_readme_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 200
    for path in DOCS[1:]:
        assert f"]({path.relative_to(ROOT)})" in README, path


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*DOCS, ROOT / "deploy" / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_the_design_names_every_source_file():
    named = set()
    for floor in (ROOT / "docs" / "design.md").read_text().split("\n### ")[1:]:
        heading, *lines = floor.splitlines()
        folders = re.findall(r"`(\w+/)`", heading)
        for names in re.findall(r"^\| (`.*?`) \|", "\n".join(lines), re.MULTILINE):
            for name in re.findall(r"`([\w/]+(?:/…)?)`", names):
                named.add(folders[0] + name if len(folders) == 1 else name)
    src = ROOT / "src"
    files = {str(path.relative_to(src).with_suffix("")) for path in src.rglob("*.rs")}
    files = {name for name in files if not re.search(r"(^|/)(tests|samples|shelf)(/|$)", name)} - {"lib", "main"}
    whole = tuple(name.removesuffix("…") for name in named if name.endswith("…"))
    assert {name for name in named if not name.endswith("…")} <= files, "each is there"
    left_out = {name for name in files - named if not name.startswith(whole) and name.split("/")[-1] != "mod"}
    assert not {name for name in left_out if f"{name}/" not in whole}, "each is named"


def test_every_block_is_of_a_kind_that_is_run():
    fences = [line.strip() for path in DOCS for line in path.read_text().splitlines() if line.strip().startswith("```")]
    assert set(fences[::2]) == {"```sh", "```sql", "```text", "```python"} and set(fences[1::2]) == {"```"}
    assert not re.search(r"^[ $]*(decagon-lake|cargo|export) ", "\n".join(blocks("text")), re.MULTILINE)


def test_every_command_of_the_docs(simulate, tmp_path, monkeypatch):
    api = simulate("--conversations", 400, "--days", 40)
    env = environment(
        DECAGON_BASE_URL=api.url, DECAGON_REQUESTS_PER_SECOND=0,
        PATH=f"{BINARY.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    # test_install.py runs those that install it, and test_stores.py those of the clouds.
    elsewhere = ("pip ", "sudo ", "cargo ", "tests/run")
    others = [block for block in blocks("sh") if block.startswith(elsewhere)]
    assert [block.split()[0] for block in others] == ["pip", "sudo", "cargo", "tests/run"]
    assert os.access(ROOT / "tests" / "run", os.X_OK)  # this very run
    at_home = [block for block in blocks("sh") if block not in others and "check --lake" not in block]
    script = "\n".join(["set -eu", *at_home]).replace("your key", KEY)
    assert KEY in script and all(f"decagon-lake {name}" in script for name in ("sync", "backfill", "verify", "views"))
    subprocess.run(["bash", "-c", script], check=True, cwd=tmp_path, env=env, capture_output=True, timeout=300)

    monkeypatch.chdir(tmp_path)
    [sql] = blocks("sql")
    deflection, csat, text = [result for result in execute(sql) if result and len(result[0]) > 1] + [[]]
    assert sum(row[1] for row in deflection) == 400
    assert {row[0] for row in csat} >= {"Billing", "Refund"}


def test_the_readme_names_every_column():
    rows = dict(re.findall(r"^\| (conversations|messages|tags|audit_logs) \| (.*) \|$", README, re.MULTILINE))
    rust = (ROOT / "src" / "model" / "columns" / "tests.rs").read_text()
    assert set(rows) == {"conversations", "messages", "tags", "audit_logs"}
    for table, columns in rows.items():
        promised = re.sub(r"\\\n\s*", "", rust)
        assert f'"{columns}"' in promised, f"{table}: the README and the columns' own test differ"


@pytest.mark.parametrize("by, days, partitions", [("day", 9, {7}), ("month", 60, {3, 4})])
def test_demo_prints_what_duckdb_finds(tmp_path, by, days, partitions):
    asked = ["--conversations", 600, "--days", days, "--partition-by", by]
    done = run("demo", "--lake", tmp_path / "demo", *asked, key=None)
    printed = dict(re.findall(r"^(conversations|messages|tags|audit_logs) +([\d,]+) ", done.stdout, re.MULTILINE))
    assert len(printed) == 4 and int(printed["conversations"].replace(",", "")) > 600
    for table, rows in printed.items():
        counted = connect().sql(f"SELECT count(*) FROM '{tmp_path}/demo/{table}/*/*.parquet'").fetchone()[0]
        assert counted == int(rows.replace(",", "")), table
    summary = re.search(r"^([\d,]+) versions .*?, ([\d,]+) duplicates? resolved", done.stdout, re.MULTILINE)
    versions, resolved = summary.groups()
    rows = int(printed["conversations"].replace(",", ""))
    assert int(versions.replace(",", "")) - int(resolved.replace(",", "")) == rows and int(resolved) > 0

    sql = done.stdout.split("-- DuckDB\n")[1].split("# Spark")[0]
    counts, deflection, csat = [result for result in execute(sql) if result and len(result[0]) > 1]
    assert counts == [(rows, int(printed["messages"].replace(",", "")))]
    assert len(deflection) in partitions and csat

    again = run("demo", "--lake", tmp_path / "demo", "--conversations", 50, key=None)
    assert re.search("duplicates? resolved", again.stdout), "an earlier demo's lake is replaced"


def test_demo_removes_nothing_of_others(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("two years of work")
    done = run("demo", "--lake", tmp_path / "mine", code=2, key=None)
    assert "--lake" in done.stderr and (tmp_path / "mine" / "thesis.txt").exists()


def test_demo_removes_no_lake_but_its_own(simulate, command, lake):
    command("sync", simulate("--conversations", 20))
    run("demo", "--lake", lake, code=2, key=None)
    assert read_table(lake, "conversations")


def test_demo_is_not_that_of_the_real_account(tmp_path):
    env = {"DECAGON_USER_FILTERS": '{"deflected_filter": true}', "DECAGON_PAGE_SIZE": "7"}
    done = run("demo", "--lake", tmp_path / "demo", "--conversations", 200, key=None, **env)
    assert re.search(r"^conversations +2\d\d ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("by", COLUMN)
def test_the_example_queries(simulate, command, by):
    api = simulate("--conversations", 300, "--days", 20)
    command("sync", api, "--partition-by", by)
    known = api.conversations()
    api.advance(hours=5)
    command("export", api)
    queries = (ROOT / "examples" / "queries.sql").read_text()
    assert queries.count("now()") == 1
    queries = queries.replace("now()", "TIMESTAMPTZ '2024-03-01 05:00:00+00'")
    done = execute(command("views", None, "--engine", "duckdb").stdout + queries)
    results = [rows for rows in done if rows and len(rows[0]) > 1]
    assert len(results) == len(re.findall(r"^-- The .*[:?]", queries, re.MULTILINE)) == 7, "each says who asks"
    assert all(results)
    deflection, csat, longest, handovers, said, changed, _ = results

    by_day, by_tag, by_week = defaultdict(list), defaultdict(list), defaultdict(list)
    for c in known:
        day = instant(c["created_at"]).date()
        week = day - timedelta(days=day.weekday())
        by_day[day].append(not c["undeflected"])
        by_week[week].append(c["destination"] != "AI" or any(m["role"] == "AGENT" for m in c["messages"]))
        for tag in {tag["name"] for tag in c["tags"]} if c["csat_rating"] is not None else ():
            by_tag[tag, week].append(c["csat_rating"])
    assert deflection == [(day, len(of), pytest.approx(sum(of) / len(of), abs=5e-4)) for day, of in sorted(by_day.items())]
    assert csat == [(*key, len(of), pytest.approx(sum(of) / len(of), abs=5e-3)) for key, of in sorted(by_tag.items())]
    assert handovers == [(week, len(of), pytest.approx(sum(of) / len(of), abs=5e-4)) for week, of in sorted(by_week.items())]
    assert [row[3] for row in longest] == sorted((len(c["messages"]) for c in known), reverse=True)[:10]
    users = Counter(c["user_id"] for c in known)
    [user] = {c["user_id"] for c in known if c["conversation_id"] in {row[1] for row in said}}
    assert users[user] == max(users.values())
    assert sorted(row[4] for row in said) == sorted(
        m["text"] for c in known if c["user_id"] == user for m in c["messages"] if m["role"] == "USER")
    yesterday = instant("2024-02-29T00:00:00Z")
    fresh = {c["conversation_id"] for c in api.conversations() if instant(c["updated_at"]) >= yesterday}
    assert {row[0] for row in changed} == fresh and fresh - {c["conversation_id"] for c in known}


@pytest.mark.parametrize("key, code", [(KEY, 0), ("a-wrong-key", 3)])
def test_the_scheduled_script(simulate, lake, tmp_path, key, code):
    api = simulate("--conversations", 20)
    env = environment(
        DECAGON_LAKE=lake, DECAGON_BASE_URL=api.url, DECAGON_API_KEY=key, PATH=f"{BINARY.parent}:{os.environ['PATH']}",
    )
    done = subprocess.run([ROOT / "examples" / "hourly.sh"], cwd=tmp_path, env=env, capture_output=True, timeout=300)
    assert done.returncode == code
    assert len((tmp_path / "reports.jsonl").read_text().splitlines()) == 1


def test_a_program_can_embed_the_crate(simulate, tmp_path):
    simulator = simulate("--conversations", "300", "--requests-per-second", "0")
    embed = [ROOT / "target" / "release" / "examples" / "embed", tmp_path / "lake", simulator.url]
    for first in ("3 pages fetched, 300 conversations in ", ""):
        done = subprocess.run(
            embed, env=environment(DECAGON_API_KEY=KEY), capture_output=True, text=True, check=True, timeout=300
        )
        assert done.stdout.startswith(first) and f", 300 conversations in {tmp_path}/lake" in done.stdout, done.stdout
    assert run("verify", "--lake", tmp_path / "lake").stdout


def test_the_library_example():
    page = (ROOT / "tests" / "vendor" / "example_response.json").read_bytes()
    done = subprocess.run(
        [ROOT / "target" / "release" / "examples" / "flatten_page"], input=page, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == [
        "conversations", "1", "rows", "messages", "2", "rows", "tags", "1", "rows", "audit_logs", "1", "rows",
        "next", "page", "at", "151050148",
    ]
