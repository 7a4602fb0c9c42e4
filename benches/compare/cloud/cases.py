"""What is measured: each case is a run, or several, of decagon-lake, DuckDB or a query on the far store."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from compare import OURS, PYTHON, Server, say
from source import Simulator, Source

HERE = Path(__file__).resolve().parent
LAKES = {"day": [], "month": ["--partition-by", "month"], "delta": ["--format", "delta"]}
DAY = {"day": "created_date", "month": "created_at::DATE", "delta": "created_date", "duckdb": "created_date"}
PACE_CONVERSATIONS, PACE_PAGE = 100_000, 1_000
AGES, A_DAY = (30, 366, 3_000), 10  # The dates of the lakes of different age, and conversations of each date.


class Skipped(Exception):
    """Why a case cannot be measured."""


class Cases:
    """Runs cases on one store. A lake that a case needs, and none has made, is made without the delay."""

    def __init__(self, bench, store, source, server, options):
        self.bench, self.store, self.source, self.server, self.options = bench, store, source, server, options
        self.rounds, self.made, self.answers, self.helps = options.rounds, set(), {}, {}

    def knows(self, command, text):
        """Whether a command's help has this text."""
        if command not in self.helps:
            done = subprocess.run([self.bench.binary, command, "--help"], capture_output=True, text=True, check=True)
            self.helps[command] = done.stdout
        return text in self.helps[command]

    def run(self, name, program, is_far=True):
        """Runs a program; returns what it took, and what went through the proxy meanwhile."""
        self.store.told()
        told = self.bench.run(name, program, **(self.store.far if is_far else self.store.near))
        if told is None:
            sys.exit(1)
        return {**told, **self.store.told()}

    def ours(self, command, lake, *more, is_far=True):
        return self.run(OURS, [self.bench.binary, command, "--lake", self.store.lake(lake), "--quiet", *more], is_far)

    def sync(self, lake, *more, url=None, is_far=True):
        url, rate = url or self.server.url, () if "--requests-per-second" in more else ("--requests-per-second", "0")
        told = self.ours("sync", lake, "--base-url", url, "--json", *rate, *more, is_far=is_far)
        log = (self.bench.out / f"{OURS}.log").read_text()
        report = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
        changed = len(report["compacted_dates"])
        return {**told, "store_calls": report["store_calls"], "changed_partitions": changed}

    def lake(self, name):
        """The lake of this name, made unless it is there."""
        if name == "month" and not self.knows("sync", "--partition-by"):
            raise Skipped("this binary has no --partition-by")
        if name not in self.made:
            self.sync(name, *LAKES[name], is_far=False)
            self.made.add(name)
        return name

    def first(self, name):
        self.made.add(name)
        return [self.sync(name, *LAKES[name])]

    def increment(self, lake, dates, source=None, url=None):
        """Increments that change some dates. The first is not counted: it follows a long walk, not its like."""
        source, runs = source or self.source, []
        for _ in range(self.rounds + 1):
            source.change(dates)
            runs.append(self.sync(lake, *LAKES.get(lake, []), url=url))
            if runs[-1]["changed_partitions"] != min(dates, len(source.told["late"])):
                sys.exit(f"the increment changed {runs[-1]['changed_partitions']} partitions, not {dates}")
        return runs[1:]

    def duckdb(self, is_far=True):
        out = self.store.lake("duckdb" if is_far else "duckdb-near")
        script = HERE.parent / "peers" / "duckdb_sql.py"
        runs = [self.run("duckdb", [PYTHON, script, self.source.file, out, str(self.options.threads)], is_far)]
        self.made |= {"duckdb"} if is_far else set()
        return runs

    def query(self, lake):
        program = [PYTHON, HERE / "deflection.py", self.store.lake(lake), DAY[lake], str(self.options.threads)]
        runs = []
        for _ in range(self.rounds):
            self.store.told()
            done = self.run(f"query-{lake}", program)
            told = json.loads((self.bench.out / f"query-{lake}.log").read_text())
            self.answers[lake] = told.pop("answer") == self.source.told["deflected"]
            runs.append({**done, **told})
        return runs

    def pace(self):
        with Simulator(self.bench.binary, 2 * PACE_PAGE, 30) as simulator:
            try:
                got = len(simulator.page(page_size=PACE_PAGE)["conversations"])
            except OSError as error:
                raise Skipped(f"`simulate` refuses page_size={PACE_PAGE}: {error}") from error
        if got != PACE_PAGE:
            raise Skipped(f"`simulate` answers page_size={PACE_PAGE} with {got} conversations")
        asked = [] if self.knows("sync", "[default: auto]") else ["--page-size", str(PACE_PAGE)]
        with Simulator(self.bench.binary, PACE_CONVERSATIONS, self.options.dates, 1) as simulator:
            return [self.sync("pace", "--requests-per-second", "1", *asked, url=simulator.url)]


