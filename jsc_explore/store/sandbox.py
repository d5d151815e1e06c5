"""A sandboxed DuckDB: it reads only the given files, has no network access, and stops queries that take too long.

What users type is parsed and rewritten before it reaches the database (``query/expression.py``). This is the second
line of defence.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from jsc_explore.errors import StoreError

# Memory of all queries of a store, time of one. The slowest query of a page takes 0.1 s over 100,000 runs.
MEMORY, TIMEOUT_S = "2GB", 30.0


def connect(directories: Iterable[Path] = (), files: Iterable[Path] = ()) -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that may read only these files and the files below these directories.

    Neither the settings nor the lists can be changed afterwards; extensions cannot be loaded.
    """
    db = duckdb.connect(":memory:")
    db.execute(f"SET allowed_directories = {_sql_list(directories)}")
    db.execute(f"SET allowed_paths = {_sql_list(files)}")
    db.execute(f"SET memory_limit = '{MEMORY}'")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    return db


@contextmanager
def limited(cursor: duckdb.DuckDBPyConnection, seconds: float = TIMEOUT_S) -> Iterator[None]:
    """Interrupt the queries of this cursor after so many seconds. Raises StoreError then, and if memory runs out."""
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise StoreError(f"query: took longer than {seconds:g} s and was stopped; select fewer runs") from error
    except duckdb.OutOfMemoryException as error:
        raise StoreError(f"query: needs more than {MEMORY} of memory; select fewer runs") from error
    finally:
        timer.cancel()


def _sql_list(paths: Iterable[Path]) -> str:
    # As given, absolute and with links resolved: a query may name a file in any of these ways.
    names = dict.fromkeys(str(form) for path in paths for form in (path, path.absolute(), path.resolve()))
    return "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]"
