"""What the commands return: the main fields with their types, and `raw` with everything that the binary printed.

Guarantees: fields that a newer binary adds are in `raw`, and fields that it leaves out have a default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Callable, Generic, Mapping, Optional, Tuple, TypeVar

T = TypeVar("T")
Json = Mapping[str, Any]


def _raw() -> Any:
    """`raw` is long, and all that distinguishes two results is in the other fields."""
    return field(repr=False, compare=False)


def _time(text: Optional[str]) -> Optional[datetime]:
    """An instant in UTC. Python 3.10 reads neither `Z` nor nanoseconds."""
    if text is None:
        return None
    match = re.fullmatch(r"([^.Z+]+)(?:\.(\d+))?(?:Z|\+00:00)", text)
    if match is None:
        raise ValueError(f"not a time in UTC: {text}")
    fraction = (match[2] or "").ljust(6, "0")[:6]
    return datetime.fromisoformat(f"{match[1]}.{fraction}+00:00")


def _date(text: Optional[str]) -> Optional[date]:
    return None if text is None else date.fromisoformat(text)


@dataclass(frozen=True)
class PerTable(Generic[T]):
    """A value for each table."""

    conversations: T
    messages: T
    tags: T
    audit_logs: T

    @classmethod
    def of(cls, raw: Optional[Json], read: Callable[[Any], T]) -> PerTable[T]:
        """Reads the value of each table; `read` gets None for a table that `raw` lacks."""
        raw = raw or {}
        conversations, messages, tags, audit_logs = (
            read(raw.get(name)) for name in ("conversations", "messages", "tags", "audit_logs")
        )
        return cls(conversations, messages, tags, audit_logs)


@dataclass(frozen=True)
class TableTotals:
    """What a table holds."""

    rows: int
    bytes: int
    partitions: int
    first_partition: Optional[date]
    last_partition: Optional[date]

    @classmethod
    def of(cls, raw: Optional[Json]) -> TableTotals:
        """Reads the totals from JSON."""
        raw = raw or {}
        return cls(
            rows=raw.get("rows", 0),
            bytes=raw.get("bytes", 0),
            partitions=raw.get("dates", 0),
            first_partition=_date(raw.get("first_date")),
            last_partition=_date(raw.get("last_date")),
        )


def _count(value: Optional[int]) -> int:
    return value or 0


@dataclass(frozen=True)
class Report:
    """The report of a run."""

    run_id: str
    command: str
    version: str
    outcome: str
    """`done`, `set_aside` (done, with entries quarantined), `interrupted` or `failed`."""
    error: Tuple[str, ...]
    """The error and its causes, if it failed."""
    started_at: Optional[datetime]
    finished_at: Optional[datetime]
    watermark: Optional[datetime]
    """The newest change that is known to be in the lake now."""
    pages: int
    requests: int
    retries: int
    quarantined: int
    late_arrivals: int
    staged_rows: PerTable[int]
    """Rows that the export staged."""
    table_rows: PerTable[int]
    """Rows of the table files that the compaction wrote."""
    duplicates_resolved: int
    """Versions that a later version of the same conversation replaced."""
    compacted_partitions: Tuple[str, ...]
    tables: Optional[PerTable[TableTotals]]
    """What each table holds at the end of the run; None before the first compaction."""
    raw: Json = _raw()
    """Everything that the binary printed."""

    @property
    def duration(self) -> timedelta:
        """How long the run took."""
        if self.started_at is None or self.finished_at is None:
            return timedelta(0)
        return self.finished_at - self.started_at

    @classmethod
    def of(cls, raw: Json) -> Report:
        """Reads a report from JSON, also one of the lake's `_state/runs`."""
        tables = raw.get("tables")
        return cls(
            run_id=raw.get("run_id", ""),
            command=raw.get("command", ""),
            version=raw.get("version", ""),
            outcome=raw.get("outcome", ""),
            error=tuple(raw.get("error", ())),
            started_at=_time(raw.get("started_at")),
            finished_at=_time(raw.get("finished_at")),
            watermark=_time(raw.get("watermark")),
            pages=raw.get("pages", 0),
            requests=raw.get("requests", 0),
            retries=raw.get("retries", 0),
            quarantined=raw.get("quarantined", 0),
            late_arrivals=raw.get("late_arrivals", 0),
            # Reports keep the names of the first release: staged files were landed, and versions were copies.
            staged_rows=PerTable.of(raw.get("landed_rows"), _count),
            table_rows=PerTable.of(raw.get("table_rows"), _count),
            duplicates_resolved=raw.get("duplicates_resolved", 0),
            compacted_partitions=tuple(raw.get("compacted_dates", ())),
            tables=None if tables is None else PerTable.of(tables, TableTotals.of),
            raw=raw,
        )


