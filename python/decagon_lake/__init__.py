"""Exports the conversations of a Decagon account into a data lake of Parquet tables.

Each function runs the binary `decagon-lake` that comes with this package, and waits for its end. Keyword options are the
binary's flags: `page_size=100` is `--page-size 100`. `decagon-lake COMMAND --help` lists them.

    import decagon_lake

    report = decagon_lake.sync("s3://bucket/decagon", api_key=key)
    print(report.staged_rows.conversations, report.watermark)

The log lines of the binary go to the logger `decagon_lake`, as they come. A run that fails raises the exception of its
exit code.
"""

from ._binary import BinaryNotFoundError, find_binary
from ._commands import backfill, compact, export, report, status, sync, verify, views
from ._duckdb import connect
from ._errors import (
    ApiError,
    DecagonLakeError,
    HeldError,
    IntegrityError,
    InternalError,
    InterruptedRunError,
    StoreError,
    UnreachableError,
    UsageError,
)
from ._options import Option
from ._results import PerTable, Problem, Report, Status, TableTotals, Unfinished, Verification

__all__ = [
    "ApiError",
    "BinaryNotFoundError",
    "DecagonLakeError",
    "HeldError",
    "IntegrityError",
    "InternalError",
    "InterruptedRunError",
    "Option",
    "PerTable",
    "Problem",
    "Report",
    "Status",
    "StoreError",
    "TableTotals",
    "Unfinished",
    "UnreachableError",
    "UsageError",
    "Verification",
    "backfill",
    "compact",
    "connect",
    "export",
    "find_binary",
    "report",
    "status",
    "sync",
    "verify",
    "views",
]
