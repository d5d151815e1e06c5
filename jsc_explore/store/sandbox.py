"""DuckDB locked up: it reads the files it was given and no other, fetches nothing, and ends what takes too long.

What users type is parsed and written anew before it reaches a database (``store/where.py``). This is the second wall.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from jsc_explore.errors import StoreError

# Of a store's queries together, and of each: the page's slowest over 100,000 runs takes a tenth of a second.
MEMORY, QUERY_S = "2GB", 30.0


def connect(directories: Iterable[Path] = (), files: Iterable[Path] = ()) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that may read below these directories, and these files, and nothing else.

    Neither the settings nor the list can be changed afterwards; extensions cannot be loaded.
    """
    db = duckdb.connect(":memory:")
    db.execute(f"SET allowed_directories = {_texts(directories)}")
    db.execute(f"SET allowed_paths = {_texts(files)}")
    db.execute(f"SET memory_limit = '{MEMORY}'")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    return db


@contextmanager
def limited(cursor: duckdb.DuckDBPyConnection, seconds: float = QUERY_S) -> Iterator[None]:
    """End what this cursor does within the block after so many seconds. StoreError, also if memory does not suffice."""
    timer = threading.Timer(seconds, cursor.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise StoreError(
            f"query: took longer than {seconds:g} s and was ended; ask for less, or filter more"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise StoreError(f"query: needs more than {MEMORY} of memory; ask for less, or filter more") from error
    finally:
        timer.cancel()


def _texts(paths: Iterable[Path]) -> str:
    # As it was given and as it is: a query names a file in either way.
    names = dict.fromkeys(str(form) for path in paths for form in (path, path.absolute(), path.resolve()))
    return "[" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + "]"
