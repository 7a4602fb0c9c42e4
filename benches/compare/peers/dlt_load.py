"""dlt: a resource yields the pages' conversations; dlt makes the four tables and loads them to the file system.

    python dlt_load.py append PAGES.jsonl OUT     plain Parquet; every version is kept, nothing is deduplicated
    python dlt_load.py upsert PAGES.jsonl OUT     Delta tables by date, merged on conversation_id

The tables are dlt's own: `conversations`, `conversations__messages`, `…__tags` and `…__audit_logs`. All types are
given. What dlt cannot do, and so does not do here: partition plain files by a column (its layout knows the time of
loading alone), compress Delta's files with anything but Snappy (it does not pass the writer's properties on), find the
latest of two versions within one load (an upsert needs unique keys: second versions are held back for a second load,
which is right because the pages have each conversation's versions in the order of their `updated_at`), or remove the
elements that a newer version no longer has (there are none in these pages).
"""

import os
import sys
from itertools import count
from pathlib import Path

CONFIGURATION = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    # Normalizing takes most of the time: two processes, which need more than one file to share.
    "NORMALIZE__WORKERS": "2",
    "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "10000",
    "NORMALIZE__DATA_WRITER__COMPRESSION": "zstd",
}
os.environ.update(CONFIGURATION)

import dlt  # noqa: E402
import orjson  # noqa: E402

LAYOUT = "{table_name}/{load_id}.{file_id}.{ext}"


def columns(**types):
    return {name: {"data_type": kind} for name, kind in types.items()}


DATE = {"created_date": {"data_type": "date", "partition": True}}
CONVERSATION = columns(
    conversation_id="text", user_id="text", destination="text", created_at="timestamp", updated_at="timestamp",
    last_message_at="timestamp", last_user_message_at="timestamp", undeflected="bool", summary="text",
    resolution="text", csat_rating="bigint", csat="bigint", csat_role="text", csat_resolved="bool",
    customer_feedback="text", flow_type="text", notes="text", metadata="json",
    conversation_url="text", all_tags="json", watchtower_reviews="json", _seq="bigint",
)
CHILDREN = {
    "messages": columns(role="text", text="text", created_at="timestamp", id="text"),
    "tags": columns(id="text", name="text", level="bigint"),
    "audit_logs": columns(text="text", payload="json", created_at="timestamp"),
}


def conversations(path):
    """The conversations of each page in turn, numbered: only the number shows which appended version is the latest."""
    number = count()
    with open(path, "rb") as pages:
        for page in pages:
            rows = orjson.loads(page)["conversations"]
            for conversation in rows:
                conversation["_seq"] = next(number)
            yield rows


def dated(conversation):
    """The date in the conversation and in its elements, whose tables would have no column to be partitioned by."""
    date = conversation["created_at"][:10]
    conversation["created_date"] = date
    for table in CHILDREN:
        for element in conversation[table]:
            element["created_date"] = date
    return conversation


def resource(rows, upsert):
    """The rows as a resource of either kind."""
    more = DATE if upsert else {}
    kind = {"write_disposition": "append"}
    if upsert:
        kind = {
            "write_disposition": {"disposition": "merge", "strategy": "upsert"}, "primary_key": "conversation_id",
            "table_format": "delta",
        }
    nested = {table: dlt.mark.make_nested_hints(columns={**types, **more}) for table, types in CHILDREN.items()}
    return dlt.resource(rows, name="conversations", columns={**CONVERSATION, **more}, nested_hints=nested, **kind)


def loads(path):
    """What to upsert, load by load: no conversation twice in any."""
    held, seen = [], set()

    def first():
        for page in conversations(path):
            fresh = []
            for conversation in page:
                own_id = conversation["conversation_id"]
                (held if own_id in seen else fresh).append(conversation)
                seen.add(own_id)
            yield [dated(conversation) for conversation in fresh]

    yield first()
    # The last of each, because a later version in these pages is a newer one.
    yield [dated(conversation) for conversation in {one["conversation_id"]: one for one in held}.values()]


def main():
    mode, path, out = sys.argv[1:]
    out = Path(out).resolve()
    os.environ["DLT_DATA_DIR"] = str(out / "_dlt")
    pipeline = dlt.pipeline(
        "compare", pipelines_dir=str(out / "_pipeline"), dataset_name="lake",
        destination=dlt.destinations.filesystem(bucket_url=out.as_uri(), layout=LAYOUT),
    )
    if mode == "append":
        pipeline.run(resource(conversations(path), False), loader_file_format="parquet")
    else:
        for rows in loads(path):
            pipeline.run(resource(rows, True))


if __name__ == "__main__":
    main()
