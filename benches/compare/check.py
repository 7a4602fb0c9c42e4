"""Compares decagon-lake's tables with a peer's, row by row.

    python check.py LAKE KIND OUT     prints as JSON, by table: the rows, how many differ, and a few that do

A row is a key and all of the API's columns, with the date that it lies under. JSON is compared without its white space,
numbers and the order of fields as they are. Columns that only one program can know are left out: `_exported_at`,
`_run_id`, `_seq`. A view picks the latest of the versions that dlt appends.
"""

import json
import sys

from tables import COLUMNS, KEYS, connect, view


def compare(duck, table):
    ours, theirs = f"ours_{table}", f"theirs_{table}"
    count = lambda query: duck.sql(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: E731
    sides = {"only_ours": (ours, theirs), "only_theirs": (theirs, ours)}
    found = {"rows": count(f"FROM {ours}"), "rows_theirs": count(f"FROM {theirs}")}
    found["keys_twice"] = count(f"SELECT {KEYS[table]} FROM {ours} GROUP BY ALL HAVING count(*) > 1")
    for side, (one, other) in sides.items():
        query = f"FROM {one} EXCEPT ALL FROM {other}"
        found[side] = count(query)
        if found[side]:
            rows = duck.sql(f"FROM ({query}) ORDER BY {KEYS[table]} LIMIT 3")
            found[f"{side}_rows"] = [dict(zip(rows.columns, map(str, row))) for row in rows.fetchall()]
    return found


def main():
    lake, kind, out = sys.argv[1:]
    duck = connect()
    view(duck, "decagon-lake", lake, "ours")
    view(duck, kind, out, "theirs")
    print(json.dumps({table: compare(duck, table) for table in COLUMNS}))


if __name__ == "__main__":
    main()
