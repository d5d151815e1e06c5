"""Open the SQLite files that several processes write: the catalogue of a store and its job queue."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal

# How long a statement waits for the transaction of another process.
TIMEOUT_S = 30.0
_RETRY_S = 0.005


def open_database(path: Path, synchronous: Literal["NORMAL", "FULL"]) -> sqlite3.Connection:
    """Open or create a database with a write-ahead log; the caller begins transactions itself.

    Raises sqlite3.Error if the file is damaged, no database, not writable, or locked for ``TIMEOUT_S``.
    """
    db = sqlite3.connect(path, timeout=TIMEOUT_S, check_same_thread=False, isolation_level=None)
    try:
        _enable_wal(db)
        db.execute(f"PRAGMA synchronous={synchronous}")
    except BaseException:
        db.close()
        raise
    return db


def is_damaged(error: BaseException) -> bool:
    """Return whether an error of SQLite means that the file is no database or is damaged, not busy or unwritable."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, sqlite3.DatabaseError) and code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def remedy(error: BaseException, otherwise: str) -> str:
    """Return what to do about an error of SQLite: repair a damaged file, else what the caller says."""
    return "run `jsc-explore verify --repair`" if is_damaged(error) else otherwise


def _enable_wal(db: sqlite3.Connection) -> None:
    # If several processes open a new file at the same time, SQLite refuses all but one immediately, whatever the
    # timeout: each holds a read lock, and waiting for each other would be a deadlock. So the retry is done here.
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_S)
