"""What users run into: wrong input, wrong keys, interruptions, pipes, and the messages about them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import BINARY, KEY, PATIENCE_SECS, environment, page, run
from truth import assert_exact, instant, read_table


def conversation(own_id, **fields):
    return {"conversation_id": own_id, "created_at": "2024-01-01 10:00:00", "messages": [], **fields}


# -- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["sync"], "--lake"),
        (["sync", "--lake", "x", "--base-url", "api.decagon.ai"], "--base-url"),
        (["sync", "--lake", "x", "--base-url", "http://api.decagon.ai"], "--allow-http"),
        (["sync", "--lake", "x", "--user-filters", "[1]"], "--user-filters"),
        (["sync", "--lake", "x", "--requests-per-second", "-1"], "--requests-per-second"),
        (["sync", "--lake", "x", "--page-size", "0"], "--page-size"),
        (["sync", "--lake", "x", "--page-size", "many"], "expected auto, none, or a number from 1"),
        (["simulate", "--then-on-page-size", "cap"], "--then-after"),
        (["sync", "--lake", "x", "--overlap", "soon"], "--overlap"),
        (["sync", "--lake", ""], "--lake"),
        (["sync", "--lake", "gopher://x/y"], "gopher://x/y"),
        (["backfill", "--lake", "x", "--from", "yesterday", "--to", "2024-01-02"], "--from"),
        (["backfill", "--lake", "x", "--from", "2024-01-02", "--to", "2024-01-01"], "--from"),
        (["status", "--lake", "no-such-lake"], "no-such-lake"),
        (["compact", "--lake", "no-such-lake"], "no-such-lake"),
        (["sync", "--lake", "x", "--api-key-file", "no-such-file"], "no-such-file"),
    ],
)
def test_wrong_input_is_named(arguments, named, tmp_path):
    done = run(*arguments, code=2, cwd=tmp_path)
    assert named in done.stderr and not done.stdout
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_no_key_and_an_empty_key(tmp_path):
    done = run("sync", "--lake", tmp_path / "lake", key=None, code=2)
    assert "DECAGON_API_KEY" in done.stderr and "--api-key-file" in done.stderr
    assert "DECAGON_API_KEY" in run("sync", "--lake", tmp_path / "lake", key=" ", code=2).stderr


def test_the_key_from_a_file(simulate, command, lake, tmp_path):
    api = simulate("--conversations", 20)
    (tmp_path / "key").write_text(f"{KEY}\n")
    command("sync", api, "--api-key-file", tmp_path / "key", key=None)
    assert_exact(lake, api.conversations())


def test_every_flag_may_come_from_the_environment(simulate, lake):
    api = simulate("--conversations", 20)
    done = run("sync", DECAGON_LAKE=lake, DECAGON_BASE_URL=api.url, DECAGON_REQUESTS_PER_SECOND=0, DECAGON_JSON=1)
    assert json.loads(done.stdout)["outcome"] == "done"


def test_a_wrong_key_is_refused_at_once_and_shown_nowhere(simulate, command):
    api = simulate("--conversations", 20)
    done = command("sync", api, key="very-secret-key", code=3)
    assert "does not accept the API key" in done.stderr and "Invalid Authorization token" in done.stderr
    assert "very-secret" not in done.stderr + done.stdout
    assert api.gaps()[0] == 1, "asked once"


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_that_a_server_quotes_is_shown_and_kept_nowhere(serve, command, lake, status):
    body = json.dumps({"headers": {"authorization": "Bearer very-secret-key"}})
    done = command("sync", serve((status, {}, body)), "-v", "--max-tries", "1", key="very-secret-key", code=4 if status == 500 else 3)
    kept = b"".join(path.read_bytes() for path in Path(lake).rglob("*") if path.is_file())
    assert "***" in done.stderr and b"***" in kept
    assert "very-secret" not in done.stderr + done.stdout and b"very-secret" not in kept


def test_after_a_refusal_the_right_address_may_be_given(serve, simulate, command, lake):
    command("sync", serve((401, {}, "{}")), code=3)
    api = simulate("--conversations", 20)
    command("sync", api)
    assert_exact(lake, api.conversations())


def test_loopback_is_asked_without_a_proxy(simulate, command, serve):
    proxy = serve("{}")
    command("sync", simulate("--conversations", 20), HTTP_PROXY=proxy.url, http_proxy=proxy.url, ALL_PROXY=proxy.url)
    assert not proxy.asked, "the key would have gone through it unencrypted"


@pytest.mark.parametrize(
    "status, words", [(403, "entitlement"), (422, "refuses a parameter"), (400, "refuses a parameter"), (404, "--base-url")]
)
def test_refusals_are_distinguished(serve, command, status, words):
    api = serve((status, {}, '{"detail": "the words of the server"}'))
    done = command("sync", api, code=3)
    assert words in done.stderr and "the words of the server" in done.stderr
    # The parameter that is refused may be page_size, so the same is asked once more without it.
    assert ["page_size" in asked for asked in api.asked] == ([True, False] if "parameter" in words else [True])


def test_an_account_that_may_not_export(simulate, command):
    assert "entitlement" in command("sync", simulate("--not-entitled"), code=3).stderr


def test_an_unreachable_api(command, lake):
    class Nobody:
        url = "http://127.0.0.1:9"

    done = command("sync", Nobody, "--max-tries", "2", code=4)
    assert "127.0.0.1:9" in done.stderr and "gave up after 2 tries" in done.stderr


def test_a_response_that_is_not_a_page(serve, command):
    done = command("sync", serve('{"data": []}'), code=3)
    assert "no array `conversations`" in done.stderr


def test_a_response_that_is_not_json(serve, command):
    done = command("sync", serve("<html>Bad gateway</html>"), "--max-tries", "1", code=3)
    assert "Bad gateway" in done.stderr


def test_a_repeated_cursor_ends_the_run_and_loses_nothing(serve, command, lake):
    api = serve(page(conversation("a"), cursor="x"), page(conversation("b"), cursor="x"))
    done = command("sync", api, code=3)
    assert "paging is stuck" in done.stderr
    command("compact")
    assert sorted(row["conversation_id"] for row in read_table(lake, "conversations")) == ["a", "b"]
    assert len(api.asked) == 2


def test_a_loop_of_cursors_ends_the_run(serve, command, lake):
    loop = [page(conversation(str(n)), cursor="ab"[n % 2]) for n in range(20)]
    api = serve(*loop)
    done = command("sync", api, code=3)
    assert "paging is stuck" in done.stderr and len(api.asked) == 3


def test_an_empty_page_with_the_same_cursor_is_the_end(serve, command, lake):
    api = serve(page(conversation("a"), cursor="x"), page(cursor="x"))
    done = json.loads(command("sync", api, "--json").stdout)
    assert done["outcome"] == "done" and len(api.asked) == 2
    assert len(read_table(lake, "conversations")) == 1


def test_a_walk_whose_cursor_is_refused_later_starts_over(serve, command, lake):
    api = serve(page(conversation("a"), cursor="old"), (401, {}, "{}"), (404, {}, "{}"), page(conversation("b")))
    command("sync", api, code=3)
    command("sync", api)
    assert "cursor=old" in api.asked[2] and "cursor=" not in api.asked[3]
    assert_exact(lake, [conversation("a"), conversation("b")])


def test_a_response_that_is_too_large(serve, command):
    done = command("sync", serve(page(conversation("a", notes="x" * 5000))), "--max-response-bytes", "4KB", code=3)
    assert "--max-response-bytes" in done.stderr


def test_a_lake_that_cannot_be_written(simulate, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    api = simulate("--conversations", 20)
    done = run("sync", "--lake", tmp_path / "file" / "lake", "--base-url", api.url, code=5)
    assert str(tmp_path / "file") in done.stderr


def test_another_account_is_not_mixed_in(simulate, command):
    command("sync", simulate("--conversations", 20))
    other = simulate("--conversations", 20, "--seed", 2)
    for name, more in (("sync", []), ("backfill", ["--from", "2024-01-01", "--to", "2024-03-01"])):
        done = command(name, other, *more, code=2)
        assert other.url in done.stderr and "--base-url" in done.stderr
    assert other.gaps()[0] == 0


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_malformed_entry_is_quarantined_and_the_others_stay(serve, command, lake):
    odd = {"user_id": "u", "messages": [{"text": "whose?"}]}
    api = serve(page(conversation("a"), odd, "what?", conversation("b"), cursor="2"), page(conversation("c")))
    done = command("sync", api, "--json", code=6)
    assert "2 malformed entries were quarantined" in done.stderr and "_state/quarantine" in done.stderr
    result = json.loads(done.stdout)
    assert result["quarantined"] == 2 and result["outcome"] == "set_aside"
    assert {row["conversation_id"] for row in read_table(lake, "conversations")} == {"a", "b", "c"}
    [file] = Path(lake, "_state", "quarantine").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["reason"], json.loads(line["raw"])) for line in lines] == [
        ("no conversation_id", odd),
        ("not a JSON object", "what?"),
    ]


def test_a_conversation_without_a_date_has_a_partition_of_its_own(serve, command, lake):
    command("sync", serve(page(conversation("a", created_at="soon"), conversation("b"))))
    assert {p.name for p in Path(lake, "messages").iterdir()} == {
        "created_date=__HIVE_DEFAULT_PARTITION__",
        "created_date=2024-01-01",
    }
    rows = {row["conversation_id"]: row for row in read_table(lake, "conversations")}
    assert rows["a"]["created_date"] is None and rows["a"]["extra"] == {"created_at": "soon"}
    assert json.loads(command("status", None, "--json").stdout)["tables"]["conversations"]["rows"] == 2


def test_an_empty_page_with_a_cursor_is_not_the_end(serve, command, lake):
    command("sync", serve(page(conversation("a"), cursor="1"), page(cursor="2"), page(conversation("b"))))
    assert len(read_table(lake, "conversations")) == 2


def test_an_account_without_conversations(simulate, command):
    api = simulate("--conversations", 0)
    done = json.loads(command("sync", api, "--json").stdout)
    assert done["outcome"] == "done" and done["landed_objects"] == 0
    command("sync", api)
    assert "staging    empty" in command("status").stdout


def test_the_latest_version_wins_in_any_order(serve, command, lake):
    newer = conversation("a", updated_at="2024-01-03T00:00:00Z", messages=[{"text": "only"}], tags=[{"name": "x"}])
    older = conversation("a", updated_at="2024-01-02T00:00:00Z", messages=[{"text": "one"}, {"text": "two"}])
    api = serve(page(newer, older, conversation("b"), cursor="1"), page(older))
    command("sync", api)
    assert_exact(lake, [newer, conversation("b")])


def test_the_later_of_equal_versions_wins_with_fewer_messages_too(serve, command, lake):
    before = conversation("a", updated_at="2024-01-02T00:00:00Z", messages=[{"text": "one"}, {"text": "two"}])
    after = {**before, "messages": [{"text": "one"}], "csat_rating": 5}
    api = serve(page(before), page(after))
    command("sync", api)
    command("sync", api)
    assert_exact(lake, [after])


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stages_what_it_has_and_is_continued(simulate, command, lake, sent):
    api = simulate("--conversations", 1_960, "--messages", 3)
    api.hold(after=3)
    process = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0"],
        stderr=subprocess.PIPE, text=True, env=environment(DECAGON_API_KEY=KEY),
    )
    api.wait_for(4, process)
    process.send_signal(sent)
    assert any("stopping when" in line for line in process.stderr)
    api.release()
    output = process.stderr.read()
    assert process.wait(timeout=PATIENCE_SECS) == 130 and "run the same command again" in output

    status = json.loads(command("status", None, "--json").stdout)
    [walk] = status["unfinished"]
    assert walk["command"] == "export" and walk["pages"] == 4, "with the page that was under way"
    assert status["landing"]["rows"]["conversations"] == walk["conversations"] > 0
    assert "unfinished export" in command("status").stdout

    done = json.loads(command("sync", api, "--json").stdout)
    assert done["resumed"] and done["pages"] == 20 - walk["pages"]
    assert_exact(lake, api.conversations())
    assert json.loads(command("status", None, "--json").stdout)["unfinished"] == []


def test_a_backfill_continues_where_it_was_interrupted(serve, simulate, command, lake):
    window = ["--from", "2024-01-01", "--to", "2024-01-02", "--timestamp-filter", "created_at"]
    api = serve(
        page(conversation("a"), cursor="1"), (401, {}, "{}"),  # the key is withdrawn for a while
        page(conversation("b"), cursor="2"), page(conversation("c")),
    )
    command("backfill", api, *window, code=3)
    [walk] = json.loads(command("status", None, "--json").stdout)["unfinished"]
    assert walk["command"] == "backfill" and walk["pages"] == 1
    command("backfill", api, *window)
    assert [request.split("cursor=")[1].split("&")[0] for request in api.asked[1:4]] == ["1", "1", "2"]
    first, *later = (request.replace("&cursor=1", "").replace("&cursor=2", "") for request in api.asked[:4])
    assert set(later) == {first}, "a resumed walk asks for exactly the same"
    command("compact")
    assert_exact(lake, [conversation(own_id) for own_id in "abc"])


# -- output -----------------------------------------------------------------------------------------------------------


def test_logs_for_machines_and_the_report_in_the_lake(simulate, command, lake):
    api = simulate("--conversations", 120)
    done = command("sync", api, "--json", "--log-format", "json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines and all(line["level"] == "INFO" and line["message"] for line in lines)
    printed = json.loads(done.stdout)
    [report] = Path(lake, "_state", "runs").iterdir()
    assert json.loads(report.read_text()) == printed
    assert report.stem == printed["run_id"]
    assert printed["command"] == "sync" and printed["landed_rows"]["conversations"] == 120


def test_quiet_is_quiet_and_verbose_logs_more(simulate, command):
    api = simulate("--conversations", 20)
    assert command("sync", api, "-q", DECAGON_VERBOSE=1).stderr == ""
    assert "committed" in command("sync", api, "-v", DECAGON_QUIET=0).stderr


def test_a_failed_run_leaves_a_report_too(serve, command, lake):
    api = serve(page(conversation("a"), cursor="1"), (401, {}, "{}"))
    command("sync", api, code=3)
    [report] = Path(lake, "_state", "runs").iterdir()
    result = json.loads(report.read_text())
    assert result["outcome"] == "failed" and "401" in result["error"][0]
    assert result["landed_rows"]["conversations"] == 1


def test_status_adds_up(simulate, command, lake):
    api = simulate("--conversations", 300, "--days", 5)
    command("export", api)
    status = json.loads(command("status", None, "--json").stdout)
    assert status["landing"]["rows"]["conversations"] == 300 and status["landing"]["dates"] in (5, 6)
    assert status["tables"]["conversations"]["rows"] == 0
    command("compact")
    status = json.loads(command("status", None, "--json").stdout)
    conversations = api.conversations()
    newest = max(instant(c["updated_at"]) for c in conversations)
    assert status["landing"]["objects"] == 0 and status["lag_secs"] > 0
    assert status["tables"]["conversations"]["rows"] == 300
    assert status["tables"]["messages"]["rows"] == sum(len(c["messages"]) for c in conversations)
    assert status["tables"]["tags"]["bytes"] == sum(f.stat().st_size for f in Path(lake, "tags").rglob("*.parquet"))
    assert instant(status["watermark"]) == newest
    table = command("status").stdout
    assert f"watermark  {newest:%Y-%m-%d %H:%M:%S} UTC" in table and "conversations             300" in table


def test_a_closed_pipe_is_not_a_failure(simulate, command, lake):
    command("sync", simulate("--conversations", 20))
    done = subprocess.run(
        f"set -o pipefail; {BINARY} status --lake {lake} | true", shell=True, executable="/bin/bash", capture_output=True,
        text=True, env=environment(),
    )
    assert done.returncode == 0 and not done.stderr


def test_help_teaches():
    text = run("--help", key=None).stdout
    assert "decagon-lake demo" in text and "Exit codes" in text
    for name in ("sync", "export", "backfill", "compact", "status", "views", "simulate", "demo"):
        assert f"  {name}" in text
        assert "[env: DECAGON_" in run(name, "--help", key=None).stdout


def test_progress_on_a_terminal_is_one_line(simulate, lake):
    import pty

    api = simulate("--conversations", 600)
    api.hold(after=3)
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "5"],
        stderr=secondary, env=environment(DECAGON_API_KEY=KEY, TERM="xterm", COLUMNS="60"),
    )
    os.close(secondary)
    shown = b""
    while True:
        try:
            chunk = os.read(primary, 4096)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
        if "conversations · at 2024-".encode() in shown:
            api.release()
    assert process.wait(timeout=PATIENCE_SECS) == 0
    text = shown.decode()
    assert "conversations · at 2024-" in text and "sync done" in text
    lines = [line for line in text.split("\n") if " pages · " in line]
    assert all("INFO" in line.split("\r")[-1] or "\x1b[2K" in line for line in lines), "always the same line"
    assert len(lines) <= 2, lines


def test_no_more_is_asked_of_the_api_once_the_store_has_failed(simulate, command, lake):
    api = simulate("--conversations", 3_000, "--messages", 2)
    lake.mkdir()
    (lake / "_landing").write_text("in the way")
    # So slow that the run notices the store's failure while many pages are left.
    done = command("sync", api, "--requests-per-second", "1", "--flush-conversations", "100", code=5)
    assert "_landing" in done.stderr
    assert api.gaps()[0] < 30, "the pages that there are"
    (lake / "_landing").unlink()
    command("sync", api)
    assert_exact(lake, api.conversations())


# -- failures that pass -----------------------------------------------------------------------------------------------


def test_failures_that_pass_are_tried_again_at_the_same_pace(serve, command, lake):
    html = "<html><body>Service Unavailable</body></html>"
    api = serve(
        (503, {}, html), (429, {"Retry-After": "2"}, "{}"), page(conversation("cut"))[:40], page(conversation("a")),
    )
    done = command("sync", api, "--json", "--requests-per-second", "1")
    result = json.loads(done.stdout)
    assert result["requests"] == 4 and result["retries"] == 3
    assert done.stderr.count("trying again") == 3 and "Service Unavailable" in done.stderr
    gaps = [later - earlier for earlier, later in zip(api.times, api.times[1:])]
    assert min(gaps) >= 1 and gaps[1] >= 2, "never within the limit, and as late as the server asks"
    assert_exact(lake, [conversation("a")])


def test_a_lake_is_exact_with_everything_the_api_is_known_to_do(simulate, command, lake):
    api = simulate("--conversations", 500, "--fault-every", 2)
    done = json.loads(command("sync", api, "--json").stdout)
    assert done["retries"] >= 3
    assert_exact(lake, api.conversations())


# -- kills ------------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_is_continued(simulate, command, lake):
    api = simulate("--conversations", 1_500, "--days", 12, "--messages", 4)
    for attempt in range(24):
        process = subprocess.Popen(
            [BINARY, "sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", "0",
             "--flush-conversations", "300"],
            stderr=subprocess.DEVNULL, env=environment(DECAGON_API_KEY=KEY),
        )
        try:
            process.wait(timeout=0.02 + attempt * 0.025)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if attempt % 6 == 5:
            api.advance(hours=8)
    command("sync", api)
    assert_exact(lake, api.conversations())
    for table in ("conversations", "messages", "tags", "audit_logs"):
        strange = [path for path in Path(lake, table).rglob("*") if path.is_file() and path.name != "part-0.parquet"]
        assert not strange, "a query engine would read them too"


def test_a_damaged_staged_file_holds_up_only_its_partition(serve, command, lake):
    api = serve(page(conversation("a"), conversation("b", created_at="2024-01-02 10:00:00"),
                     conversation("c", created_at="2024-01-03 10:00:00")))
    command("export", api)
    [damaged] = Path(lake, "_landing/messages/created_date=2024-01-02").iterdir()
    [damaged] = Path(lake, "_landing/conversations/created_date=2024-01-02").iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-9])
    done = command("compact", code=6)
    assert "created_date=2024-01-02" in done.stderr and "backfill" in done.stderr
    assert {row["conversation_id"] for row in read_table(lake, "conversations")} == {"a", "c"}


def test_leftovers_of_a_kill_beside_a_table_are_swept(serve, command, lake):
    before, after = conversation("a", messages=[{"text": "one"}]), conversation("a", messages=[{"text": "two"}])
    api = serve(page(before), page(after))
    command("sync", api)
    folder = Path(lake, "messages", "created_date=2024-01-01")
    # As object_store names a file before it renames it into place.
    (folder / "part-0.parquet#1").write_bytes((folder / "part-0.parquet").read_bytes())
    (folder / "part-0.parquet#12").write_bytes(b"cut")
    (folder / "notes#1").write_text("somebody else's")
    command("sync", api)
    assert sorted(path.name for path in folder.iterdir()) == ["notes#1", "part-0.parquet"]
    assert_exact(lake, [after])


# -- files of other programs ------------------------------------------------------------------------------------------


def test_only_files_of_this_program_are_swept(simulate, command, lake):
    others = [Path(lake, "_landing", "other-team", "data.csv"), Path(lake, "_landing", "tags", "created_date=2024-01-01", "x.parquet"),
              Path(lake, "_state", "leases", "notes.txt"), Path(lake, "_state", "thesis#1")]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("theirs")
    api = simulate("--conversations", 20)
    command("sync", api, key="a-wrong-key", code=3)
    command("sync", api)
    command("sync", api)
    assert all(file.read_text() == "theirs" for file in others)


def test_a_lake_without_an_identity_is_refused(simulate, command, lake):
    command("sync", simulate("--conversations", 20))
    Path(lake, "_state", "lake.json").unlink()
    done = command("sync", simulate("--conversations", 20, "--seed", 2), code=6)
    assert "lake.json is missing" in done.stderr and len(read_table(lake, "conversations")) == 20


def test_a_server_that_sends_the_key_back_as_anything_does_not_get_it_shown(serve, command, lake):
    key = "very-secret-key"
    stray = conversation(key, updated_at="2020-01-01T00:00:00Z")
    api = serve(page(conversation("a", updated_at="2024-01-02T00:00:00Z")),
                json.dumps({"conversations": [stray, {key: key}], "next_cursor": key, key: 1}))
    command("sync", api, key=key)
    done = command("sync", api, "-v", "--json", key=key, code=3)
    reports = "".join(report.read_text() for report in Path(lake, "_state", "runs").iterdir())
    assert key not in done.stdout + done.stderr + reports and "***" in done.stderr and "***" in reports
    refused = command("sync", api, "--restart", "--on-bad-record", "fail", key=key, code=6)
    assert key not in refused.stderr and "***" in refused.stderr


@pytest.mark.parametrize("seconds", ["99999999999999999999999", "100000"])
def test_a_wait_without_end_is_not_waited_for(serve, command, seconds):
    api = serve((429, {"Retry-After": seconds}, "{}"))
    done = command("sync", api, code=4)
    assert len(api.asked) == 1 and "--max-retry-time" in done.stderr
