"""What a scheduler learns of a run from `--metrics-file`, read as Prometheus reads it."""

import json
import re
import subprocess
import time

import pytest
from conftest import BINARY, environment
from prometheus_client.parser import text_string_to_metric_families
from truth import TABLES, read_table


def read(file):
    """Every figure: name without its prefix, labels, value."""
    text = file.read_text()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(set(names)) == len(names) > 15 and text.endswith("\n")
    for family in families:
        assert family.name.startswith("decagon_lake_") and family.type == "gauge" and family.documentation
    return {
        (sample.name.removeprefix("decagon_lake_"), *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def figures(tmp_path, lake):
    """The figures of a command on the test's lake, by name; those by table as a dictionary."""

    def figures(command="sync"):
        found = {}
        for (name, *labels), value in read(tmp_path / "decagon.prom").items():
            labels = dict(labels)
            if (labels.pop("command"), labels.pop("lake")) == (command, str(lake)):
                if labels:
                    found.setdefault(name, {})[next(iter(labels.values()))] = value
                else:
                    found[name] = value
        return found

    return figures


def test_the_figures_of_a_run_are_those_of_its_report(simulate, command, lake, tmp_path, figures):
    api = simulate("--conversations", 350, "--days", 5, "--fault-every", 3)
    since = time.time()
    for hours in (0, 20):
        api.advance(hours=hours)
        done = command("sync", api, "--json", DECAGON_METRICS_FILE=tmp_path / "decagon.prom")
        report, found = json.loads(done.stdout), figures()
        assert found["last_run_exit_code"] == 0 and found["last_run_retries"] > 0
        for name in ("requests", "retries", "pages", "page_bytes", "quarantined", "compacted_copies", "duplicates_resolved"):
            assert found[f"last_run_{name}"] == report[name], name
        for name in ("landed_rows", "landed_bytes", "table_rows", "table_bytes", "store_calls"):
            assert found[f"last_run_{name}"] == report[name], name
        assert found["last_run_compacted_dates"] == len(report["compacted_dates"])
        assert since < found["last_run_timestamp_seconds"] == found["last_success_timestamp_seconds"] < time.time() + 1
        assert 0 < found["last_run_duration_seconds"] < 60
        status = json.loads(command("status", None, "--json").stdout)
        assert 0 <= status["lag_secs"] - int(found["lag_seconds"]) < 300
        for name, field in [("table_rows", "rows"), ("table_bytes", "bytes"), ("table_partitions", "dates")]:
            assert found[name] == {table: status["tables"][table][field] for table in TABLES}
        assert found["watermark_timestamp_seconds"] + found["lag_seconds"] == pytest.approx(found["last_run_timestamp_seconds"])
    assert found["last_run_duplicates_resolved"] > 0
    assert all(found["last_run_table_rows"][table] <= len(read_table(lake, table)) for table in TABLES)
    assert [path.name for path in tmp_path.iterdir() if path != lake] == ["decagon.prom"], "nothing is left beside it"


def test_a_run_that_fails_says_so_and_keeps_the_last_success(simulate, command, lake, tmp_path, figures):
    api = simulate("--conversations", 30)
    file = tmp_path / "decagon.prom"
    metrics = {"DECAGON_METRICS_FILE": file}
    command("sync", api, **metrics, code=3, key="a-wrong-key")
    assert figures()["last_run_exit_code"] == 3 and "last_success_timestamp_seconds" not in figures()

    file.write_bytes(b"\xff of another shape")
    command("sync", api, **metrics)
    command("export", api, **metrics)
    before = figures()
    failing = [
        (2, lambda: command("sync", api, **metrics, code=2, key="")),
        (3, lambda: command("sync", api, **metrics, code=3, key="a-wrong-key")),
        (2, lambda: command("sync", api, "--user-filters", '{"a": 1}', **metrics, code=2)),
        (4, lambda: api.stop() or command("sync", api, "--max-tries", 1, **metrics, code=4)),
    ]
    for code, fail in failing:
        fail()
        now = figures()
        assert now["last_run_exit_code"] == code
        for name in ("last_success_timestamp_seconds", "watermark_timestamp_seconds"):
            assert now[name] == before[name], code
        assert now["last_run_timestamp_seconds"] > before["last_run_timestamp_seconds"]
        # The first run that reaches the API compacts the files that `export` has staged.
        assert set(now) == set(before) and bool(now["last_run_table_rows"]["messages"]) == (code == 3)
    assert figures("export")["last_run_exit_code"] == 0, "that of the other command is still there"

    lake.rename(tmp_path / "aside")
    lake.write_text("no folder")
    command("sync", api, **metrics, code=5)
    assert figures()["last_run_exit_code"] == 5 and figures()["watermark_timestamp_seconds"] > 0


def test_another_run_that_holds_the_lake_shows_in_the_metrics(simulate, command, lake, tmp_path, figures):
    api = simulate("--conversations", 350)
    api.hold()
    first = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0"],
        env=environment(DECAGON_API_KEY="simulated-key"), stderr=subprocess.PIPE, text=True,
    )
    api.wait_for(1, first)
    command("sync", api, "--metrics-file", tmp_path / "decagon.prom", code=7)
    assert figures()["last_run_exit_code"] == 7
    first.kill()
    first.communicate()


def test_quarantined_entries_are_counted(command, serve, tmp_path, figures):
    api = serve(json.dumps({"conversations": [{"no": "conversation"}], "next_cursor": None}))
    command("sync", api, "--metrics-file", tmp_path / "decagon.prom", code=6)
    found = figures()
    assert found["last_run_exit_code"] == 6 and found["last_run_quarantined"] == 1
    assert found["last_success_timestamp_seconds"] == found["last_run_timestamp_seconds"], "everything else is in the lake"


def test_lakes_of_any_name(simulate, command, tmp_path):
    api, file = simulate("--conversations", 3), tmp_path / "decagon.prom"
    names = [tmp_path / 'a"b\\c', tmp_path / 'a"b\\c d} 1', tmp_path / "two\nlines"]
    for name in names:
        command("compact", None, "--lake", name, "--metrics-file", file, code=2)
    # An address that contains a password is refused, and the file does not show the password.
    command("compact", None, "--lake", "s3://me:sesame@bucket/x?sig=sesame", "--metrics-file", file, code=2)
    lakes = {dict(labels)["lake"] for name, *labels in read(file) if name == "last_run_exit_code"}
    assert lakes == {*map(str, names), "s3://me@bucket/x"}
    assert "sesame" not in file.read_text()


def test_a_file_that_cannot_be_written_fails_no_run(simulate, command, tmp_path):
    api = simulate("--conversations", 3)
    for file in (tmp_path / "nowhere" / "decagon.prom", tmp_path, "/dev/null"):
        assert "cannot write the metrics" in command("sync", api, "--metrics-file", file).stderr


def bash(script):
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_flags():
    script = subprocess.run([BINARY, "completions", "bash"], capture_output=True, text=True, check=True).stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    # As readline calls it: the function that `complete` registers, with the words so far.
    ask = """set +u; source <("$0" completions bash); function=$(complete -p decagon-lake | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=({words}); COMP_CWORD={last}; "$function" decagon-lake {cur} {prev}; printf '%s\\n' "${{COMPREPLY[@]}}" """
    ask = ask.replace('"$0"', f'"{BINARY}"')
    assert bash(ask.format(words="decagon-lake bac", last=1, cur="bac", prev="decagon-lake")) == ["backfill"]
    found = bash(ask.format(words="decagon-lake sync --metr", last=2, cur="--metr", prev="sync"))
    assert found == ["--metrics-file"]


def test_the_manual_page():
    page = subprocess.run([BINARY, "man"], capture_output=True, text=True, check=True).stdout
    assert page.count("\n.TH decagon-lake 1 ") == 1
    sections = [line.split('"')[1] for line in page.splitlines() if line.startswith('.SH "decagon-lake ')]
    usage = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z]+) ", usage.split("Commands:")[1].split("Options:")[0], re.MULTILINE)
    # One has a command of its own.
    commands = [command for name in commands if name != "help" for command in {"policy": ("policy", "policy test")}.get(name, (name,))]
    assert sections == [f"decagon-lake {name}" for name in commands] and len(sections) > 9
    for name in commands:
        usage = subprocess.run([BINARY, *name.split(), "--help"], capture_output=True, text=True, check=True).stdout
        for variable in re.findall(r"\[env: (DECAGON_\w+)", usage):
            assert variable in page, variable
