"""Times two lookups with DuckDB over the tables of decagon-lake and over dlt's of the same data.

    python queries.py LAKE KIND=OUT…     prints as JSON, by query and tool: milliseconds, rows scanned, bytes read

A conversation's messages by its id and date, and one day's deflection rate. Each repetition has a new connection and
so no cache but the system's; the tools take turns. The date is given to every tool in the form that lets it read least:
the one folder of decagon-lake, the partition of Delta, the range of `created_at` for appended files, whose duplicates
the query has to see to itself. What decagon-lake's tables take through a view, for which DuckDB lists all their folders
first, is told beside it. Rows are what DuckDB says its scans went through; bytes are what its process read from files.
"""

import json
import statistics
import sys
import time
from datetime import date, timedelta

from tables import connect, load

REPEATS = 25
OURS, VIEW = "decagon-lake", "decagon-lake, a view"


def queries(kind, out, conversation_id, day):
    """The two queries over a tool's tables."""
    where = f"created_date = '{day}'"
    if kind in (OURS, VIEW):
        folder = "*" if kind == VIEW else f"created_date={day}"
        table = lambda name: f"read_parquet('{out}/{name}/{folder}/*.parquet', hive_partitioning = true)"  # noqa: E731
        return {
            "messages": f"""SELECT message_index, role, text FROM {table("messages")}
                WHERE {where} AND conversation_id = '{conversation_id}' ORDER BY message_index""",
            "deflection": f"""SELECT count(*), avg((NOT undeflected)::INT)
                FROM {table("conversations")} WHERE {where}""",
        }
    if kind == "dlt-upsert":
        table = lambda name: f"delta_scan('{out}/lake/{name}')"  # noqa: E731
        newest = f"SELECT * FROM {table('conversations')} WHERE {where}"
        dated = f"{where} AND"
    else:
        table = lambda name: f"read_parquet('{out}/lake/{name}/*.parquet')"  # noqa: E731
        after = date.fromisoformat(day) + timedelta(days=1)
        newest = f"""SELECT * FROM {table('conversations')} WHERE created_at >= '{day}' AND created_at < '{after}'
            QUALIFY row_number() OVER (PARTITION BY conversation_id ORDER BY updated_at DESC, _seq DESC) = 1"""
        dated = ""
    return {
        "messages": f"""SELECT _dlt_list_idx, role, text FROM {table("conversations__messages")}
            WHERE {dated} _dlt_parent_id = (SELECT _dlt_id FROM ({newest}) WHERE conversation_id = '{conversation_id}')
            ORDER BY _dlt_list_idx""",
        "deflection": f"SELECT count(*), avg((NOT undeflected)::INT) FROM ({newest})",
    }


def bytes_read():
    """What this process has read from files so far; `None` where the system does not tell."""
    try:
        with open("/proc/self/io") as told:
            return int(dict(line.split(": ") for line in told)["rchar"])
    except OSError:
        return None


def scanned(plan):
    """The rows that the scans of a plan went through."""
    return (plan.get("operator_rows_scanned") or 0) + sum(map(scanned, plan["children"]))


def once(kind, query, prefix=""):
    """The query's rows, the milliseconds that it took, and the bytes that were read for it."""
    duck = connect()
    if kind == "dlt-upsert":
        load(duck, "delta")
    if prefix:
        duck.execute("SET threads = 1")  # DuckDB counts the rows of a scan once for each thread.
    before, begin = bytes_read(), time.perf_counter()
    rows = duck.execute(prefix + query).fetchall()
    spent, after = time.perf_counter() - begin, bytes_read()
    duck.close()
    return rows, spent * 1000, None if before is None else after - before


def main():
    lake, *others = sys.argv[1:]
    tools = {OURS: lake, VIEW: lake, **dict(other.split("=", 1) for other in others)}
    conversations = f"read_parquet('{lake}/conversations/*/*.parquet', hive_partitioning = true)"
    conversation_id, day = connect().execute(f"""
        SELECT conversation_id, created_date::VARCHAR FROM {conversations}
        WHERE created_date = (SELECT quantile_disc(created_date, 0.6) FROM {conversations})
        ORDER BY message_count DESC, conversation_id LIMIT 1""").fetchone()
    by_tool = {kind: queries(kind, out, conversation_id, day) for kind, out in tools.items()}
    result = {}
    for name in ("messages", "deflection"):
        taken, answers, told = {kind: [] for kind in tools}, {}, {}
        for _ in range(REPEATS):
            for kind in tools:
                answers[kind], millis, read = once(kind, by_tool[kind][name])
                taken[kind].append(millis)
                told[kind] = {"bytes_read": read}
        for kind in tools:
            plan = json.loads(once(kind, by_tool[kind][name], "EXPLAIN (ANALYZE, FORMAT json) ")[0][0][1])
            told[kind] |= {
                "millis": statistics.median(taken[kind]), "rows_scanned": scanned(plan),
                "rows_returned": len(answers[kind]), "agrees": answers[kind] == answers[OURS],
            }
        result[name] = told
    print(json.dumps(result))


if __name__ == "__main__":
    main()
