"""`report`: the numbers of its page are those that DuckDB counts, in the JSON and in the page itself."""

import json
import os
import re
import subprocess
import sys
from datetime import date, timedelta
from html.parser import HTMLParser

import duckdb
import pytest
from conftest import ROOT, page, run
from deltalake import DeltaTable

sys.path.insert(0, str(ROOT / "tests" / "support"))
from browser import chromium, opened

# Some three months, of which the page shows two.
SEASON = ["--conversations", 900, "--days", 90, "--messages", 6]
DAYS = 60
FIRST, LAST = date(2024, 1, 2), date(2024, 3, 1)
RANGE = f"created_at >= '{FIRST}' AND created_at < '{LAST + timedelta(days=1)}'"

WHOLE = f"""
CREATE VIEW c AS SELECT *, created_at::DATE AS day, date_trunc('week', created_at)::DATE AS week,
  coalesce(csat_rating, csat) AS rating,
  coalesce(destination <> 'AI', false) OR conversation_id IN (
    SELECT conversation_id FROM messages WHERE role NOT IN ('USER', 'AI')) AS handed_over,
  (epoch_us(last_message_at) - epoch_us(created_at)) // 1000000 AS secs
FROM conversations WHERE {RANGE};
CREATE VIEW asked AS SELECT conversation_id, min(message_index) AS question, arg_min(created_at, message_index) AS asked_at
  FROM messages WHERE role = 'USER' GROUP BY conversation_id;
CREATE VIEW answered AS SELECT conversation_id, arg_min(created_at, message_index) AS answered_at
  FROM messages JOIN asked USING (conversation_id) WHERE message_index > question AND role <> 'USER' GROUP BY conversation_id;
CREATE VIEW responses AS SELECT week, (epoch_us(answered_at) - epoch_us(asked_at)) // 1000000 AS secs
  FROM (SELECT conversation_id, week FROM c) JOIN asked USING (conversation_id) JOIN answered USING (conversation_id)
  WHERE answered_at >= asked_at;
CREATE VIEW t AS SELECT DISTINCT conversation_id, coalesce(name, tag_id) AS tag FROM tags;
"""

OUTCOMES = "count(*) FILTER (NOT undeflected), count(*) FILTER (undeflected), count(*) FILTER (undeflected IS NULL), count(*)"
RATINGS = ", ".join(f"count(*) FILTER (rating = {rating})" for rating in range(1, 6))
PERCENTILES = "[quantile_disc(secs, 0.5), quantile_disc(secs, 0.9), quantile_disc(secs, 0.99)]"
# The figures whose rows are those of a query.
FIGURES = {
    "conversations-day": f"SELECT day, {OUTCOMES} FROM c GROUP BY day ORDER BY day",
    "conversations-week": f"SELECT week, {OUTCOMES} FROM c GROUP BY week ORDER BY week",
    "deflection-day": "SELECT day, avg((NOT undeflected)::INT), count(*) FROM c GROUP BY day ORDER BY day",
    "deflection-week": "SELECT week, avg((NOT undeflected)::INT), count(*) FROM c GROUP BY week ORDER BY week",
    "csat-week": "SELECT week, avg(rating), count(rating) FROM c GROUP BY week ORDER BY week",
    "ratings-week": f"SELECT week, {RATINGS} FROM c GROUP BY week ORDER BY week",
    "ratings": "SELECT rating::VARCHAR, count(*), count(*) / sum(count(*)) OVER () FROM c WHERE rating IS NOT NULL "
               "GROUP BY rating ORDER BY rating",
    "csat-tag": f"SELECT tag, {RATINGS}, avg(rating), count(rating) FROM t JOIN c USING (conversation_id) GROUP BY tag "
                "HAVING count(rating) >= 5 ORDER BY avg(rating) DESC, count(*) DESC, tag",
    "handovers-week": "SELECT week, avg(handed_over::INT), count(*) FILTER (handed_over), count(*) FROM c GROUP BY week "
                      "ORDER BY week",
    "messages": "SELECT least(message_count, 20), count(*), count(*) / sum(count(*)) OVER () FROM c GROUP BY 1 ORDER BY 1",
    "first-response-week": f"SELECT week, unnest({PERCENTILES}) FROM responses GROUP BY week ORDER BY week",
    "duration-week": f"SELECT week, unnest({PERCENTILES}) FROM c GROUP BY week ORDER BY week",
    "tags": f"SELECT tag, count(*) FILTER (day >= '{FIRST + timedelta(days=DAYS // 2)}'), "
            f"count(*) FILTER (day < '{FIRST + timedelta(days=DAYS // 2)}'), count(*), "
            "count(*) / (SELECT count(*) FROM c) FROM t JOIN c USING (conversation_id) GROUP BY tag "
            "ORDER BY count(*) DESC, tag LIMIT 15",
    "longest": "SELECT conversation_id, strftime(created_at, '%Y-%m-%dT%H:%M:%S'), message_count, secs, "
               "CASE WHEN handed_over THEN 'yes' ELSE 'no' END FROM c ORDER BY message_count DESC, conversation_id LIMIT 10",
}