# By name: what it is called in the table, and how it is run. The first syncs come first, since others use their lakes.
CASES = {
    "first": ("first sync", lambda cases: cases.first("day")),
    "delta": ("first sync as Delta", lambda cases: cases.first("delta")),
    "near": ("first sync, without the delay", lambda cases: [cases.sync("near", is_far=False)]),
    "duckdb": ("DuckDB's COPY of the same pages", lambda cases: cases.duckdb()),
    "duckdb-near": ("DuckDB's COPY, without the delay", lambda cases: cases.duckdb(is_far=False)),
    "one-date": ("increment of one date", lambda cases: cases.increment(cases.lake("day"), 1)),
    "15-dates": ("increment of 15 dates", lambda cases: cases.increment(cases.lake("day"), 15)),
    "delta-one-date": ("increment of one date as Delta", lambda cases: cases.increment(cases.lake("delta"), 1)),
    "status": ("status", lambda cases: [cases.ours("status", cases.lake("day")) for _ in range(cases.rounds)]),
    "verify": ("verify", lambda cases: [cases.ours("verify", cases.lake("day"))]),
    "query": ("deflection by day over all dates, lake by day", lambda cases: cases.query(cases.lake("day"))),
    "query-month": ("… lake by month", lambda cases: cases.query(cases.lake("month"))),
    "query-duckdb": ("… DuckDB's own files", lambda cases: cases.query("duckdb")),
    "pace": ("100,000 conversations at 1 request a second, 1,000 a page", lambda cases: cases.pace()),
}


def summary(runs):
    """The medians of runs; of calls and round trips the most, because those are promised at most."""
    told = {what: statistics.median(run[what] for run in runs) for what in ("wall_secs", "cpu_secs", "received_bytes")}
    most = max(runs, key=lambda run: sum(run["calls"].values()))
    return {
        **told, "calls": most["calls"], "round_trips": max(run["round_trips"] for run in runs),
        "most_at_once": max(run["most_at_once"] for run in runs), "sent_bytes": most["sent_bytes"], "runs": runs,
    }


def measure(cases, names):
    """Measures cases by name; what is skipped has the reason."""
    result = {}
    for name in names:
        what, run = CASES[name]
        say(f"{name}: {what}")
        try:
            if name == "query-duckdb" and "duckdb" not in cases.made:
                raise Skipped("the case duckdb makes its files")
            result[name] = summary(run(cases))
            say(f"{name}: {result[name]['wall_secs']:.2f} s, {sum(result[name]['calls'].values()):,} calls")
        except Skipped as reason:
            result[name] = {"skipped": str(reason)}
            say(f"{name} is skipped: {reason}")
    return result


def ages(cases, folder):
    """An increment of one date and `status`, in lakes of different age."""
    result = []
    for dates in AGES:
        source = Source(cases.bench.binary, folder, dates * A_DAY, dates)
        with Server(source.file, "--increment", source.increment_file) as server:
            say(f"age: a lake of {dates:,} dates")
            lake = f"age-{dates}"
            cases.sync(lake, url=server.url, is_far=False)
            increment = summary(cases.increment(lake, 1, source, server.url))
            status = summary([cases.ours("status", lake) for _ in range(cases.rounds)])
        result.append({"dates": dates, "increment": increment, "status": status})
    return result
