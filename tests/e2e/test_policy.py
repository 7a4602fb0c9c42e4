"""Policies: nothing that one covers is in a lake, a report, a log or an error; what it does not cover is not touched."""

import hashlib
import hmac
import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import BINARY, environment, page, run

KEY = "a-policy-key-of-the-tests"
# Every planted text has this in it, and no other text has.
MARK = "SeCrEt-"

POLICY = """
[[rules]]
field = "user_id"
action = "hash"
[[rules]]
field = "summary"
action = "drop"
[[rules]]
field = "notes"
truncate = 3
[[rules]]
field = "metadata.*"
action = "hash"
[[rules]]
field = "extra.*"
action = "drop"
[[rules]]
field = "messages.text"
action = "redact"
patterns = ["email", "phone", "card", "iban", "ip", { name = "mark", regex = "SeC[r]Et-[a-z0-9-]*" }]
[[rules]]
field = "messages.extra.*"
action = "hash"
[[rules]]
field = "tags.*"
action = "hash"
[[rules]]
field = "audit_logs.*"
action = "hash"
[[rules]]
field = "all_tags"
action = "hash"
[[rules]]
field = "conversation_url"
action = "drop"
"""


def sent(number, **more):
    """A conversation with a planted text in every place that the policy covers."""
    day = 1 + number % 3
    return {
        "conversation_id": f"c{number}", "created_at": f"2024-01-0{day} 10:00:00", "updated_at": f"2024-01-0{day}T11:00:00Z",
        "user_id": f"{MARK}user-{number}", "summary": f"{MARK}summary", "notes": f"ok {MARK}notes", "destination": "AI",
        "metadata": {"email": f"{MARK}mail", "deep": {"er": f"{MARK}deep"}, "list": [f"{MARK}item"], "plan": "pro"},
        "channel": {"name": f"{MARK}channel"}, "conversation_url": f"https://x/{MARK}url", "all_tags": {"h": f"{MARK}all"},
        "messages": [
            {"text": f"I am {MARK}text, jane@example.com, +1 555 123 4567", "role": "USER", "created_at": "2024-01-01 10:00:00",
             "mood": f"{MARK}mood"},
            {"text": {"odd": f"{MARK}odd"}, "role": "AI"}, f"{MARK}bare-message",
        ],
        "tags": [{"name": f"{MARK}tag", "level": 0}, f"{MARK}bare-tag"],
        "audit_logs": [{"text": f"{MARK}log", "payload": {"x": f"{MARK}payload"}, "created_at": f"{MARK}time"}],
        **more,
    }