def database(lake, kept_as):
    """DuckDB with the tables of a lake."""
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for table in ("conversations", "messages", "tags"):
        if kept_as == "delta":
            rows = DeltaTable(f"{lake}/{table}").to_pyarrow_table()
            db.execute(f"CREATE TABLE {table} AS FROM rows")
        else:
            db.execute(f"CREATE TABLE {table} AS FROM '{lake}/{table}/*/*.parquet'")
    db.execute(WHOLE)
    return db


def figures(made):
    return {figure["id"]: figure for section in made["sections"] for figure in section["figures"]}


def rows(db, name):
    """What a figure's rows should be."""
    found = [list(row) for row in db.execute(FIGURES[name]).fetchall()]
    if name in ("first-response-week", "duration-week"):
        values = {}
        for week, value in sorted(found):
            values.setdefault(week, [week]).append(value)
        found = list(values.values())
    return [[str(value) if isinstance(value, date) else value for value in row] for row in found]


def shown(name, figure):
    """A figure's rows, as a query has them."""
    found = figure["rows"]
    if name == "conversations-day" or name == "deflection-day":
        found = [row for row in found if row[-1] > 0]
    if name == "messages":
        found = [[int(row[0].rstrip("+")), *row[1:]] for row in found if row[1] > 0]
    if name in ("ratings",):
        found = [row for row in found if row[1] > 0]
    if name == "tags":
        found = [[*row[:3], *row[4:]] for row in found]
    if name == "longest":
        found = [[row[0], row[1][:19], *row[2:]] for row in found]
    return found


def same(one, other):
    return one == (pytest.approx(other, rel=1e-12) if isinstance(other, float) else other)


@pytest.fixture
def season(simulate, command):
    api = simulate(*SEASON)

    def sync(*arguments):
        command("sync", api, *arguments)
        return api

    return sync


@pytest.mark.parametrize("by", ["day", "month"])
@pytest.mark.parametrize("kept_as", ["parquet", "delta"])
def test_the_numbers_are_those_of_duckdb(season, command, lake, tmp_path, kept_as, by):
    season("--format", kept_as, "--partition-by", by)
    out = tmp_path / "report.html"
    made = json.loads(command("report", None, "--out", out, "--days", DAYS, "--json").stdout)
    assert (made["first_day"], made["last_day"]) == (str(FIRST), str(LAST))
    found, db = figures(made), database(lake, kept_as)
    assert f'id="calendar" data-chart="calendar" data-step="{by}"' in out.read_text()
    for name in FIGURES:
        expected = rows(db, name)
        assert len(expected) > 3, f"{name} would show nothing"
        assert len(found[name]["rows"][0]) == len(found[name]["columns"])
        for one, other in zip(shown(name, found[name]), expected, strict=True):
            assert [same(a, b) for a, b in zip(one, other, strict=True)] == [True] * len(one), (name, one, other)
    hours = db.execute("SELECT isodow(created_at) - 1, hour(created_at), count(*) FROM c GROUP BY ALL").fetchall()
    cells = {(day, hour): row[hour + 1] for day, row in enumerate(found["busiest-hours"]["rows"]) for hour in range(24)}
    assert {place: count for place, count in cells.items() if count} == {(day, hour): count for day, hour, count in hours}
    tags = [column["name"] for column in found["tags-week"]["columns"][1:]]
    for position, tag in enumerate(tags):
        weeks = db.execute("SELECT week, count(*) FROM t JOIN c USING (conversation_id) WHERE tag = ? GROUP BY ALL", [tag])
        counts = {row[0]: row[1 + position] for row in found["tags-week"]["rows"] if row[1 + position]}
        assert counts == {str(week): count for week, count in weeks.fetchall()}
    tiles = {tile["name"]: tile["value"] for tile in made["sections"][0]["tiles"]}
    whole = db.execute("SELECT count(*), avg((NOT undeflected)::INT), avg(rating), avg(handed_over::INT), "
                       "quantile_disc(secs, 0.5) FROM c").fetchone()
    names = ["Conversations", "Deflection rate", "CSAT", "Hand-overs", "Duration"]
    assert [tiles[name] for name in names] == pytest.approx(list(whole))
    assert tiles["First response"] == db.execute("SELECT quantile_disc(secs, 0.5) FROM responses").fetchone()[0]


