"""Compares decagon-lake with Polars, DuckDB and dlt on the same pages.

decagon-lake fetches the pages over HTTP from a server without a limit on this machine, stages, commits and compacts
them, and syncs every file to disk (fsync). The peers read the pages from a file, cannot be interrupted and continued,
and leave syncing to the system: the report shows how long that takes after their end, but does not count it. Each tool
is a process that is timed as a whole, from outside, several times in turn. Then all results are compared row by row,
and the report shows each measured figure beside its target.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pages

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = sys.executable
PEERS = {  # By name: what it needs, and how it is run.
    "polars": (["polars"], ["polars_lazy.py"]),
    "duckdb": (["duckdb"], ["duckdb_sql.py"]),
    "dlt-append": (["dlt", "pyarrow"], ["dlt_load.py", "append"]),
    "dlt-upsert": (["dlt", "pyarrow", "deltalake"], ["dlt_load.py", "upsert"]),
}
OURS = "decagon-lake"
LARGE = 4  # How many times as much the large sync has.
SHORT, LONG, A_DAY = 30, 3_000, 20  # Dates of the two lakes for increments, and conversations of each date.
MB = 1_000_000


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def arguments():
    parser = argparse.ArgumentParser(
        prog="benches/compare/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Pages are kept in target/bench-data by their size; the tools' output is removed. The report goes to "
        "stdout, progress to stderr. Exits with 1 if results differ, but not if a target is missed.",
    )
    add = parser.add_argument
    add("--scale", type=float, default=1, help="1 is 60,000 conversations in 72,000 versions, 218 MB of pages; "
        "0.02 tries everything out (default: 1)")
    add("--rounds", type=int, default=5, help="how often each tool runs, in turn (default: 5)")
    add("--only", metavar="NAME,…", help=f"which tools run, of {', '.join([OURS, *PEERS])} (default: all that install; "
        f"{OURS} always)")
    add("--binary", type=Path, help="the decagon-lake to measure (default: target/release/decagon-lake, built first)")
    add("--changes", choices=["near", "end"], default="near", help="where conversations come again: up to three days "
        "after the first time, in an export ordered by updated_at, or all at the end (default: near)")
    add("--seed", type=int, default=7, help="the seed of the pages (default: 7)")
    add("--data", type=Path, default=ROOT / "target/bench-data", help="where the pages are kept, and the tools write")
    add("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    add("--keep", action="store_true", help="keep the tools' output and logs of the last round")
    add("--skip-check", action="store_true", help="do not compare the results")
    add("--skip-large", action="store_true", help=f"leave out the sync of {LARGE} times as much")
    add("--skip-pace", action="store_true", help="leave out the sync at one request a second")
    add("--pace-pages", type=int, default=20, metavar="N", help="how many pages that sync has (default: 20)")
    add("--skip-queries", action="store_true", help="leave out the lookups over a year of tables")
    add("--skip-increment", action="store_true",
        help=f"leave out the increments in lakes of {SHORT} and {LONG:,} dates")
    add("--one-date", action="store_true", help="measure the compaction of one date with 100,000 and 1,000,000 "
        "conversations (times the scale) as well: takes minutes, and 8 GB of disk")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(PEERS)
    if unknown := set(chosen) - {OURS, *PEERS}:
        parser.error(f"--only knows no {', '.join(unknown)}")
    options.peers = [name for name in PEERS if name in chosen]
    return options


class Bench:
    """Runs and measures programs, and knows their folders."""

    def __init__(self, options):
        self.options, self.data = options, options.data
        self.out = self.data / "out"
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        binary = options.binary
        if binary is None:
            say("+ cargo build --release --locked --bin decagon-lake")
            build = ["cargo", "build", "--release", "--locked", "--bin", "decagon-lake"]
            subprocess.run(build, cwd=ROOT, check=True, stdout=sys.stderr)
            binary = ROOT / "target/release/decagon-lake"
        # A copy, which stays the same if somebody builds meanwhile.
        self.binary = shutil.copy(binary, self.out / "measured-binary")

    def pages(self, name, count, **more):
        folder = self.data / f"{name}-{count}"
        say(f"pages of {count:,} conversations in {folder}")
        made = pages.make(folder, count, seed=self.options.seed, **more)
        with open(folder / "pages.jsonl", "rb") as file:  # In the system's cache from now on, for everyone.
            while file.read(1 << 20):
                pass
        return folder, made

    def run(self, name, program, **env):
        """Runs a program. Returns its figures and the time that a sync to disk takes after it; `None` if it fails."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("DECAGON_")}
        log = self.out / f"{name}.log"
        os.sync()  # So that this run does not pay for the writes of earlier ones.
        done = subprocess.run(
            [PYTHON, "-I", "-S", HERE / "measure.py", log, *program], stdout=subprocess.PIPE, check=True,
            env={**clean, "DECAGON_API_KEY": "benchmark-key", **env}, cwd=self.out,
        )
        figures = json.loads(done.stdout)
        if figures["code"] != 0:
            say(f"{name} ended with {figures['code']}:\n{log.read_text()[-2000:]}")
            return None
        begin = time.monotonic()
        os.sync()
        return {**figures, "flush_secs": time.monotonic() - begin}

    def fresh(self, name):
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def lake_command(self, command, lake, url, rate):
        return [self.binary, command, "--lake", lake, "--base-url", url, "--requests-per-second", str(rate)]

    def sync(self, lake, url, rate=0, command="sync"):
        figures = self.run(OURS, self.lake_command(command, lake, url, rate))
        if figures is None:
            sys.exit(1)
        return figures

    def peer(self, name, source, out):
        out.mkdir()
        script, *mode = PEERS[name][1]
        return self.run(name, [PYTHON, HERE / "peers" / script, *mode, source / "pages.jsonl", out])

    def tool(self, script, *args):
        """Runs another script in a process of its own and returns its JSON."""
        done = subprocess.run([PYTHON, HERE / script, *map(str, args)], stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)


