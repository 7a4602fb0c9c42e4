"""The commands of the binary as functions."""

from __future__ import annotations

import json
import os
from datetime import date, datetime
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Union

from ._errors import CLASSES, DecagonLakeError, UsageError, ended_by
from ._options import Lake, Option, environment, flags
from ._process import Ended, run
from ._results import Report, Status, Verification

Env = Optional[Mapping[str, str]]
Time = Union[str, date, datetime]


def sync(
    lake: Lake = None,
    *,
    api_key: Optional[str] = None,
    policy_key: Optional[str] = None,
    env: Env = None,
    **options: Option,
) -> Report:
    """Exports what changed, then compacts; at first the whole history. Without `lake`, DECAGON_LAKE names the lake."""
    return _run("sync", lake, options, environment(env, api_key=api_key, policy_key=policy_key))


def export(
    lake: Lake = None,
    *,
    api_key: Optional[str] = None,
    policy_key: Optional[str] = None,
    env: Env = None,
    **options: Option,
) -> Report:
    """Fetches the changes since the last export and stages them."""
    return _run("export", lake, options, environment(env, api_key=api_key, policy_key=policy_key))


def backfill(
    lake: Lake = None,
    *,
    from_: Time,
    to: Time,
    api_key: Optional[str] = None,
    policy_key: Optional[str] = None,
    env: Env = None,
    **options: Option,
) -> Report:
    """Fetches a range of time and stages it; `compact` merges it into the tables."""
    ranged = {"from_": from_, "to": to, **options}
    return _run("backfill", lake, ranged, environment(env, api_key=api_key, policy_key=policy_key))


def compact(lake: Lake = None, *, policy_key: Optional[str] = None, env: Env = None, **options: Option) -> Report:
    """Merges the staged files into the tables."""
    return _run("compact", lake, options, environment(env, policy_key=policy_key))


def verify(lake: Lake = None, *, env: Env = None, **options: Option) -> Verification:
    """Reads the whole lake and checks its guarantees. Problems raise `IntegrityError`, which has the `verification`."""
    return Verification.of(_json("verify", lake, options, environment(env)))


def status(lake: Lake = None, *, env: Env = None, **options: Option) -> Status:
    """Reads what the lake holds, and the progress of its exports. May run beside a writing run."""
    if options.pop("watch", None):
        raise UsageError(2, "status() returns one status, so it cannot watch", "call it again to see what changed")
    # Watching prints a line at each change.
    return Status.of(_json("status", lake, options, {**environment(env), "DECAGON_WATCH": "false"}))


def views(lake: Lake = None, *, engine: str = "duckdb", env: Env = None, **options: Option) -> str:
    """The SQL that makes the tables visible in a query engine."""
    return _ended("views", {"lake": lake, "engine": engine, **options}, environment(env)).output


def report(
    lake: Lake = None, out: Union[str, os.PathLike[str]] = "report.html", *, env: Env = None, **options: Option
) -> Union[Path, str]:
    """Writes a page about the lake, one HTML file that needs no network, to a file or to the URL of a store. Returns the
    path; of a URL, the URL.
    """
    target = os.fspath(out)
    if target == "-":
        raise UsageError(2, 'report() returns no page, so out cannot be "-"', "give a file such as report.html")
    _ended("report", {"lake": lake, "out": target, **options}, environment(env))
    # A path would make one slash of the two.
    return target if "://" in target else Path(target)


def _run(command: str, lake: Lake, options: Mapping[str, Option], env: Mapping[str, str]) -> Report:
    return Report.of(_json(command, lake, options, env))


def _json(command: str, lake: Lake, options: Mapping[str, Option], env: Mapping[str, str]) -> Dict[str, Any]:
    ended = _ended(command, {"lake": lake, "json": True, **options}, env)
    result: Dict[str, Any] = json.loads(ended.output)
    return result


def _ended(command: str, options: Mapping[str, Option], env: Mapping[str, str]) -> Ended:
    """Runs a command, and raises the exception of its exit code."""
    ended = run([command, *flags(options)], env)
    if ended.code != 0:
        raise _error(command, ended)
    return ended


def _error(command: str, ended: Ended) -> DecagonLakeError:
    log = ended.log
    hint = None
    if log.error is not None:
        message, hint = log.error.get("message", ""), log.error.get("hint")
    elif log.first_words is not None:
        message = log.first_words
        message = message[len("error: ") :] if message.startswith("error: ") else message
    else:
        message = ended_by(ended.code)
    try:
        result = json.loads(ended.output)
    except ValueError:
        result = None
    has_result = isinstance(result, dict)
    return CLASSES.get(ended.code, DecagonLakeError)(
        ended.code,
        message,
        hint,
        tuple(log.tail),
        Report.of(result) if has_result and command != "verify" else None,
        Verification.of(result) if has_result and command == "verify" else None,
    )
