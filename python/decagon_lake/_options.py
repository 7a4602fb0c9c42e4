"""Turns keyword options into flags."""

from __future__ import annotations

import json
import os
from datetime import date, datetime, timedelta, timezone
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

Option = Union[
    None, bool, int, float, str, "os.PathLike[str]", date, datetime, timedelta, Sequence[str], Mapping[str, Any]
]
"""The value of a flag: True is the flag alone, None and False leave it out. A datetime without a time zone is UTC."""

Lake = Union[None, str, "os.PathLike[str]"]


def flags(options: Mapping[str, Option]) -> List[str]:
    """The flags of these options: snake_case is --kebab-case, and `from_` is --from."""
    given = []
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is True:
            given.append(flag)
        elif value is not None and value is not False:
            # One argument each, because a value may begin with a dash.
            given.append(f"{flag}={_text(value)}")
    return given


def _text(value: Option) -> str:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).astimezone(timezone.utc).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value // timedelta(milliseconds=1)}ms"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(value)
    return str(value)


def environment(
    env: Optional[Mapping[str, str]] = None, *, api_key: Optional[str] = None, policy_key: Optional[str] = None
) -> Dict[str, str]:
    """This process's environment, then `env`, then the keys: flags show in the list of processes, so no key is one."""
    merged = {**os.environ, **(env or {})}
    for name, key in (("DECAGON_API_KEY", api_key), ("DECAGON_POLICY_KEY", policy_key)):
        if key is not None:
            merged[name] = key
            # The binary would prefer the file.
            merged.pop(f"{name}_FILE", None)
    return merged