class Server:
    """A server of pages, while it is entered."""

    def __init__(self, file, *options):
        self.command = [PYTHON, HERE / "server.py", file, *map(str, options)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        return self

    def statistics(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(f"{self.url}/_requests"))

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def median(runs, name):
    return statistics.median(run[name] for run in runs)


def rounds(bench, source, names, count):
    """Runs all tools `count` times in turn, another one first each time; the results of the last round stay."""
    runs = {name: [] for name in names}
    with Server(source / "pages.jsonl") as server:
        cpu = []
        for number in range(count):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                if name not in runs:
                    continue
                out = bench.fresh(name)
                before = server.statistics()["cpu_secs"]
                figures = bench.sync(out, server.url) if name == OURS else bench.peer(name, source, out)
                if figures is None:
                    del runs[name]
                    continue
                cpu += [server.statistics()["cpu_secs"] - before] if name == OURS else []
                say(f"round {number + 1}: {name:12} {figures['wall_secs']:7.2f} s, "
                    f"{figures['cpu_secs']:7.2f} s of CPU, {figures['peak_bytes'] / MB:6.0f} MB")
                runs[name].append(figures)
                if number + 1 < count:
                    bench.fresh(name)
    measured = "wall_secs", "cpu_secs", "peak_bytes", "flush_secs"
    result = {name: {what: median(all_runs, what) for what in measured} | {"runs": all_runs}
              for name, all_runs in runs.items()}
    return result, statistics.median(cpu)


def pace(bench, source):
    """The sync at the API's pace, as the server saw it."""
    count = min(bench.options.pace_pages, json.loads((source / "pages.json").read_text())["pages"])
    say(f"{count} pages at one request a second")
    with Server(source / "pages.jsonl", "--first", count) as server:
        figures = bench.sync(bench.fresh("pace"), server.url, rate=1)
        times = server.statistics()["requests"]
    gaps = [after - before for before, after in zip(times, times[1:])]
    return {**figures, "pages": count, "requests": len(times), "shortest_gap_secs": min(gaps, default=None)}


def lookups(bench):
    """Two queries over a year of tables, of decagon-lake and of dlt."""
    source, _ = bench.pages("year", round(pages.CONVERSATIONS * bench.options.scale), days=365)
    lake, outs = bench.fresh("year"), []
    with Server(source / "pages.jsonl") as server:
        bench.sync(lake, server.url)
    for name in bench.options.peers:
        if name.startswith("dlt-"):
            say(f"{name} loads a year")
            if bench.peer(name, source, bench.fresh(f"year-{name}")):
                outs.append(f"{name}={bench.out}/year-{name}")
    say("lookups")
    return bench.tool("queries.py", lake, *outs)


def stamps(lake):
    """The stamps of the tables' files, which change if a file is rewritten."""
    tables = "conversations", "messages", "tags", "audit_logs"
    files = (file for table in tables for file in (lake / table).rglob("*"))
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files if file.is_file()}


