"""The dbt project in `examples/dbt`: it is built on a demo's lake, and its numbers are those of plain queries."""

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import yaml
from conftest import ROOT, environment, run

PROJECT = ROOT / "examples" / "dbt"
# The same numbers from the lake's files, below the views and the models.
MARTS = {
    "daily_deflection": """
        SELECT created_at::DATE, count(*), sum((NOT undeflected)::INT), avg((NOT undeflected)::INT)
        FROM conversations WHERE deleted_at IS NULL GROUP BY 1""",
    "csat_by_tag": """
        SELECT tag, count(*), count(coalesce(csat_rating, csat)), avg(coalesce(csat_rating, csat)) FROM conversations
        JOIN (SELECT DISTINCT conversation_id, coalesce(name, tag_id) AS tag FROM tags) USING (conversation_id)
        WHERE deleted_at IS NULL GROUP BY tag""",
    "agent_handovers": """
        SELECT date_trunc('week', created_at)::DATE, count(*), sum(handed::INT), avg(handed::INT)
        FROM (SELECT created_at, destination <> 'AI' OR conversation_id IN (
            SELECT conversation_id FROM messages WHERE role NOT IN ('USER', 'AI')) AS handed
          FROM conversations WHERE deleted_at IS NULL) GROUP BY 1""",
}


@pytest.fixture
def project(tmp_path):
    """The project, beside a demo's lake."""
    folder = tmp_path / "project"
    # What someone has built in the repository stays there.
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("target", "logs", "*.duckdb", "demo-lake", "__pycache__"))
    run("demo", "--conversations", 600, "--days", 20, cwd=folder, key=None)
    return folder


def oldest(project):
    """The table file of the first day's conversations."""
    return min((project / "demo-lake" / "conversations").glob("*/*.parquet"))


def dbt(project, packages, *arguments, code=0):
    command = [Path(sys.executable).parent / "dbt", "--no-use-colors", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300,
                          env=environment(PYTHONPATH=packages, DECAGON_LAKE="demo-lake"))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def described():
    """The columns of each mart, as the project describes them."""
    models = yaml.safe_load((PROJECT / "models" / "marts" / "schema.yml").read_text())["models"]
    assert all(of["description"] for model in models for of in (model, *model["columns"]))
    return {model["name"]: [column["name"] for column in model["columns"]] for model in models}


def test_the_marts_have_the_numbers_of_plain_queries(project, packages):
    # A conversation as `reconcile --on-deleted mark` leaves it, which must not count; and one whose rating is in `csat`.
    file = oldest(project)
    duckdb.sql(f"""COPY (
        SELECT * EXCLUDE n REPLACE (CASE WHEN n = 1 THEN now() END AS deleted_at,
          CASE WHEN n <> 2 THEN csat_rating END AS csat_rating, CASE WHEN n = 2 THEN 4::INT END AS csat)
        FROM (SELECT *, row_number() OVER () AS n FROM read_parquet('{file}', hive_partitioning = false))
      ) TO '{file}.new' (FORMAT parquet)""")
    Path(f"{file}.new").replace(file)
    assert " WARN=0 ERROR=0 SKIP=0 " in dbt(project, packages, "build")

    plain = duckdb.connect()
    plain.execute("SET TimeZone = 'UTC'")
    for table in ("conversations", "messages", "tags"):
        plain.execute(f"CREATE VIEW {table} AS FROM read_parquet('{project}/demo-lake/{table}/*/*.parquet', union_by_name = true)")
    [(kept, marked)] = plain.sql("SELECT count(*) FILTER (deleted_at IS NULL), count(deleted_at) FROM conversations").fetchall()
    assert kept > 600 and marked == 1
    with duckdb.connect(project / "decagon.duckdb", read_only=True) as made:
        for name, columns in described().items():
            relation, expected = made.sql(f"FROM {name}"), sorted(plain.sql(MARTS[name]).fetchall())
            assert relation.columns == columns
            found = sorted(relation.fetchall())
            assert [row[:3] for row in found] == [row[:3] for row in expected]
            assert [row[3] for row in found] == pytest.approx([row[3] for row in expected])
            assert len(found) > 2 and sum(row[2] for row in found) > 100


def test_its_tests_would_notice_a_conversation_that_is_there_twice(project, packages):
    shutil.copy(oldest(project), oldest(project).with_name("part-1.parquet"))
    said = dbt(project, packages, "build", "--select", "stg_conversations", code=1)
    assert "FAIL" in said and "unique_stg_conversations_conversation_id" in said


def test_the_readme_names_the_columns_of_each_mart():
    readme = (PROJECT / "README.md").read_text()
    assert described().keys() == MARTS.keys()
    for name, (key, *others) in described().items():
        assert f"| `{name}` | {key} | {', '.join(others)} |" in readme
