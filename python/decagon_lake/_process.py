"""Runs the binary: its log lines go to `logging` while it runs, and its output is returned.

Guarantees: whatever ends the wait (Ctrl-C, a time-out, an exception of a log handler) ends the binary too, by SIGTERM.
Its rows are safe then, and it has ended when the exception goes on.
"""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import IO, Any, Deque, Dict, List, Mapping, Optional

from ._binary import find_binary

logger = logging.getLogger("decagon_lake")

# Asked to stop, the binary ends within 9 seconds, unless its disk hangs.
_STOPS_WITHIN_SECS = 15
_TAIL_LINES = 50
_LEVELS = {"ERROR": logging.ERROR, "WARN": logging.WARNING, "INFO": logging.INFO, "DEBUG": logging.DEBUG}


@dataclass
class Log:
    """The log lines of one run."""

    tail: Deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL_LINES))
    error: Optional[Dict[str, Any]] = None
    """The last error."""
    first_words: Optional[str] = None
    """The first line that is no JSON: a usage error, which comes before logging begins, or a panic."""

    def take(self, line: str) -> None:
        """Logs a line, and keeps what an exception may need."""
        line = line.rstrip("\r\n")
        if not line:
            return
        self.tail.append(line)
        entry = _entry(line)
        if entry is None:
            self.first_words = self.first_words or line
            logger.error("%s", line)
            return
        if entry.get("level") == "ERROR":
            self.error = entry
        message, hint = entry.get("message", line), entry.get("hint")
        text = f"{message} (hint: {hint})" if hint else message
        logger.log(_LEVELS.get(entry.get("level", ""), logging.DEBUG), "%s", text, extra={"decagon_lake": entry})

    def follow(self, lines: IO[str]) -> None:
        """Takes all lines until the binary closes its stderr."""
        for line in lines:
            self.take(line)


def _entry(line: str) -> Optional[Dict[str, Any]]:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


@dataclass(frozen=True)
class Ended:
    """How a run has ended."""

    code: int
    output: str
    log: Log


def run(arguments: List[str], env: Mapping[str, str]) -> Ended:
    """Runs the binary to its end."""
    command = [find_binary(), *arguments, "--log-format=json"]
    if logger.isEnabledFor(logging.DEBUG) and "--verbose" not in arguments:
        command.append("--verbose")
    log = Log()
    # A file takes output of any size while this thread follows the log.
    with tempfile.TemporaryFile() as output:
        # In a session of its own, a Ctrl-C in the terminal reaches this process alone. The binary would stop at once if
        # it got two signals.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            env=dict(env),
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert process.stderr is not None
        with process.stderr:
            try:
                log.follow(process.stderr)
                code = process.wait()
            except BaseException:
                _stop(process, process.stderr, log)
                raise
        output.seek(0)
        return Ended(code, output.read().decode("utf-8", "replace"), log)


def _stop(process: subprocess.Popen[str], stderr: IO[str], log: Log) -> None:
    """Asks the binary to stop and waits for its end."""
    process.terminate()
    killer = threading.Timer(_STOPS_WITHIN_SECS, process.kill)
    killer.daemon = True
    killer.start()
    try:
        log.follow(stderr)
    except BaseException:
        # A second Ctrl-C. A kill is as safe, but the next run fetches the last pages again.
        process.kill()
        raise
    finally:
        process.wait()
        killer.cancel()
