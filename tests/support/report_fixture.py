"""A page as `decagon-lake report` prints it, with believable numbers: what the page's script and styles are tested on."""

import base64
import hashlib
import math
import random
from datetime import date, datetime, timedelta
from html import escape
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "src" / "report" / "page"
HOSTILE = '</script><b>"x"'
LONG_TAG = "refund-for-a-delivery-that-never-arrived"
TAGS = ["order status", "refund", HOSTILE, "change address", LONG_TAG, "login", "<img src=x onerror=alert(1)>", "invoice",
        "cancel subscription", "Rücksendung & Umtausch", "日本語のタグ", "other"]
# The days that have runs, counted from the first, and the seconds of the longest run.
SPARSE_RUNS = [(0, 2400), (1, 310), (17, 95), (30, 1250)]


def show(value, kind):
    """A value as the tables write it."""
    if value is None:
        return "–"
    if kind == "percent":
        return f"{value * 100:.1f} %"
    if kind == "rating" and isinstance(value, float):
        return f"{value:.2f}"
    if kind == "count":
        return f"{value:,}"
    if kind == "bytes":
        return f"{value / 1e6:.2f} MB"
    if kind == "seconds":
        for size, unit, less, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
            if value >= size:
                return f"{int(value // size)} {unit} {int(value % size // less)} {small}"
        return f"{value:.0f} s"
    return str(value)


class Chart:
    """One figure: its columns are (name, role, type), the first of them x; its rows are lists of values."""

    def __init__(self, name, kind, title, columns, rows, wide=False, says="", **data):
        self.name, self.kind, self.title, self.columns, self.rows = name, kind, title, columns, rows
        self.wide, self.says, self.data = wide, says, data

    def column(self, name):
        at = [column[0] for column in self.columns].index(name)
        return [row[at] for row in self.rows]

    def series(self):
        return [column for column in self.columns if column[1] == "series"]

    def text(self, row, name):
        at = [column[0] for column in self.columns].index(name)
        return show(row[at], self.columns[at][2])

    def html(self):
        head = "".join(
            f'<th scope="col" data-role="{role}" data-type="{kind}">{escape(name)}</th>' for name, role, kind in self.columns
        )
        body = "".join(f"<tr>{''.join(self.cell(at, value) for at, value in enumerate(row))}</tr>" for row in self.rows)
        name = escape(f"{self.title}, table")
        table = f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        caption = f"<figcaption><h3>{escape(self.title)}</h3><p>{escape(self.says)}</p></figcaption>"
        wide = " wide" if self.wide else ""
        if self.kind == "table":
            return f'<figure class="table{wide}" id="{self.name}">{caption}{table}</figure>'
        data = "".join(f' data-{name}="{value}"' for name, value in self.data.items())
        plot = '<div class="plot"></div>' if self.rows else '<p class="empty">No conversations in this range.</p>'
        return (
            f'<figure class="chart{wide}" id="{self.name}" data-chart="{self.kind}"{data}>{caption}{plot}'
            f"<details><summary>Show the numbers</summary>{table}</details></figure>"
        )

    def cell(self, at, value):
        kind = self.columns[at][2]
        raw = "" if value is None else escape(str(value))
        text = escape(show(value, kind))
        return f'<th scope="row" data-value="{raw}">{text}</th>' if at == 0 else f'<td data-value="{raw}">{text}</td>'


def count_series(*names):
    return [(name, "series", "count") for name in names]


