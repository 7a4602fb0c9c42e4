"""One exception for each exit code of the binary."""

from __future__ import annotations

import signal
from typing import Dict, Optional, Tuple, Type

from ._results import Report, Verification


class DecagonLakeError(Exception):
    """The binary has failed. `DecagonLakeError` itself stands for exit codes without a class, and for a signal."""

    def __init__(
        self,
        code: int,
        message: str,
        hint: Optional[str] = None,
        log: Tuple[str, ...] = (),
        report: Optional[Report] = None,
        verification: Optional[Verification] = None,
    ) -> None:
        # With all of them as `args`, the exception survives a pickle, as schedulers make one.
        super().__init__(code, message, hint, log, report, verification)
        self.code = code
        """The exit code; the negative number of a signal, if one ended the binary."""
        self.message = message
        """What failed, on which object, and why."""
        self.hint = hint
        """The next command or setting to try."""
        self.log = log
        """The last lines on stderr, as the binary wrote them."""
        self.report = report
        """The report of the run, if it began."""
        self.verification = verification
        """What `verify` has found."""

    @property
    def retry_helps(self) -> bool:
        """Whether the same command may succeed if it is run again soon: 4, 5, 130, and after a signal."""
        return self.code in (4, 5, 130) or self.code < 0

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(DecagonLakeError):
    """2: wrong options, environment or configuration."""


class ApiError(DecagonLakeError):
    """3: the API refused a request, or broke its contract."""


class UnreachableError(DecagonLakeError):
    """4: the API could not be reached."""


class StoreError(DecagonLakeError):
    """5: the store failed."""


class IntegrityError(DecagonLakeError):
    """6: data was quarantined, or an invariant does not hold. After a quarantine everything else is in the lake."""


class HeldError(DecagonLakeError):
    """7: another run holds the lake."""


class InternalError(DecagonLakeError):
    """70: a bug in decagon-lake."""


class InterruptedRunError(DecagonLakeError):
    """130: somebody else stopped the run. The next one continues it."""


CLASSES: Dict[int, Type[DecagonLakeError]] = {
    2: UsageError,
    3: ApiError,
    4: UnreachableError,
    5: StoreError,
    6: IntegrityError,
    7: HeldError,
    70: InternalError,
    130: InterruptedRunError,
}


def ended_by(code: int) -> str:
    """Says how the binary has ended, if it said nothing itself."""
    if code >= 0:
        return f"decagon-lake ended with exit code {code}"
    try:
        return f"decagon-lake was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"decagon-lake was ended by signal {-code}"
