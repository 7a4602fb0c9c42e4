"""A policy, `forget` and `reconcile` in one lake, on each store, in each format, by day and by month."""

import json
from pathlib import Path

import pytest
from test_forget import where
from test_reconcile import change, marked, rows
from test_stores import place, server  # noqa: F401

POLICY = """
[[rules]]
field = "user_id"
action = "hash"
[[rules]]
field = "summary"
action = "drop"
"""
STRICTER = POLICY + """
[[rules]]
field = "messages.text"
action = "drop"
"""
SMALL = ["--conversations", 240, "--days", 5, "--messages", 3]


@pytest.mark.parametrize("place, by", [
    ("local", "month"), ("local delta", "day"), ("seaweedfs", "day"), ("seaweedfs delta", "month"), ("azurite", "month"),
    ("azurite delta", "day"),
], indirect=["place"])
def test_they_work_together(place, by, simulate, tmp_path):  # noqa: F811
    place.environment |= {"DECAGON_PARTITION_BY": by, "DECAGON_POLICY_KEY": "the key of this test"}
    policy, stricter = Path(tmp_path, "policy.toml"), Path(tmp_path, "stricter.toml")
    policy.write_text(POLICY), stricter.write_text(STRICTER)
    api = simulate(*SMALL)
    place.command("sync", api, "--policy", policy)
    account = api.conversations()
    users = [each["user_id"] for each in account]
    assert where(place.objects(), users) == {} and len(rows(place)) == len(account)

    # The lake knows the user's hash alone; with the key, the user is found nevertheless.
    person = users[7]
    theirs = {each["conversation_id"] for each in account if each["user_id"] == person}
    receipt = json.loads(place.command("forget", None, "--user-id", person, "--json").stdout)
    assert receipt["conversations"] == len(theirs) == receipt["rows"]["conversations"]
    assert where(place.objects(), theirs) == {}

    # What was forgotten is not missing, although the API still has it; what the API lacks is gone.
    gone = next(each["conversation_id"] for each in account if each["conversation_id"] not in theirs)
    change(api, "delete", conversation_id=gone)
    done = place.command("reconcile", api, "--on-deleted", "mark", "--max-deleted", "5%", "--json")
    found = json.loads(done.stdout)["reconciled"]
    assert found["complete"] and (found["missing"], found["stale"], found["gone"], found["marked"]) == (0, 0, 1, 1), found
    assert set(marked(place)) == {gone}
    assert where(place.objects(), theirs) == {}

    # A stricter policy takes hold of what is there, and of nothing that is not.
    assert any(row["text"] for row in rows(place, "messages"))
    upgraded = json.loads(place.command("upgrade", None, "--policy", stricter, "--json").stdout)
    assert upgraded["upgraded_partitions"] > 0
    assert not any(row["text"] for row in rows(place, "messages"))
    assert set(marked(place)) == {gone} and len(rows(place)) == len(account) - len(theirs)
    place.command("verify")
    place.command("sync", api)
    assert where(place.objects(), theirs) == {} and len(rows(place)) == len(account) - len(theirs)
    weaker = place.command("sync", api, "--policy", policy, code=2)
    assert "messages.text" in weaker.stderr
