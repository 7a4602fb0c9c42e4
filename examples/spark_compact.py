"""Compacts the landing zone of a lake with Spark, for more than one machine can: what `decagon-lake compact` does.

    spark-submit spark_compact.py LAKE OUT

Reads the plain tables of LAKE (a path or URL that Spark can read: s3a://, gs://, abfss://) and everything that is landed for them,
and writes the tables as they are after a compaction to OUT, another place. LAKE stays as it is: run it between two runs of
decagon-lake, and query OUT. A table, or the date of one, that has no rows gets no file there.
"""

import json
import sys

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

INDEXES = {"conversations": None, "messages": "message_index", "tags": "tag_index", "audit_logs": "log_index"}


def hadoop_files(spark, folder):
    """The files of a folder, wherever Hadoop finds it; none where there is no such folder."""
    path = spark.sparkContext._jvm.org.apache.hadoop.fs.Path(folder)
    files = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    return [status.getPath().toString() for status in files.listStatus(path)] if files.exists(path) else []


def state(spark, file):
    """One of the lake's own objects."""
    [(_, text)] = spark.sparkContext.wholeTextFiles(file).collect()
    return json.loads(text)


def landed(spark, lake):
    """The landing objects by table, as the newest checkpoint names them: whatever else lies there is half of something."""
    commits = [file for file in hadoop_files(spark, f"{lake}/_state/checkpoints") if file.endswith(".json")]
    if not commits:
        sys.exit(f"{lake} is no lake")
    if state(spark, f"{lake}/_state/lake.json").get("format") == "delta":
        sys.exit(f"{lake} has Delta tables, whose files are not all theirs: `decagon-lake compact` it")
    newest = max(commits, key=lambda file: file.rsplit("/", 1)[1])
    objects = {table: [] for table in INDEXES}
    for flush in state(spark, newest)["landed"]:
        name = f"{flush['flush']['run']}-{flush['flush']['number']:04}.parquet"
        for date in flush["dates"]:
            for table, found in objects.items():
                found.append(f"{lake}/_landing/{table}/created_date={date}/{name}")
    return objects


def copies(spark, lake, table, objects):
    """Every copy there is of a table's rows, those in the table and those that are landed."""
    in_table = [f"{lake}/{table}"] if hadoop_files(spark, f"{lake}/{table}") else []
    read = [spark.read.option("basePath", base).parquet(*paths)
            for base, paths in ((f"{lake}/{table}", in_table), (f"{lake}/_landing/{table}", objects)) if paths]
    both = read[0] if len(read) == 1 else read[0].unionByName(read[1])
    return both.withColumn("created_date", F.col("created_date").cast("date"))


def newest(conversations, messages, audit_logs):
    """The newest copy of each conversation: what changed last, then what was committed last.

    A copy that does not tell when it changed did so at its newest other time, those of its messages and logs included. If a
    copy says that it changed after it was sent, neither its time nor that of any copy committed before it counts.
    """
    copy = ["conversation_id", "_run_id", "_seq"]
    times = messages.select(*copy, "created_at").unionAll(audit_logs.select(*copy, "created_at"))
    children = times.groupBy(*copy).agg(F.max("created_at").alias("newest_child"))
    own = [F.col(name) for name in ("created_at", "last_message_at", "last_user_message_at", "newest_child")]
    of_conversation = Window.partitionBy("conversation_id", "created_date")
    n = F.row_number().over(of_conversation.orderBy("_run_id", "_seq"))
    ahead = F.max(F.when(F.col("changed_at") > F.col("_exported_at"), F.col("n"))).over(of_conversation)
    changed_at = F.when(F.col("ahead").isNull() | (F.col("n") > F.col("ahead")), F.col("changed_at"))
    order = [F.desc_nulls_last(changed_at), F.desc("n")]
    place = F.row_number().over(of_conversation.orderBy(*order))
    columns = conversations.columns
    numbered = (conversations.join(children, copy, "left")
                .withColumn("changed_at", F.coalesce("updated_at", F.greatest(*own))).withColumn("n", n))
    return numbered.withColumn("ahead", ahead).withColumn("place", place).where("place = 1").select(columns)


def main(lake, out):
    spark = SparkSession.builder.appName("decagon-lake compaction").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.sources.partitionColumnTypeInference.enabled", "false")
    # Instants as decagon-lake writes them, which every engine reads as such.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    objects = landed(spark, lake)
    tables = {table: copies(spark, lake, table, objects[table]) for table in INDEXES}
    tables["conversations"] = newest(tables["conversations"], tables["messages"], tables["audit_logs"]).cache()
    owners = tables["conversations"].select("conversation_id", "created_date", "_run_id", "_seq")
    for table, index in INDEXES.items():
        rows, sort = tables[table], ["conversation_id"]
        if index:
            # Null dates are those of conversations without a readable `created_at`: equal here, unlike in a plain join.
            same = [rows[name].eqNullSafe(owners[name]) for name in owners.columns]
            rows = rows.join(owners, same, "left_semi").dropDuplicates(["conversation_id", "created_date", index])
            sort.append(index)
        rows = rows.repartition("created_date").sortWithinPartitions("created_date", *sort)
        rows.write.partitionBy("created_date").option("compression", "zstd").parquet(f"{out}/{table}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(place.rstrip("/") for place in sys.argv[1:]))
