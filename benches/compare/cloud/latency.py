"""Measures decagon-lake on a store that is as far away as a cloud's.

SeaweedFS runs on this machine behind a proxy that delays what goes through it by half a round trip, either way.
The pages come from `decagon-lake simulate`, without a limit; DuckDB copies the same pages into the same store. The
report has the targets beside the figures, and the calls to the store by kind as the proxy saw them. "In sequence" is
the longest chain of calls of which each began after the one before it had ended.
"""

import argparse
import json
import shutil
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import cases  # noqa: E402
import targets  # noqa: E402
from compare import ROOT, Bench, Server, machine, say, versions  # noqa: E402
from source import Source  # noqa: E402
from store import Store  # noqa: E402


def arguments():
    usual = [name for name in cases.CASES if name != "pace"]
    parser = argparse.ArgumentParser(
        prog="benches/compare/latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Pages are kept in target/bench-data/latency. The report goes to stdout, progress to stderr. Exits with "
        "1 if DuckDB's answer over a lake is not that of the pages; targets that are not met do not count as that.",
    )
    add = parser.add_argument
    add("--rtt", type=float, default=0.05, metavar="SECS", help="a round trip to the store (default: 0.05)")
    add("--only", metavar="NAME,…", help=f"which cases run, of {', '.join(cases.CASES)} (default: all but pace)")
    add("--rounds", type=int, default=3, help="how often a short case runs (default: 3)")
    add("--conversations", type=int, help="how many conversations there are (default: 36,500, or 100 a date)")
    add("--dates", type=int, default=366, help="over how many dates (default: 366)")
    add("--pace", action="store_true", help="measure the sync of 100,000 conversations at 1 request a second as well")
    add("--age", action="store_true", help="measure an increment and status in lakes of "
        f"{', '.join(map('{:,}'.format, cases.AGES))} dates as well; with --only '', nothing else")
    add("--threads", type=int, default=8, help="how many threads DuckDB has (default: 8)")
    add("--binary", type=Path, help="the decagon-lake to measure (default: target/release/decagon-lake, built first)")
    add("--data", type=Path, default=ROOT / "target/bench-data/latency", help="where the pages and the store are kept")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured there, too")
    options = parser.parse_args()
    chosen = usual if options.only is None else [name for name in options.only.split(",") if name]
    if unknown := set(chosen) - set(cases.CASES):
        parser.error(f"--only knows no {', '.join(unknown)}")
    options.data = options.data.resolve()
    options.names = [name for name in cases.CASES if name in chosen or (name == "pace" and options.pace)]
    if options.conversations is None:
        options.conversations = 36_500 if options.dates == 366 else 100 * options.dates
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The store and the proxy end, too.
    found = machine()
    if found["load"] > 0.5:
        say(f"this machine is busy (load {found['load']:.1f}): the times will tell little")
    bench = Bench(options)
    result = {"machine": found, "versions": versions(bench, ["duckdb"]), "rtt_secs": options.rtt,
              "threads": options.threads, "rounds": options.rounds}
    source = None
    if options.names:
        say(f"pages of {options.conversations:,} conversations of {options.dates:,} dates")
        source = Source(bench.binary, options.data, options.conversations, options.dates)
        result["source"] = {name: source.told[name] for name in ("conversations", "dates", "pages", "bytes")}
    with Store(bench.out / "store", options.rtt) as store:
        result["added_secs"] = store.added_secs()
        say(f"the proxy adds {result['added_secs'] * 1000:.1f} ms to a round trip")
        runs = cases.Cases(bench, store, source, None, options)
        result["cases"] = {}
        if source:
            with Server(source.file, "--increment", source.increment_file) as runs.server:
                result["cases"] = cases.measure(runs, options.names)
        if options.age:
            result["ages"] = cases.ages(runs, options.data)
        result["answers"] = runs.answers
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    shutil.rmtree(bench.out)
    print(targets.text(result))
    sys.exit(0 if all(runs.answers.values()) else 1)


if __name__ == "__main__":
    main()
