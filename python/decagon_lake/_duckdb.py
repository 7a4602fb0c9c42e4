"""Opens a lake in DuckDB. DuckDB is imported when it is needed, because a sync does without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ._commands import Env, views
from ._options import Lake, Option

if TYPE_CHECKING:
    import duckdb


def connect(
    lake: Lake = None,
    *,
    connection: Optional[duckdb.DuckDBPyConnection] = None,
    env: Env = None,
    **options: Option,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the views of `decagon-lake views --engine duckdb`: conversations, messages, tags,
    audit_logs, and each with `_latest`, which includes staged files.

    Without `connection`, the database is in memory and shows times in UTC. A lake in a cloud needs a connection that can
    read there: one with an extension and a secret, as `decagon_lake.views(lake)` says in its first lines.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ImportError("connect() needs DuckDB: pip install 'decagon-lake[duckdb]'") from error
    statements = views(lake, engine="duckdb", env=env, **options)
    if connection is None:
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
    connection.execute(statements)
    return connection
