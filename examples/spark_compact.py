"""Compacts a lake with Spark, as `decagon-lake compact` does, for lakes that are too large for one machine.

    spark-submit spark_compact.py LAKE OUT

Reads the plain tables and the staged files of LAKE (a path or URL that Spark can read: s3a://, gs://, abfss://). Writes the
tables as they are after a compaction to OUT, a different path. LAKE stays as it is: run this between two runs of
decagon-lake, and query OUT. A partition without rows gets no file there.
"""

import json
import sys

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

# The partition column, by what the lake is partitioned by.
COLUMN = {"day": "created_date", "month": "created_month"}
# The last columns of every table; newer ones come before them.
LAST = ["extra", "_exported_at", "_run_id", "_seq", "deleted_at"]
INDEXES = {"conversations": None, "messages": "message_index", "tags": "tag_index", "audit_logs": "log_index"}


def hadoop_files(spark, folder):
    """The files of a folder in any file system of Hadoop; none if the folder does not exist."""
    path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(folder)
    files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return [status.getPath().toString() for status in files.listStatus(path)] if files.exists(path) else []


def state(spark, file):
    """The JSON of one of the lake's state objects."""
    [(_, text)] = spark.sparkContext.wholeTextFiles(file).collect()
    return json.loads(text)


def staged_files(spark, lake):
    """The partition column, and the staged files by table, as the latest checkpoint names them. Other files there are
    incomplete flushes."""
    commits = [file for file in hadoop_files(spark, f"{lake}/_state/checkpoints") if file.endswith(".json")]
    if not commits:
        sys.exit(f"{lake} is not a lake")
    identity = state(spark, f"{lake}/_state/lake.json")
    if identity.get("format") == "delta":
        sys.exit(f"{lake} has Delta tables, whose folders also hold replaced files: run `decagon-lake compact` instead")
    column = COLUMN[identity.get("partition_by", "day")]
    latest = max(commits, key=lambda file: file.rsplit("/", 1)[1])
    files = {table: [] for table in INDEXES}
    for flush in state(spark, latest)["landed"]:
        name = f"{flush['flush']['run']}-{flush['flush']['number']:04}.parquet"
        for date in flush["dates"]:
            # A day is named by its value alone, a month by its folder.
            folder = date if "=" in date else f"{column}={date}"
            for table, found in files.items():
                found.append(f"{lake}/_landing/{table}/{folder}/{name}")
    return column, files


def versions(spark, lake, table, partition, staged):
    """The rows of all versions: those in a table and those that are staged for it."""
    in_table = [f"{lake}/{table}"] if hadoop_files(spark, f"{lake}/{table}") else []
    # Files of earlier releases lack the newest columns.
    read = [spark.read.option("basePath", base).option("mergeSchema", "true").parquet(*paths)
            for base, paths in ((f"{lake}/{table}", in_table), (f"{lake}/_landing/{table}", staged)) if paths]
    both = read[0] if len(read) == 1 else read[0].unionByName(read[1], allowMissingColumns=True)
    last = [name for name in [*LAST, partition] if name in both.columns]
    columns = [name for name in both.columns if name not in last] + last
    return both.select(columns).withColumn(partition, F.col(partition).cast("date"))


def latest_versions(partition, conversations, messages, audit_logs):
    """The latest version of each conversation: the one that changed last; of equal ones, the one committed last.

    If a version does not say when it changed, its newest other time counts, those of its messages and logs included. If a
    version says that it changed after it was sent, neither its time nor that of any version committed before it counts.
    """
    version = ["conversation_id", "_run_id", "_seq"]
    times = messages.select(*version, "created_at").unionAll(audit_logs.select(*version, "created_at"))
    children = times.groupBy(*version).agg(F.max("created_at").alias("newest_child"))
    own = [F.col(name) for name in ("created_at", "last_message_at", "last_user_message_at", "newest_child")]
    of_conversation = Window.partitionBy("conversation_id", partition)
    n = F.row_number().over(of_conversation.orderBy("_run_id", "_seq"))
    ahead = F.max(F.when(F.col("changed_at") > F.col("_exported_at"), F.col("n"))).over(of_conversation)
    changed_at = F.when(F.col("ahead").isNull() | (F.col("n") > F.col("ahead")), F.col("changed_at"))
    order = [F.desc_nulls_last(changed_at), F.desc("n")]
    rank = F.row_number().over(of_conversation.orderBy(*order))
    columns = conversations.columns
    numbered = (conversations.join(children, version, "left")
                .withColumn("changed_at", F.coalesce("updated_at", F.greatest(*own))).withColumn("n", n))
    return numbered.withColumn("ahead", ahead).withColumn("rank", rank).where("rank = 1").select(columns)


def main(lake, out):
    spark = SparkSession.builder.appName("decagon-lake compaction").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    # Times as decagon-lake writes them: every engine reads them as instants.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    partition, staged = staged_files(spark, lake)
    tables = {table: versions(spark, lake, table, partition, staged[table]) for table in INDEXES}
    tables["conversations"] = latest_versions(
        partition, tables["conversations"], tables["messages"], tables["audit_logs"]).cache()
    owners = tables["conversations"].select("conversation_id", partition, "_run_id", "_seq")
    for table, index in INDEXES.items():
        rows, sort = tables[table], ["conversation_id"]
        if index:
            # A conversation without a readable `created_at` has a null date. Null dates are equal here, unlike in a plain join.
            same = [rows[name].eqNullSafe(owners[name]) for name in owners.columns]
            rows = rows.join(owners, same, "left_semi").dropDuplicates(["conversation_id", partition, index])
            sort.append(index)
        rows = rows.repartition(partition).sortWithinPartitions(partition, *sort)
        rows.write.partitionBy(partition).option("compression", "zstd").parquet(f"{out}/{table}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(url.rstrip("/") for url in sys.argv[1:]))
