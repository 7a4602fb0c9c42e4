"""Asks DuckDB for the deflection by day over all of a lake in S3.

    python deflection.py LAKE DAY_EXPRESSION THREADS     prints as JSON the seconds of the query, and its answer

The connection is new and knows nothing of the files; loading DuckDB and its extension is not counted.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tables import connect, load_s3  # noqa: E402


def main():
    lake, day, threads = sys.argv[1:]
    duck = connect()
    duck.execute(f"SET threads = {int(threads)}")
    load_s3(duck)
    begin = time.perf_counter()
    rows = duck.execute(f"""
        SELECT ({day})::VARCHAR, count(*), sum((NOT undeflected)::INT)::INT
        FROM read_parquet('{lake}/conversations/*/*.parquet', hive_partitioning = true) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    spent = time.perf_counter() - begin
    print(json.dumps({"wall_secs": spent, "answer": {day: numbers for day, *numbers in rows}}))


if __name__ == "__main__":
    main()