def support(days, chance):
    """The charts of the support team."""
    day = ("Day", "x", "date")
    sizes = [int((180 if d.weekday() > 4 else 420) * (1 + i / 300) * chance.uniform(0.88, 1.12)) for i, d in enumerate(days)]
    rates = [min(0.98, 0.58 + i / 900 + chance.uniform(-0.04, 0.04)) for i in range(len(days))]
    deflected = [round(size * rate) for size, rate in zip(sizes, rates)]
    unknown = [round(size * 0.04) for size in sizes]
    known = list(zip(days, sizes, deflected, unknown))
    weeks = sorted({d - timedelta(days=d.weekday()) for d in days})
    gap = {10, 11, 30} if len(days) > 40 else set()
    csat = [None if i in gap else round(chance.uniform(3.7, 4.4), 2) for i in range(len(days))]
    if len(days) > 60:
        csat[50] = csat[52] = None  # The day between them stands alone.
    middle = [round(math.exp(chance.gauss(4.4, 0.15)), 1) for _ in days]
    busy = [[max(0, int(26 * math.exp(-((h - 13) / 4.5) ** 2) * (0.35 if w > 4 else 1) * chance.uniform(0.7, 1.3)) - 1)
             for h in range(24)] for w in range(7)]
    counts = sorted((chance.randint(40, 4000) for _ in TAGS), reverse=True)
    ratings = [f"{n} star{'s' * (n > 1)}" for n in range(1, 6)]
    spread = [[tag, *[chance.randint(1, 20) * (1, 1, 2, 5, 9)[n] for n in range(5)]] for tag in TAGS[:8]]
    for row in spread:
        row.append(round(sum((n + 1) * value for n, value in enumerate(row[1:6])) / sum(row[1:6]), 2))
    return [
        Chart("conversations-day", "stacked-bars", "Conversations by day", [day, *count_series("Deflected", "Not deflected", "Unknown"),
              ("Conversations", "note", "count")], [[d, y, s - y - u, u, s] for d, s, y, u in known], wide=True, step="day",
              scheme="deflection", unit="conversations", says="Conversations that began on each day, by whether an agent had to take over."),
        Chart("deflection-day", "lines", "Deflection rate by day", [day, ("Deflection rate", "series", "percent"), ("Conversations", "note", "count")],
              [[d, round(y / (s - u), 4), s] for d, s, y, u in known], step="day", says="Deflected conversations as a share of those with a known outcome."),
        Chart("conversations-week", "stacked-bars", "Conversations by week", [("Week", "x", "date"), *count_series("Conversations")],
              [[w, sum(s for d, s in zip(days, sizes) if w <= d < w + timedelta(days=7))] for w in weeks], step="week",
              says="Weeks begin on Monday."),
        Chart("csat-day", "lines", "CSAT by day", [day, ("Average rating", "series", "rating"), ("Ratings", "note", "count")],
              [[d, value, 0 if value is None else 37] for d, value in zip(days, csat)], step="day",
              says="The average of all ratings from 1 to 5. Days without a rating are gaps."),
        Chart("csat-spread", "stacked-bars", "Ratings", [("Rating", "x", "rating"), *count_series("Conversations"), ("Share", "note", "percent")],
              [[n, value, round(value / 2000, 4)] for n, value in zip(range(1, 6), (122, 89, 241, 602, 946))],
              says="How many conversations got each rating."),
        Chart("csat-tag", "ranked-shares", "CSAT by tag", [("Tag", "x", "text"), *count_series(*ratings), ("Average", "note", "rating")],
              spread, scheme="rating", says="The ratings of conversations with each tag."),
        Chart("tags", "ranked", "Top tags", [("Tag", "x", "text"), *count_series("Conversations", "90 days before"), ("Share", "note", "percent")],
              [[tag, n, None if i == 3 else int(n * chance.uniform(0.6, 1.4)), round(n / 30000, 4)] for i, (tag, n) in enumerate(zip(TAGS, counts))],
              says="Conversations with each tag, and in the 90 days before."),
        Chart("first-response", "lines", "Time to the first response", [day, *[(name, "series", "seconds") for name in ("Median", "90th percentile", "99th percentile")]],
              [[d, m, round(m * 8.5, 1), round(m * chance.uniform(60, 220), 1)] for d, m in zip(days, middle)], step="day", scale="log",
              says="From the first message of a user to the first answer."),
        Chart("duration", "lines", "Duration", [day, *[(name, "series", "seconds") for name in ("Median", "90th percentile")]],
              [[d, m * 6, m * 21] for d, m in zip(days, middle)], step="day", says="From the first message to the last."),
        Chart("messages", "stacked-bars", "Messages per conversation", [("Messages", "x", "count"), *count_series("Conversations")],
              [[n, int(9000 * math.exp(-((math.log(n) - 2) ** 2) / 0.7))] for n in range(1, 31)], says="Conversations with each number of messages."),
        Chart("busy", "heatmap", "Busiest hours", [("Weekday", "x", "text"), *count_series(*[f"{h:02}" for h in range(24)])],
              [[name, *busy[w]] for w, name in enumerate(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"))], wide=True,
              says="Messages of users by weekday and hour, in UTC."),
        Chart("hand-overs", "lines", "Hand-overs", [day, ("Rate of hand-overs", "series", "percent")], [], step="day", says="Conversations that went to a person."),
        Chart("longest", "table", "Longest conversations", [("Conversation", "x", "text"), ("Began", "note", "text"), ("Messages", "note", "count"), ("Duration", "note", "seconds")],
              [[f"{chance.getrandbits(64):016x}-4bb2-ba5f-971a522c84de", f"{d} 09:12", 240 - 9 * i, 93000 - 5000 * i] for i, d in enumerate(days[:8])],
              wide=True, says="Ids only; the lake has the text."),
    ]


def data(days, chance):
    """The charts of the data team."""
    states = {3: "missing", 4: "missing", 20: "odd", 41: "odd", 60: "missing"} if len(days) > 61 else {}
    sizes = [None if states.get(i) == "missing" else 0 if i == 33 else int((180 if d.weekday() > 4 else 420) * chance.uniform(0.8, 1.2)) *
             (4 if states.get(i) == "odd" else 1) for i, d in enumerate(days)]
    months = [date(2022 + n // 12, n % 12 + 1, 1) for n in range(26)]
    begin = datetime(2024, 4, 30, 1, 5)
    return [
        Chart("partitions", "calendar", "Partitions", [("Day", "x", "date"), *count_series("Rows"), ("State", "state", "text")],
              [[d, size, states.get(i, "")] for i, (d, size) in enumerate(zip(days, sizes))], wide=len(days) > 180, step="day",
              says="Rows of the table conversations in each partition. An odd day differs much from days like it."),
        Chart("partitions-month", "calendar", "Partitions by month", [("Month", "x", "date"), *count_series("Rows"), ("State", "state", "text")],
              [[m, None if i == 9 else 9000 + 400 * i + chance.randint(-900, 900), {9: "missing", 17: "odd"}.get(i, "")] for i, m in enumerate(months)],
              step="month", says="A lake whose partitions are months."),
        Chart("lag", "lines", "Lag of the runs", [("Run", "x", "date"), ("Lag", "series", "seconds")],
              [[d, chance.randint(400, 4000)] for d in days], step="day", says="From the newest change in the lake to the end of the run."),
        Chart("run-durations", "stacked-bars", "Duration of runs", [("Day", "x", "date"), ("Longest run", "series", "seconds"), ("Runs", "note", "count")],
              [[days[0] + timedelta(days=i), seconds, 1 + i % 2] for i, seconds in SPARSE_RUNS], step="day", says="Most days have no run."),
        Chart("year", "calendar", "Partitions of two years", [("Day", "x", "date"), *count_series("Rows"), ("State", "state", "text")],
              [[date(2022, 5, 4) + timedelta(days=i), int(300 + i / 3 + chance.randint(-60, 60)), ""] for i in range(730)], wide=True, step="day", says="Every day of the lake."),
        Chart("tables", "table", "Tables", [("Table", "x", "text"), ("Rows", "series", "count"), ("Bytes", "series", "bytes")],
              [["conversations", 412_345, 211_381_234], ["messages", 5_123_456, 912_381_234], ["tags", 812_345, 9_381_234], ["audit_logs", 1_412_345, 31_381_234]],
              wide=True, says="The whole lake: 1.16 GB of Parquet."),
        Chart("runs", "table", "Last runs", [("Run", "x", "text"), ("Began", "note", "text"), ("Outcome", "note", "text"), ("Duration", "note", "seconds"), ("Pages", "note", "count"),
              ("Retries", "note", "count"), ("Exit code", "note", "count")],
              [[f"2024-04-30T{i:02}0500Z-{chance.getrandbits(24):06x}", begin + timedelta(hours=i), "done" if i != 3 else "the API could not be reached", 40 + i * 3, 12 + i, i % 2, 4 if i == 3 else 0]
               for i in range(8)], wide=True, says="The newest first."),
    ]


def fixture(days=90, seed=7):
    """The charts of a page, by section."""
    chance = random.Random(seed)
    dates = [date(2024, 2, 1) + timedelta(days=i) for i in range(days)]
    return {"support": support(dates, chance), "data": data(dates, chance)}


def page(charts):
    """The whole page, with the content security policy of the real one."""
    css, script = (PAGE / "report.css").read_text(), (PAGE / "report.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    tiles = [("Conversations", "31,204", "+3.2 % against the 90 days before"), ("Deflection rate", "64.1 %", "+1.8 points"),
             ("CSAT", "4.12", "2,000 ratings, 6.4 % of conversations"), ("Hand-overs", "28.9 %", "−0.7 points"),
             ("First response", "1 min 22 s", "median; 90th percentile 11 min"), ("Messages per conversation", "7.4", "+0.1")]
    health = [("Freshness", "42 min", "newest change 2024-04-30 23:18 UTC"), ("Size", "1.16 GB", "412,345 conversations"),
              ("Quarantine", "3", "malformed entries"), ("Missing days", "3", "2024-02-04, 2024-02-05, 2024-04-01")]
    figures = {name: '<div class="grid">' + "\n".join(chart.html() for chart in section) + "</div>" for name, section in charts.items()}
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>decagon-lake report</title><style>{css}</style></head>
<body><a class="skip" href="#support">Skip to the charts</a>
<header><h1>Customer support, 1 February to 30 April 2024</h1>
<p class="sub">Lake s3://example-data/decagon · 90 days · made on 2024-05-01 at 00:02 UTC</p>
<p class="health warn">The lake is fresh, but 3 days are missing and 3 entries are in quarantine.</p>
<nav><a href="#support">Support</a> <a href="#data">Data</a></nav></header>
<main><section id="support"><h2>Support</h2><dl class="tiles">{"".join(tile(*one) for one in tiles)}</dl>{figures["support"]}</section>
<section id="data"><h2>Data</h2><dl class="tiles">{"".join(tile(*one) for one in health)}</dl>
<ul class="facts"><li class="ok">The last verify found no problem, on 2024-04-28.</li><li class="warn">3 malformed entries were quarantined. <code>decagon-lake status</code> names them.</li>
<li class="bad">3 days have no partition: 2024-02-04, 2024-02-05, 2024-04-01.</li></ul>{figures["data"]}</section></main>
<footer>Made by decagon-lake. Numbers are of conversations created in the range, in UTC.</footer>
<script>{script}</script></body></html>
"""


def tile(name, value, note):
    return f'<div class="tile"><dt>{name}</dt><dd>{value}</dd><dd class="note">{note}</dd></div>'