class Tables(HTMLParser):
    """The values in the tables of a page, by figure."""

    def __init__(self):
        super().__init__()
        self.figure, self.found, self.text = None, {}, []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "figure":
            self.figure = self.found.setdefault(attributes["id"], [])
        if tag == "tr" and self.figure is not None:
            self.figure.append([])
        if "data-value" in attributes:
            self.figure[-1].append(attributes["data-value"])

    def handle_data(self, data):
        self.text.append(data)


def tables(text):
    parser = Tables()
    parser.feed(text)
    return parser


def test_the_page_holds_the_same_numbers_and_nothing_about_people(season, command, lake, tmp_path):
    season()
    out = tmp_path / "deep" / "er" / "report.html"
    made = json.loads(command("report", None, "--out", out, "--days", DAYS, "--json").stdout)
    text = out.read_text()
    in_page = tables(text).found
    for name, figure in figures(made).items():
        values = [["" if value is None else value for value in row] for row in figure["rows"]]
        written = [row for row in in_page[name] if row]
        assert [len(row) for row in written] == [len(row) for row in values], name
        for one, other in zip(written, values, strict=True):
            assert [float(a) if isinstance(b, (int, float)) else a[:19] for a, b in zip(one, other)] == [
                b if isinstance(b, (int, float)) else b[:19] for b in other], name
    # A table that scrolls can be reached by keyboard, also without the script, and has a name.
    assert text.count("<table>") == text.count('<div class="scroll" tabindex="0" role="region" aria-label="') > 10
    # No request is possible, and no other script.
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "http" not in policy
    db = duckdb.connect()
    people = db.execute(f"SELECT user_id, summary, customer_feedback, notes FROM '{lake}/conversations/*/*.parquet'").fetchall()
    words = {value for row in people for value in row if value}
    said = db.execute(f"SELECT DISTINCT text FROM '{lake}/messages/*/*.parquet' WHERE length(text) > 10").fetchall()
    words |= {value for (value,) in said}
    assert len(words) > 100
    assert not [word for word in words if word in text]
    with_summaries = command("report", None, "--out", "-", "--days", DAYS, "--with-summaries").stdout
    summaries = {row[1] for row in people if row[1]}
    assert [summary for summary in summaries if summary in with_summaries]
    assert command("report", None, "--out", "-", "--days", DAYS).stdout.startswith("<!DOCTYPE html>")


def test_what_the_data_team_asks(simulate, command, lake, tmp_path, serve):
    api = simulate("--conversations", 2_000, "--days", 30, "--messages", 2)
    command("sync", api)
    # A day goes, and a run fails; two days have far more conversations than before, and one entry is malformed.
    for table in ("conversations", "messages", "tags", "audit_logs"):
        for path in (lake / table / "created_date=2024-02-10").iterdir():
            path.unlink()
    command("verify", None, "--repair")
    command("sync", api, key="another-key-altogether", code=3)
    more = [{"conversation_id": f"more{number}", "created_at": f"2024-02-{15 + number % 2}T10:00:00Z",
             "updated_at": "2024-03-01T10:00:00Z", "messages": []} for number in range(400)]
    late = [{"conversation_id": "unknown", "created_at": "soon", "updated_at": "2024-03-01T10:00:00Z", "messages": []}]
    command("upgrade", None, "--base-url", "http://127.0.0.1:9")
    server = serve((200, {"Date": "Sat, 02 Mar 2024 00:00:00 GMT"}, page(*more, *late, "no conversation")))
    command("upgrade", None, "--base-url", server.url)
    command("sync", None, "--base-url", server.url, "--requests-per-second", 0, code=6)
    made = json.loads(command("report", None, "--out", tmp_path / "r.html", "--json", "--verify").stdout)
    assert made["last_day"] == "2024-03-02"
    found = figures(made)
    marks = {row[0]: row[2] for row in found["calendar"]["rows"] if row[2]}
    # No conversation began on the first of March. The last day may not be complete, so nothing is odd about it.
    assert marks == {"2024-02-10": "missing", "2024-02-15": "odd", "2024-02-16": "odd", "2024-03-01": "missing"}
    runs = [row[1:4] for row in found["runs"]["rows"]]
    assert [run for run in runs if run[0] != "upgrade"] == [
        ["sync", "done, with entries quarantined", 6], ["sync", "failed", 3], ["verify", "done", 0], ["sync", "done", 0]]
    assert "another-key-altogether" not in json.dumps(made)
    status = json.loads(command("status", None, "--json").stdout)
    lines = {row[0]: row[1:] for row in found["tables"]["rows"]}
    for table, totals in status["tables"].items():
        assert lines[table] == [totals[name] for name in ("rows", "bytes", "dates", "first_date", "last_date")]
    data = made["sections"][1]
    tiles = {tile["name"]: tile["value"] for tile in data["tiles"]}
    assert (tiles["Quarantined"], tiles["Unreadable times"], tiles["Last run"]) == (
        1, 1, "done, with entries quarantined")
    facts = " ".join(fact["text"] for fact in data["facts"])
    for said in ("verified for this page: ", "no problem found", "1 malformed entry quarantined by the last run",
                 "1 file of quarantined entries", "1 conversation without a readable created_at", "the last `verify --repair`"):
        assert said in facts
    assert "not verified" in json.dumps(json.loads(command("report", None, "--out", tmp_path / "r.html", "--json").stdout))


