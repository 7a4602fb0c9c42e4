"""The vendor's own example program and example response."""

import json
import subprocess
import sys
from datetime import date, datetime, timezone

from conftest import KEY, ROOT
from truth import assert_exact, read_table

VENDOR = ROOT / "tests" / "vendor"


def test_its_program_sees_every_conversation(simulate, tmp_path):
    api = simulate("--conversations", 730)
    program = (VENDOR / "export_all.py").read_text()
    changes = {
        "YOUR_API_KEY": KEY,
        "https://api.decagon.ai": api.url,
        "cursor = 0\n": "cursor = 0\nseen = []\n",
        "    pass\n": "    seen += [c['conversation_id'] for c in response['conversations']]\n",
    }
    for old, new in changes.items():
        assert program.count(old) == 1
        program = program.replace(old, new)
    program += "print(json.dumps(seen))\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(done.stdout)
    assert sorted(seen) == sorted(c["conversation_id"] for c in api.conversations())


def test_the_example_response_becomes_these_rows(serve, command, lake):
    response = (VENDOR / "example_response.json").read_text()
    empty = '{"conversations": [], "next_page_updated_after": null}'
    api = serve(response, empty)
    command("sync", api)
    assert "cursor=151050148" in api.asked[1], "the integer cursor was followed"
    assert_exact(lake, json.loads(response)["conversations"])

    # Copied by hand from the vendor's page.
    at = lambda *time: datetime(*time, tzinfo=timezone.utc)
    own_id = "8ba9020c-0424-4bb2-ba5f-971a522c84de"
    [row] = read_table(lake, "conversations")
    assert row["_exported_at"] and row["_run_id"] and row["_seq"] == 0
    assert {name: value for name, value in row.items() if not name.startswith("_") and value is not None} == {
        "conversation_id": own_id,
        "user_id": "user_12",
        "destination": "AI",
        "created_at": at(2024, 1, 1, 21, 42, 10, 309970),
        "metadata": {"user_type": "VIP"},
        "undeflected": True,
        "summary": "The customer reached out to say hello.",
        "resolution": "The agent offered to help the customer.",
        "csat_rating": 4,
        "csat_role": "AGENT",
        "notes": "This is an internal note.",
        "message_count": 2,
        "created_date": date(2024, 1, 1),
    }
    assert [(m["message_index"], m["role"], m["text"], m["created_at"]) for m in read_table(lake, "messages")] == [
        (0, "USER", "Hi there!", at(2024, 1, 1, 21, 42, 10, 309970)),
        (1, "AI", "Hello! How can I help you?", at(2024, 1, 1, 21, 42, 12, 309970)),
    ]
    [tag] = read_table(lake, "tags")
    assert (tag["tag_index"], tag["tag_id"], tag["name"], tag["level"]) == (0, None, "Greeting", 0)
    [log] = read_table(lake, "audit_logs")
    assert (log["log_index"], log["text"], log["payload"]) == (0, "CSAT set to 4", {})
    assert log["created_at"] == at(2024, 5, 6, 14, 11, 26, 799976)


def test_the_schema_is_the_promised_one(serve, command, lake):
    import duckdb

    command("sync", serve((VENDOR / "example_response.json").read_text(), '{"conversations": []}'))
    text, time, whole = "VARCHAR", "TIMESTAMP WITH TIME ZONE", "INTEGER"
    promised = {
        "conversations": [
            ("conversation_id", text), ("user_id", text), ("destination", text), ("created_at", time),
            ("updated_at", time), ("last_message_at", time), ("last_user_message_at", time), ("undeflected", "BOOLEAN"),
            ("summary", text), ("resolution", text), ("csat_rating", whole), ("csat", whole), ("csat_role", text),
            ("csat_resolved", "BOOLEAN"), ("customer_feedback", text), ("flow_type", text), ("notes", text),
            ("metadata", text), ("message_count", whole), ("conversation_url", text), ("all_tags", text),
            ("watchtower_reviews", text), ("extra", text), ("_exported_at", time), ("_run_id", text), ("_seq", "BIGINT"),
            ("deleted_at", time),
        ],
        "messages": [("conversation_id", text), ("message_index", whole), ("role", text), ("text", text),
                     ("created_at", time), ("message_id", text), ("extra", text), ("_run_id", text), ("_seq", "BIGINT")],
        "tags": [("conversation_id", text), ("tag_index", whole), ("tag_id", text), ("name", text), ("level", whole),
                 ("extra", text), ("_run_id", text), ("_seq", "BIGINT")],
        "audit_logs": [("conversation_id", text), ("log_index", whole), ("text", text), ("payload", text),
                       ("created_at", time), ("extra", text), ("_run_id", text), ("_seq", "BIGINT")],
    }
    for table, columns in promised.items():
        described = duckdb.sql(
            f"DESCRIBE FROM read_parquet('{lake}/{table}/*/*.parquet', hive_partitioning = true)"
        ).fetchall()
        assert [(name, kind) for name, kind, *_ in described] == [*columns, ("created_date", "DATE")]
