"""Writes what was measured as Markdown: targets beside figures, then the calls of each run."""

from cases import CASES
from report import table

MB = 1_000_000
# By case: the most seconds, store calls, and round trips one after the other.
TARGETS = {
    "first": (15, None, None), "one-date": (1.2, 30, 24), "15-dates": (2, 200, None), "status": (1, None, None),
    "verify": (25, None, None), "query-month": (1.5, None, None), "delta-one-date": (2, 60, None),
    "pace": (105, None, None),
}
GROWTH = 1.25  # The most that calls and bytes of the oldest lake may be, of the youngest's: partitions differ in size.


def calls(told):
    return sum(told["calls"].values())


class Rows:
    """The table's rows: what, the target, what was measured, and whether that meets it."""

    def __init__(self, measured):
        self.measured, self.rows = measured, []

    def add(self, what, target, measured, met=None):
        self.rows.append([what, target, measured, "" if met is None else "met" if met else "not met"])

    def most(self, what, target, measured, form):
        """A figure that may be at most this."""
        if target is None:
            return self.add(what, "", form(measured))
        self.add(what, f"at most {form(target)}", form(measured), measured <= target)

    def case(self, name):
        told, (what, _) = self.measured[name], CASES[name]
        secs, most_calls, round_trips = TARGETS.get(name, (None, None, None))
        if "skipped" in told:
            return self.add(what, "" if secs is None else f"at most {secs:g} s", f"skipped: {told['skipped']}")
        self.most(what, secs, told["wall_secs"], lambda secs: f"{secs:.4g} s" if secs >= 10 else f"{secs:.3g} s")
        if most_calls:
            self.most("… store calls", most_calls, calls(told), "{:,}".format)
        if round_trips:
            self.most("… round trips one after the other", round_trips, told["round_trips"], "{:,}".format)
        if name == "first":
            self.ratio("… of DuckDB's time", "duckdb", 1 / 6)
        if name == "delta":
            self.ratio("… of the plain one's time", "first", 1.3)

    def ratio(self, what, other, target):
        name = "first" if other == "duckdb" else "delta"
        if "wall_secs" in self.measured.get(other, {}):
            ratio = self.measured[name]["wall_secs"] / self.measured[other]["wall_secs"]
            self.most(what, target, ratio, "{:.3f}".format)


def by_kind(measured):
    """The calls of each run that went through the proxy."""
    told = {name: one for name, one in measured.items() if one.get("calls")}
    kinds = sorted({kind for one in told.values() for kind in one["calls"]})
    rows = [
        [name, f"{calls(one):,}", *(f"{one['calls'].get(kind, 0):,}" for kind in kinds), f"{one['round_trips']:,}",
         one["most_at_once"], f"{one['sent_bytes'] / MB:.2f}", f"{one['received_bytes'] / MB:.2f}",
         f"{one['cpu_secs']:.2f}"]
        for name, one in told.items()
    ]
    head = ["case", "calls", *kinds, "in sequence", "at a time", "MB sent", "MB received", "CPU s"]
    return table(head, rows) if rows else ""


def ages(told):
    """Whether increments and `status` grow with the lake's age."""
    young, old = told[0], told[-1]
    columns = [("increment", "increment of one date"), ("status", "status")]
    head, rows, verdict = ["dates"], [[f"{one['dates']:,}"] for one in told], Rows({})
    for name, what in columns:
        head += [f"{name}: s", "calls", "in sequence", "kB received"]
        for row, one in zip(rows, told):
            found = one[name]
            row += [f"{found['wall_secs']:.2f}", calls(found), found["round_trips"],
                    f"{found['received_bytes'] / 1000:.0f}"]
        for figure, get in ("calls", calls), ("bytes received", lambda found: found["received_bytes"]):
            growth = get(old[name]) / max(1, get(young[name]))
            label = f"{what}: {figure}, {old['dates']:,} dates / {young['dates']}"
            verdict.most(label, GROWTH, growth, "{:.2f}".format)
    return table(head, rows) + "\n\n" + table(["what", "target", "measured", ""], verdict.rows)


def text(result):
    machine, measured = result["machine"], result["cases"]
    names = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}; "
        f"load before: {machine['load']:.1f}\n{names}\n"
        f"round trips of {result['rtt_secs'] * 1000:g} ms (measured: {result['added_secs'] * 1000:.1f} ms); "
        f"DuckDB with {result['threads']} threads; medians of {result['rounds']}, first syncs, COPY and verify once"
    )
    parts = [head]
    if measured:
        source, rows = result["source"], Rows(measured)
        for name in measured:
            rows.case(name)
        size = (f"{source['pages']:,} pages, {source['bytes'] / MB:.1f} MB: {source['conversations']:,} conversations "
                f"of {source['dates']:,} dates")
        if (result["rtt_secs"], source["conversations"], source["dates"]) != (0.05, 36_500, 366):
            size += "; the targets are for 36,500 conversations of 366 dates at 50 ms"
        parts += [size, table(["what", "target", "measured", ""], rows.rows), by_kind(measured)]
    if result.get("ages"):
        parts.append(ages(result["ages"]))
    wrong = [lake for lake, is_right in result["answers"].items() if not is_right]
    parts += [f"DuckDB's answer is NOT that of the pages: {', '.join(wrong)}"] if wrong else []
    return "\n\n".join(parts)