def test_a_damaged_partition_is_left_out_and_said(season, command, lake, tmp_path):
    season()
    whole = json.loads(command("report", None, "--out", tmp_path / "r.html", "--json").stdout)
    path = next((lake / "messages").glob("created_date=2024-02-20/*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    done = command("report", None, "--out", tmp_path / "r.html", "--json", code=6)
    assert "the page is without 1 damaged partition" in done.stderr and "hint: run `decagon-lake verify`" in done.stderr
    rest = json.loads(done.stdout)
    conversations = [{row[0]: row[4] for row in figures(made)["conversations-day"]["rows"]} for made in (whole, rest)]
    assert conversations[1].pop("2024-02-20") == 0 and conversations[0].pop("2024-02-20") > 0
    assert conversations[0] == conversations[1]
    assert rest["level"] == "bad" and any("a partition is left out" in fact["text"] for fact in rest["sections"][1]["facts"])


def test_a_page_goes_to_pipes_and_through_links_and_leaves_them(season, command, tmp_path):
    season()
    real, link, pipe = tmp_path / "real.html", tmp_path / "link.html", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real)
    command("report", None, "--out", link)
    assert link.is_symlink() and real.read_text().startswith("<!DOCTYPE html>")
    os.mkfifo(pipe)
    copy = tmp_path / "copy.html"
    with open(copy, "w") as written:
        reader = subprocess.Popen(["cat", pipe], stdout=written)
    command("report", None, "--out", pipe)
    assert reader.wait(timeout=60) == 0 and pipe.is_fifo()
    assert copy.read_text().startswith("<!DOCTYPE html>") and copy.read_text().rstrip().endswith("</html>")


def test_tags_that_hold_markup_and_weeks_without_conversations(serve, command, tmp_path):
    """Whatever a tag is called, it is text; a week without conversations has a row."""
    names = ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"&\'', "x" * 300]
    rows = [{"conversation_id": f"c{number}", "created_at": f"2024-01-{day:02}T10:00:00Z",
             "updated_at": "2024-02-01T00:00:00Z", "messages": [], "tags": [{"name": name} for name in names]}
            for number, day in enumerate((1, 1, 2, 29, 30))]
    api = serve((200, {"Date": "Fri, 02 Feb 2024 00:00:00 GMT"}, page(*rows)))
    command("sync", None, "--base-url", api.url, "--requests-per-second", 0)
    out = tmp_path / "r.html"
    made = json.loads(command("report", None, "--out", out, "--json").stdout)
    weeks = [row[0] for row in figures(made)["deflection-week"]["rows"]]
    assert weeks == ["2024-01-01", "2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29"]
    assert {row[0] for row in figures(made)["tags"]["rows"]} == set(names)
    assert {row[0] for row in tables(out.read_text()).found["tags"] if row} == set(names)
    with chromium() as browser, opened(browser, out) as shown:
        shown.locator("#tags svg").first.wait_for()
        assert shown.locator("script").count() == 1 and shown.locator("img").count() == 0


def test_refusals(command, lake, tmp_path, season):
    assert "no lake" in command("report", None, "--out", tmp_path / "r.html", code=2).stderr
    season()
    for out, why in ((f"{tmp_path}/", "names no file"), (tmp_path, "names no file"), ("ftp://x/r.html", "cannot use --out ftp://x")):
        assert why in command("report", None, "--out", out, code=2).stderr
    assert "both write to stdout" in command("report", None, "--out", "-", "--json", code=2).stderr
    for days in (0, 4_000):
        run("report", "--lake", lake, "--days", days, code=2)
    # Nothing else has an effect on the lake.
    before = sorted(path for path in lake.rglob("*") if path.is_file())
    command("report", None, "--out", tmp_path / "r.html")
    assert sorted(path for path in lake.rglob("*") if path.is_file()) == before
