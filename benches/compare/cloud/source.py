"""The pages, as `decagon-lake simulate` gives them, and what changes after them.

A folder has `pages.jsonl`, a response a line, for server.py and for DuckDB; `source.json`, what they hold; and
`increment.jsonl`, what the next increment finds, written before each.
"""

import json
import shutil
import subprocess
import urllib.request
from collections import defaultdict
from datetime import datetime, timedelta, timezone

VERSION = 1  # One more whenever this file makes something else.
NOW = datetime(2025, 1, 1, tzinfo=timezone.utc)  # When the history ends: the year before it has 366 dates.
KEY, PAGE = "benchmark-key", 100
CHANGED_DATES, CHANGED_OF_A_DATE = 15, 5  # The most dates that an increment changes, and conversations of each.


class Simulator:
    """The simulated API, while it is entered."""

    def __init__(self, binary, conversations, dates, requests_per_second=0):
        self.command = [
            binary, "simulate", "--port", "0", "--accept-key", KEY, "--requests-per-second", str(requests_per_second),
            "--conversations", str(conversations), "--days", str(dates), "--now", NOW.isoformat(), "--quiet",
        ]
        # Without a limit it is read once: time stands still, so that the walk sees one state.
        self.command += [] if requests_per_second else ["--speed", "0"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        return self

    def page(self, **parameters):
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        request = urllib.request.Request(
            f"{self.url}/conversation/export?{query}", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            return json.load(response)

    def pages(self):
        """All pages, in the order of changes."""
        cursor = {}
        while cursor is not None:
            page = self.page(timestamp_filter="updated_at", **cursor)
            yield page["conversations"]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        if len(page["conversations"]) == PAGE:
            yield []  # A last page that is full looks like one that lost its cursor.

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def line(conversations, cursor=None):
    """A response whose cursor is the next page's number, as server.py and DuckDB want it."""
    rows = json.dumps(conversations, ensure_ascii=False, separators=(",", ":"))
    return f'{{"conversations": {rows}, "next_cursor": {json.dumps(cursor)}}}\n'.encode()


def utc_date(text):
    """The date in UTC of a time, which has an offset, or is in UTC."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return str((at if at.tzinfo is None else at.astimezone(timezone.utc)).date())


class Source:
    """A history, made unless it is there."""

    def __init__(self, binary, folder, conversations, dates):
        self.folder, self.binary, self.changes = folder / f"simulated-{conversations}-{dates}", binary, 0
        self.file, self.increment_file = self.folder / "pages.jsonl", self.folder / "increment.jsonl"
        wanted = {"version": VERSION, "conversations": conversations, "dates": dates}
        try:
            self.told = json.loads((self.folder / "source.json").read_text())
        except (OSError, ValueError):
            self.told = {}
        if {name: self.told.get(name) for name in wanted} != wanted:
            self.told = {**wanted, **self.make(conversations, dates)}
            (self.folder / "source.json").write_text(json.dumps(self.told))
        self.change(1)

    def make(self, conversations, dates):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        deflected, late, size = defaultdict(lambda: [0, 0]), defaultdict(list), 0
        first_late = str((NOW - timedelta(days=CHANGED_DATES)).date())
        with Simulator(self.binary, conversations, dates) as simulator, open(self.file, "wb") as file:
            before, number = None, 0
            for page in simulator.pages():
                if before is not None:
                    number += 1
                    size += file.write(line(before, str(number)))
                before = page
                for conversation in page:
                    date = utc_date(conversation["created_at"])
                    deflected[date][0] += 1
                    deflected[date][1] += not conversation["undeflected"]
                    if date >= first_late and len(late[date]) < CHANGED_OF_A_DATE:
                        late[date].append(conversation)
            size += file.write(line(before))
        return {"pages": number + 1, "bytes": size, "deflected": dict(sorted(deflected.items())),
                "late": [late[date] for date in sorted(late, reverse=True)]}

    def change(self, dates):
        """Changes a few conversations of each of the last dates: what the next increment finds."""
        self.changes += 1
        at = (NOW + timedelta(seconds=self.changes)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        changed = [{**conversation, "updated_at": at, "notes": f"Change {self.changes}."}
                   for conversations in self.told["late"][:dates] for conversation in conversations]
        self.increment_file.write_bytes(line(changed))
