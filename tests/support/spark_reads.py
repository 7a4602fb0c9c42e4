"""Runs the statements of files in Spark, then reads tables; writes the types and rows to OUT as JSON.

    spark_reads.py JOBS OUT     JOBS: [{"statements": a file, "tables": [names or paths]}, …]
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession


# A handful of rows is not worth compiling for.
SMALL = {"spark.sql.shuffle.partitions": 1, "spark.sql.adaptive.enabled": False, "spark.sql.codegen.wholeStage": False,
         "spark.sql.codegen.factoryMode": "NO_CODEGEN"}


def statements(script):
    """One by one, as Spark takes them; comments stand on lines of their own."""
    bare = "\n".join(line for line in Path(script).read_text().splitlines() if not line.startswith("--"))
    return [statement for statement in bare.split(";\n") if statement.strip()]


def read(spark, table):
    frame = spark.read.parquet(table) if table.startswith("/") else spark.table(table)
    # As text, so that Python's time zone does not matter.
    shown = [f"CAST({name} AS STRING)" if kind in ("timestamp", "date") else name for name, kind in frame.dtypes]
    return {"types": frame.dtypes, "rows": [list(row) for row in frame.selectExpr(*shown).collect()]}


def main(jobs, out):
    spark = SparkSession.builder.config(map=SMALL).getOrCreate()
    spark.sql("SET TIME ZONE 'UTC'")
    found = []
    for job in json.loads(Path(jobs).read_text()):
        for statement in statements(job["statements"]) if job["statements"] else []:
            spark.sql(statement)
        found.append({table: read(spark, table) for table in job["tables"]})
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
