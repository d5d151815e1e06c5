"""Opens the SQLite files that several processes write: the catalogue of a store and the queue beside it."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal

# So long a statement waits for another process' transaction.
TIMEOUT_S = 30.0
_PAUSE_S = 0.005


def open_database(path: Path, synchronous: Literal["NORMAL", "FULL"]) -> sqlite3.Connection:
    """Open a file with a write-ahead log, made if it is missing; transactions are begun by whoever uses it.

    sqlite3.Error if it is damaged, not a database, not writable, or held by another process for ``TIMEOUT_S``.
    """
    db = sqlite3.connect(path, timeout=TIMEOUT_S, check_same_thread=False, isolation_level=None)
    try:
        _use_log(db)
        db.execute(f"PRAGMA synchronous={synchronous}")
    except BaseException:
        db.close()
        raise
    return db


def _use_log(db: sqlite3.Connection) -> None:
    # Where several open a new file at once, SQLite refuses all but one at once, however long they would wait: each has
    # read the file and two that wait for each other to stop reading would wait for ever.
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)