@dataclass(frozen=True)
class Unfinished:
    """A walk that was interrupted; the same command resumes it."""

    command: str
    started_at: Optional[datetime]
    pages: int
    conversations: int
    raw: Json = _raw()

    @classmethod
    def of(cls, raw: Json) -> Unfinished:
        """Reads a walk from JSON."""
        return cls(
            command=raw.get("command", ""),
            started_at=_time(raw.get("started_at")),
            pages=raw.get("pages", 0),
            conversations=raw.get("conversations", 0),
            raw=raw,
        )


@dataclass(frozen=True)
class Status:
    """The status of a lake."""

    lake: str
    base_url: str
    format: str
    """`parquet` or `delta`."""
    partition_by: str
    """`day` or `month`."""
    watermark: Optional[datetime]
    """The newest change that is known to be in the lake; None before the first complete export."""
    lag: Optional[timedelta]
    """How long ago that was."""
    exported_at: Optional[datetime]
    """When the last complete export began: every change before is in the lake."""
    unfinished: Tuple[Unfinished, ...]
    staged_files: int
    staged_rows: PerTable[int]
    """Rows that wait for a compaction."""
    tables: PerTable[TableTotals]
    raw: Json = _raw()
    """Everything that the binary printed."""

    @classmethod
    def of(cls, raw: Json) -> Status:
        """Reads a status from JSON."""
        lag, staging = raw.get("lag_secs"), raw.get("landing") or {}
        return cls(
            lake=raw.get("lake", ""),
            base_url=raw.get("base_url", ""),
            format=raw.get("format", ""),
            partition_by=raw.get("partition_by", ""),
            watermark=_time(raw.get("watermark")),
            lag=None if lag is None else timedelta(seconds=lag),
            exported_at=_time(raw.get("exported_at")),
            unfinished=tuple(Unfinished.of(walk) for walk in raw.get("unfinished", ())),
            staged_files=staging.get("objects", 0),
            staged_rows=PerTable.of(staging.get("rows"), _count),
            tables=PerTable.of(raw.get("tables"), TableTotals.of),
            raw=raw,
        )


@dataclass(frozen=True)
class Problem:
    """Evidence that an invariant does not hold."""

    check: str
    key: Optional[str]
    """The object that it concerns."""
    detail: str


@dataclass(frozen=True)
class Verification:
    """What `verify` has read and found."""

    lake: str
    partitions: int
    files: int
    bytes: int
    rows: PerTable[int]
    problem_count: int
    problems: Tuple[Problem, ...]
    """The first problems of each check."""
    raw: Json = _raw()
    """Everything that the binary printed."""

    @classmethod
    def of(cls, raw: Json) -> Verification:
        """Reads a verification from JSON."""
        checks = raw.get("checks", ())
        return cls(
            lake=raw.get("lake", ""),
            partitions=raw.get("dates", 0),
            files=raw.get("files", 0),
            bytes=raw.get("bytes", 0),
            rows=PerTable.of(raw.get("rows"), _count),
            problem_count=sum(check.get("findings", 0) for check in checks),
            problems=tuple(
                Problem(found.get("check", ""), found.get("key"), found.get("detail", ""))
                for check in checks
                for found in check.get("evidence", ())
            ),
            raw=raw,
        )