def increments(bench):
    """The sync of a hundredth of a day's conversations, in a young lake and in an old one."""
    result = {}
    with ExitStack() as stack:
        lakes = {}
        for name, days in ("short", SHORT), ("long", max(2 * SHORT, round(LONG * min(1, bench.options.scale)))):
            source, _ = bench.pages("dates", days * A_DAY, days=days, changes="later")
            lake, file = bench.fresh(f"dates-{name}"), source / "pages.jsonl"
            server = stack.enter_context(Server(file, "--increment", source / "increment.jsonl"))
            bench.sync(lake, server.url)
            lakes[name] = lake, server.url
            result[name] = {"dates": days, "runs": [], "dates_touched": 0}
        # The first increment is not counted, because only the later ones find the same lake.
        for number in range(bench.options.rounds + 1):
            for name, (lake, url) in lakes.items():
                before, figures, after = stamps(lake), bench.sync(lake, url), stamps(lake)
                changed = {file for file in before.keys() | after.keys() if before.get(file) != after.get(file)}
                touched = len({file.parent.name for file in changed})
                result[name]["dates_touched"] = max(result[name]["dates_touched"], touched)
                result[name]["runs"] += [figures] if number else []
    for figures in result.values():
        figures["wall_secs"] = median(figures["runs"], "wall_secs")
    return result


def one_date(bench):
    """The compaction of one date, of a tenth of the conversations and of all."""
    result = []
    for count in (100_000, 1_000_000):
        source, made = bench.pages("one-date", round(count * bench.options.scale), days=1, messages=10)
        lake = bench.fresh("one-date")
        with Server(source / "pages.jsonl") as server:
            bench.sync(lake, server.url, command="export")
        figures = bench.run(OURS, [bench.binary, "compact", "--lake", lake])
        say(f"compaction of one date: {figures}")
        result.append({**figures, **made})
    bench.fresh("one-date")
    return result


def versions(bench, peers):
    found = {OURS: subprocess.run([bench.binary, "--version"], capture_output=True, text=True).stdout.split()[-1]}
    for package in dict.fromkeys(package for name in peers for package in PEERS[name][0]):
        found[package] = importlib.metadata.version(package)
    return {**found, "Python": platform.python_version()}


def machine():
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        model = {name.strip(): value.strip() for name, value in fields.items()}["model name"]
    except (OSError, KeyError):
        model = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory,
            "system": f"{platform.system()} {platform.release()}", "load": os.getloadavg()[0]}


def main():
    options = arguments()
    found = machine()
    if found["load"] > 0.5:
        say(f"this machine is busy (load {found['load']:.1f}): the times are unreliable")
    bench = Bench(options)
    for name in list(options.peers):
        if lacking := [package for package in PEERS[name][0] if importlib.util.find_spec(package) is None]:
            say(f"{name} is left out: {', '.join(lacking)} not installed")
            options.peers.remove(name)
    count = round(pages.CONVERSATIONS * options.scale)
    source, made = bench.pages(f"pages-{options.changes}", count, changes=options.changes)
    for package in dict.fromkeys(package for name in options.peers for package in PEERS[name][0]):
        subprocess.run([PYTHON, "-c", f"import {package}"], check=True)  # So that nobody's first run reads from disk.
    result = {"machine": found, "versions": versions(bench, options.peers), "pages": made, "rounds": options.rounds,
              "scale": options.scale}
    runs, result["server_cpu_secs"] = rounds(bench, source, [OURS, *options.peers], options.rounds)
    result["tools"] = runs
    for name in runs:
        runs[name]["table_bytes"] = bench.tool("tables.py", name, bench.out / name)
        if name != OURS and not options.skip_check:
            say(f"comparing with {name}")
            runs[name]["differences"] = bench.tool("check.py", bench.out / OURS, name, bench.out / name)
    options.peers = [name for name in options.peers if name in runs]
    if not options.keep:
        for name in runs:
            bench.fresh(name)
    if not options.skip_large:
        large, _ = bench.pages(f"pages-{options.changes}", LARGE * count, changes=options.changes)
        figures, _ = rounds(bench, large, [OURS], min(3, options.rounds))
        result["large"] = figures[OURS]
    if not options.skip_pace:
        result["pace"] = pace(bench, source)
    if not options.skip_queries:
        result["queries"] = lookups(bench)
    if not options.skip_increment:
        result["increments"] = increments(bench)
    if options.one_date:
        result["one_date"] = one_date(bench)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    if not options.keep:
        shutil.rmtree(bench.out)
    import report

    print(report.text(result))
    sys.exit(0 if report.agree(result) else 1)


if __name__ == "__main__":
    main()
