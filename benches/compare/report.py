"""Writes the figures as Markdown: the tools side by side, then each target, its figure and whether it is met."""

MB = 1_000_000
OURS = "decagon-lake"


def table(head, rows):
    """A Markdown table whose columns line up."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def same(differences):
    """Whether a peer's tables are decagon-lake's."""
    return not any(
        found["only_ours"] or found["only_theirs"] or found["keys_twice"] for found in differences.values()
    )


def agree(result):
    checked = (tool["differences"] for tool in result["tools"].values() if "differences" in tool)
    looked_up = (figures["agrees"] for query in result.get("queries", {}).values() for figures in query.values())
    return all(map(same, checked)) and all(looked_up)


def head(result):
    machine, pages = result["machine"], result["pages"]
    names = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}\n"
        f"{names}\n"
        f"{pages['pages']:,} pages, {pages['bytes'] / MB:.1f} MB: {pages['copies']:,} versions of {pages['count']:,} "
        f"conversations, {pages['messages']:,} messages, {pages['days']} dates; second versions come: "
        f"{pages['changes']}\n"
        f"medians of {result['rounds']}; serving the pages took {result['server_cpu_secs']:.2f} s of CPU more; load "
        f"before the first: {machine['load']:.1f}"
    )


def tools(result):
    ours, rows = result["tools"][OURS], []
    for name, tool in result["tools"].items():
        walls = [run["wall_secs"] for run in tool["runs"]]
        rows.append([
            name, f"{tool['wall_secs']:.2f}", f"{min(walls):.2f}–{max(walls):.2f}",
            f"{tool['wall_secs'] / ours['wall_secs']:.2f}", f"{tool['flush_secs']:.2f}", f"{tool['cpu_secs']:.2f}",
            f"{tool['peak_bytes'] / MB:.0f}", f"{tool['table_bytes'] / MB:.2f}",
            "" if name == OURS else "not compared" if "differences" not in tool
            else "yes" if same(tool["differences"]) else "NO",
        ])
    return table(
        ["tool", "wall s", "from–to", "ratio", "to disk s", "CPU s", "peak MB", "tables MB", "same rows"], rows
    )


def differences(result):
    """The tables that differ, with a few of the rows."""
    lines = []
    for name, tool in result["tools"].items():
        for of, found in tool.get("differences", {}).items():
            for side in ("only_ours", "only_theirs", "keys_twice"):
                if found[side]:
                    lines.append(f"{name}, {of}: {side} {found[side]:,} of {found['rows']:,} rows")
                    lines += [f"    {row}" for row in found.get(f"{side}_rows", [])]
    return "\n".join(lines)


class Targets:
    """The rows of the table of targets."""

    def __init__(self, result):
        self.result, self.rows = result, []
        for part in (self.peers, self.memory, self.pace, self.queries, self.increments, self.one_date):
            part()

    def add(self, what, target, figure, met):
        self.rows.append([what, target, figure, "met" if met else "not met"])

    def missing(self, what, why):
        self.rows.append([what, "", "not measured", why])

    def peers(self):
        found = self.result["tools"]
        ours = found[OURS]

        def ratio(peer, measure, most, words):
            what = {"wall_secs": "time of sync", "cpu_secs": "CPU time of sync", "table_bytes": "bytes of the tables"}
            if peer not in found:
                return self.missing(f"{what[measure]} / {peer}", "did not run")
            figure = ours[measure] / found[peer][measure]
            self.add(f"{what[measure]} / {peer}", f"at most {words}", f"{figure:.3f}", figure <= most)

        ratio("polars", "wall_secs", 1 / 3, "1/3")
        ratio("duckdb", "wall_secs", 1 / 4, "1/4")
        ratio("polars", "cpu_secs", 2 / 3, "2/3")
        ratio("duckdb", "table_bytes", 1, "1")

    def memory(self):
        peak = self.result["tools"][OURS]["peak_bytes"]
        self.add("peak memory of sync", "under 200 MB", f"{peak / MB:.0f} MB", peak < 200 * MB)
        if large := self.result.get("large"):
            growth = large["peak_bytes"] / peak
            size = f"{large['peak_bytes'] / MB:.0f} MB, {growth:.2f} times (in {large['wall_secs']:.2f} s)"
            self.add("peak memory of one 4 times as large", "under 200 MB, 1.2 times", size,
                     large["peak_bytes"] < 200 * MB and growth < 1.2)
        else:
            self.missing("peak memory of one 4 times as large", "--skip-large")

    def pace(self):
        if not (figures := self.result.get("pace")):
            return self.missing("1 request a second", "--skip-pace")
        count, gap = figures["pages"], figures["shortest_gap_secs"]
        most, share = count * 1.01 + 1, figures["cpu_secs"] / figures["wall_secs"]
        self.add(f"{count} pages at 1 request a second", f"at most {most:.2f} s", f"{figures['wall_secs']:.2f} s",
                 figures["wall_secs"] <= most)
        if gap is not None:
            self.add("… requests apart, as the server saw them", "at least 1 s", f"{gap:.4f} s", gap >= 1)
        self.add("… of one core", "under 3 %", f"{share:.2%}", share < 0.03)

    def queries(self):
        if not (figures := self.result.get("queries")):
            return self.missing("lookups", "--skip-queries")
        names = {"messages": "a conversation's messages", "deflection": "a day's deflection rate in a year"}
        for query, found in figures.items():
            for name in (name for name in found if not name.startswith(OURS)):
                times = found[name]["millis"] / found[OURS]["millis"]
                self.add(f"{names[query]}, against {name}", "at least 3 times faster", f"{times:.1f} times", times >= 3)

    def increments(self):
        what = "an increment of 1 % of a day"
        if not (figures := self.result.get("increments")):
            return self.missing(what, "--skip-increment")
        short, long = figures["short"], figures["long"]
        touched = max(short["dates_touched"], long["dates_touched"])
        self.add(f"{what}: dates touched", "1", touched, touched == 1)
        ratio = long["wall_secs"] / short["wall_secs"]
        self.add(f"{what}: {long['dates']:,} dates / {short['dates']}", "within 10 %",
                 f"{ratio:.3f} ({long['wall_secs']:.3f} s / {short['wall_secs']:.3f} s)", ratio <= 1.1)

    def one_date(self):
        if not (figures := self.result.get("one_date")):
            return self.missing("compaction of one date with 1,000,000 conversations", "give --one-date")
        small, large = figures
        what = f"compaction of one date with {large['count']:,} conversations"
        peak = large["peak_bytes"]
        self.add(f"{what}: memory", "under 512 MB", f"{peak / MB:.0f} MB", peak < 512 * MB)
        growth = large["wall_secs"] / small["wall_secs"] / (large["copies"] / small["copies"])
        self.add(f"{what}: time, of linear", "at most 1.5", f"{growth:.2f} ({large['wall_secs']:.1f} s)", growth <= 1.5)


def lookups(result):
    """What DuckDB did for the queries."""
    rows = [
        [query, name, f"{figures['millis']:.1f}", f"{figures['rows_scanned']:,}", figures["rows_returned"],
         "" if figures["bytes_read"] is None else f"{figures['bytes_read']:,}", "yes" if figures["agrees"] else "NO"]
        for query, found in result.get("queries", {}).items() for name, figures in found.items()
    ]
    columns = ["query", "tables of", "ms", "rows scanned", "rows returned", "bytes read", "same answer"]
    return table(columns, rows) if rows else ""


def text(result):
    targets = table(["what", "target", "measured", ""], Targets(result).rows)
    if result["scale"] != 1:
        targets = f"The targets are for --scale 1, this is {result['scale']:g}.\n\n{targets}"
    parts = [head(result), tools(result), differences(result), targets, lookups(result)]
    return "\n\n".join(part for part in parts if part)