@pytest.fixture
def policy(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


def everything(folder):
    """Every byte below a folder, with the pages of Parquet decoded: text by file."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += json.dumps(pq.ParquetFile(path).read().to_pylist(), default=str)
            found[str(path.relative_to(folder))] = text
    return found


def assert_clean(folder, *outputs):
    for name, text in {**everything(folder), **dict(enumerate(outputs))}.items():
        at = text.lower().find(MARK.lower())
        assert at < 0, f"{name}: {text[max(0, at - 80):at + 80]}"


def rows(lake, table, without=("_run_id", "_exported_at", "_seq")):
    """The rows of a plain table, without what differs from run to run."""
    all_rows = []
    for path in Path(lake, table).rglob("*.parquet"):
        all_rows += pq.ParquetFile(path).read().to_pylist()
    key = lambda row: (row["conversation_id"], *(row[name] for name in row if name.endswith("_index")))  # noqa: E731
    return sorted(({name: row[name] for name in row if name not in without} for row in all_rows), key=key)


def sha(text):
    return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def hostile():
    """Responses with malformed entries of every kind, errors and odd pages among those of a walk."""
    repaired = json.dumps(sent(7)).replace('"destination": "AI"', f'"destination": NaN, "resolution": "two\n{MARK}lines"')
    repaired = repaired.replace(f'"two\n{MARK}lines"', '"two\nlines"')
    broken = f'{{"conversation_id": "x", "summary": {MARK}broken}}'
    entries = [json.dumps(sent(1)), json.dumps(f"{MARK}entry"), json.dumps({"user_id": f"{MARK}no-id", "text": f"{MARK}stray"}),
               json.dumps({"conversation_id": {"x": f"{MARK}id"}, "summary": f"{MARK}2"})[:-1].replace(f"{MARK}id", "y") + "}",
               broken, repaired]
    first = '{"conversations": [' + ", ".join(entries) + '], "next_cursor": "2"}'
    return [
        (500, {"Content-Type": "text/html"}, f"<html>{MARK}server-error</html>"),
        f"<html>{MARK}no-json</html>",
        f'"{MARK}a-string"',
        first, first,
        json.dumps({"conversations": [], "error": f"{MARK}sign", "next_cursor": "2"}),
        page(sent(2), sent(3, metadata=f"{MARK}text-as-metadata", messages=f"{MARK}no-list"), cursor=None),
    ]


@pytest.mark.parametrize("form", ["parquet", "delta"])
def test_nothing_that_a_policy_covers_is_anywhere(serve, command, lake, tmp_path, policy, form):
    api = serve(*hostile())
    done = command("sync", api, "--format", form, "--policy", policy, "-v", "--json", "--max-retry-time", "20s",
                   "--metrics-file", tmp_path / "metrics.prom", code=6, DECAGON_POLICY_KEY=KEY)
    report = json.loads(done.stdout)
    assert report["quarantined"] == 4 and report["repaired"] == 1, report
    assert report["policy"]["unmatched_rules"] == [] and len(report["policy"]["hash"]) == 64
    assert_clean(lake, done.stdout, done.stderr, (tmp_path / "metrics.prom").read_text())
    assert KEY not in done.stderr and not any(KEY in text for text in everything(lake).values())
    # What is covered is there nevertheless, as the policy says, and the rest as it came.
    found = rows(lake, "conversations")
    assert [row["conversation_id"] for row in found] == ["c1", "c2", "c3", "c7"]
    first = found[0]
    assert first["user_id"] == sha(f"{MARK}user-1") and first["summary"] is None and first["notes"] == "ok "
    metadata = json.loads(first["metadata"])
    assert metadata["email"] == sha(f"{MARK}mail") and metadata["plan"] == sha("pro") and metadata["list"] == [sha(f"{MARK}item")]
    assert first["destination"] == "AI" and found[3]["resolution"] == "two\nlines"
    assert rows(lake, "messages")[0]["text"] == "I am [mark], [email], [phone]"
    lines = [json.loads(line) for file in Path(lake, "_state/quarantine").glob("*") for line in file.read_text().splitlines()]
    assert len(lines) == 4 and all(line["bytes"] > 0 and len(line["hmac"]) == 64 for line in lines)
    assert sum("raw" in line for line in lines) == 2, "only objects stay, masked"
    # The state counts no names that the policy may cover.
    assert set(report["fields_without_column"]) <= {"conversations.*", "metadata.*", "messages.*"}
    status = json.loads(command("status", None, "--json", key=None).stdout)
    assert status["policy"] == report["policy"]["hash"] and status["earlier_policy_partitions"] == 0


def test_errors_that_stop_a_run_quote_nothing(serve, tmp_path, policy):
    for name, responses, code in [
        ("refused", [(401, {}, f'{{"detail": "{MARK}refusal"}}')], 3),
        ("parameter", [(422, {}, f'{{"error": "{MARK}parameter"}}')], 3),
        ("bad", [page(sent(1), f"{MARK}entry")], 6),
        ("no page", [f'{{"data": "{MARK}no-page"}}'], 3),
        ("cursor", [f'{{"conversations": [], "next_cursor": {{"x": "{MARK}cursor"}}}}'], 3),
        ("sign", [json.dumps({"conversations": [], "error": f"{MARK}sign"})], 3),
    ]:
        lake = tmp_path / name
        done = run("sync", "--lake", lake, "--base-url", serve(*responses).url, "--requests-per-second", 0, "--policy", policy,
                   "--on-bad-record", "fail", "-v", "--json", code=code, DECAGON_POLICY_KEY=KEY)
        assert "hidden by the policy" in done.stderr, (name, done.stderr)
        assert json.loads(done.stdout)["error"], "the report has the error"
        assert_clean(lake, done.stdout, done.stderr)


def test_a_run_that_would_show_more_is_refused(serve, command, lake, tmp_path, policy):
    api = serve(page(*(sent(number) for number in range(3))))
    assert "DECAGON_POLICY_KEY" in command("sync", api, "--policy", policy, code=2).stderr
    command("sync", api, "--policy", policy, DECAGON_POLICY_KEY=KEY)
    assert json.loads((lake / "_state/lake.json").read_text())["format_version"] == 4, "earlier releases refuse it"
    before = everything(lake)
    weaker = tmp_path / "weaker.toml"
    for replaced, by, name in [
        ('field = "summary"\naction = "drop"', 'field = "summary"\naction = "hash"', "summary"),
        ("truncate = 3", "truncate = 4", "notes"),
        ('"iban", ', "", "messages.text"),
        ('field = "extra.*"', 'field = "extra.channel"', "extra.*"),
    ]:
        assert replaced in POLICY
        weaker.write_text(POLICY.replace(replaced, by))
        done = command("sync", api, "--policy", weaker, code=2, DECAGON_POLICY_KEY=KEY)
        assert f"weaker than the lake's: {name} " in done.stderr, done.stderr
        done = command("upgrade", None, "--policy", weaker, code=2, key=None, DECAGON_POLICY_KEY=KEY)
        assert "weaker" in done.stderr
    for name, asked in [("sync", api), ("compact", None), ("upgrade", None)]:
        assert "no policy key" in command(name, asked, code=2).stderr
        done = command(name, asked, code=2, DECAGON_POLICY_KEY="another-key-of-the-tests")
        assert "not the one" in done.stderr and "another-key" not in done.stderr
    tables = {name: text for name, text in before.items() if name.endswith(".parquet")}
    assert tables == {name: text for name, text in everything(lake).items() if name.endswith(".parquet")}
    # Without --policy the lake's own counts; the key may come from a file.
    (tmp_path / "key").write_text(KEY + "\n")
    again = serve(page(sent(11)))
    api_options = ["--base-url", again.url, "--requests-per-second", 0]
    run("upgrade", "--lake", lake, "--base-url", again.url, "--policy-key-file", tmp_path / "key", key=None)
    done = run("sync", "--lake", lake, *api_options, "--policy-key-file", tmp_path / "key", "--json")
    refusing = serve((401, {}, f'{{"detail": "{MARK}refusal"}}'))
    checked = run("check", "--lake", lake, "--base-url", refusing.url, code=3)
    assert "hidden by the policy" in checked.stdout and MARK not in checked.stdout + checked.stderr
    assert json.loads(done.stdout)["policy"]["hash"] == json.loads(before["_state/lake.json"])["policies"][-1]["hash"]
    assert_clean(lake, done.stderr)


@pytest.mark.parametrize("form", ["parquet", "delta"])
def test_upgrade_applies_a_policy_to_what_is_there(serve, tmp_path, policy, form):
    all_sent = [sent(number) for number in range(30)]
    bad = [f"{MARK}entry", {"user_id": f"{MARK}no-id"}]
    lake, fresh = tmp_path / "lake", tmp_path / "fresh"

    def sync(lake, *arguments, code=0, conversations=all_sent):
        api = serve(page(*conversations, *bad))
        return run("sync", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0, "--format", form,
                   "--metadata-columns", "plan", *arguments, code=code, DECAGON_POLICY_KEY=KEY)

    sync(lake, code=6)
    assert MARK in str(everything(lake))
    # A part of it first, so that hashes of the first policy are not hashed again by the second.
    part = tmp_path / "part.toml"
    part.write_text(POLICY[: POLICY.index('[[rules]]\nfield = "metadata.*"')])
    first = run("upgrade", "--lake", lake, "--policy", part, "--json", key=None, DECAGON_POLICY_KEY=KEY)
    assert json.loads(first.stdout)["upgraded_partitions"] == 3
    # Half of it comes again under the whole policy, which covers it at once.
    api = serve(page(*all_sent[:15]))
    run("upgrade", "--lake", lake, "--base-url", api.url, key=None, DECAGON_POLICY_KEY=KEY)
    done = run("backfill", "--lake", lake, "--base-url", api.url, "--requests-per-second", 0, "--policy", policy,
               "--from", "2024-01-01", "--to", "2024-02-01", "--timestamp-filter", "created_at", DECAGON_POLICY_KEY=KEY)
    assert "run `upgrade`" in done.stderr
    status = json.loads(run("status", "--lake", lake, "--json", key=None).stdout)
    assert status["earlier_policy_partitions"] == 3
    done = run("upgrade", "--lake", lake, "--retain", "0s", "--force-short-retain", "--json", key=None, DECAGON_POLICY_KEY=KEY)
    status = json.loads(run("status", "--lake", lake, "--json", key=None).stdout)
    assert status["earlier_policy_partitions"] == 0
    sync(fresh, "--policy", policy, code=6)
    if form == "parquet":
        assert_clean(lake, done.stderr, done.stdout)
        for table in ["conversations", "messages", "tags", "audit_logs"]:
            changed = {"extra", "level"} if table == "tags" else {"extra"}
            assert rows(lake, table, {"_run_id", "_exported_at", "_seq", *changed}) == rows(
                fresh, table, {"_run_id", "_exported_at", "_seq", *changed}), table
    else:
        assert "until a compaction deletes them" in done.stderr
        from deltalake import DeltaTable

        for table in ["conversations", "messages", "tags", "audit_logs"]:
            assert MARK not in str(DeltaTable(str(lake / table)).to_pyarrow_table().to_pylist())
        assert_clean(lake / "_state")
    again = run("upgrade", "--lake", lake, "--json", key=None, DECAGON_POLICY_KEY=KEY)
    assert json.loads(again.stdout)["upgraded_partitions"] == 0
    assert run("verify", "--lake", lake, key=None)


def test_a_rule_that_covers_nothing_is_warned_about(serve, command, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rules]]\nfield = "metadata.emial"\naction = "drop"\n[[rules]]\nfield = "summary"\naction = "drop"\n')
    done = command("sync", serve(page(sent(1))), "--policy", policy, "--json")
    assert json.loads(done.stdout)["policy"]["unmatched_rules"] == ["metadata.emial drop"]
    assert "`metadata.emial drop` covered nothing" in done.stderr and "`summary drop`" not in done.stderr


def policy_test(policy, text, code=0, **env):
    done = subprocess.run([BINARY, "policy", "test", "--policy", policy], input=text, capture_output=True, text=True,
                          timeout=60, env=environment(**env))
    assert done.returncode == code, done.stderr
    return done


def test_policy_test_shows_what_would_land(policy):
    conversation = json.dumps(sent(1))
    whole = '{"next_cursor": "%s", "conversations":  [%s , {}] }\n' % ("c", conversation)
    done = policy_test(policy, whole, DECAGON_POLICY_KEY=KEY)
    assert MARK not in done.stdout and done.stdout.startswith('{"next_cursor": "c", "conversations":  [{"conversation_id": "c1"')
    assert done.stdout.endswith(" , {}] }\n") and sha(f"{MARK}user-1") in done.stdout
    assert "user_id hash: covered 1 value, changed 1" in done.stderr
    one = json.loads(policy_test(policy, conversation, DECAGON_POLICY_KEY=KEY).stdout)
    listed = json.loads(policy_test(policy, f"[{conversation}]", DECAGON_POLICY_KEY=KEY).stdout)
    assert [one] == listed == json.loads(done.stdout)["conversations"][:1]
    assert "DECAGON_POLICY_KEY is not set" in policy_test(policy, conversation).stderr
    assert MARK not in policy_test(policy, f'{{"{MARK}": ', code=2).stderr
    unknown = policy_test(Path("/nowhere"), "{}", code=2)
    assert "cannot read the policy" in unknown.stderr


def test_policy_test_reads_the_vendor_s_page(policy, tmp_path):
    vendor = '{"conversations": [{"conversation_id": "d96df", "user_id": "12345", "destination": "AI", "created_at": ' \
             '"2024-01-01 21:42:10.309970", "metadata": {"email": "jane@doe.com"}, "messages": [{"text": "Hi", "role": "USER", ' \
             '"created_at": "2024-01-01 21:42:10.309970"}], "tags": [{"name": "x", "level": 0}], "undeflected": false, ' \
             '"csat_rating": null, "summary": null}], "next_page_updated_after": 1704145330}'
    fixed = tmp_path / "fixed.toml"
    fixed.write_text('[[rules]]\nfield = "metadata.email"\naction = "hash"\n[[rules]]\nfield = "messages.text"\n'
                     'action = "redact"\npatterns = ["email", "phone", "card", "iban", "ip", '
                     '{ name = "order", regex = "ORD-[0-9]+" }]\n')
    done = policy_test(fixed, vendor, DECAGON_POLICY_KEY=KEY)
    assert done.stdout == vendor.replace("jane@doe.com", sha("jane@doe.com")) + "\n"
