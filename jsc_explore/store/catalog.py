"""The catalogue: which parts make up the store. SQLite, so that many processes read it while one writes."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  rows INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


@dataclass(frozen=True)
class Part:
    """One immutable Parquet file of finished runs; ``seq`` grows with every part ever added."""

    seq: int
    name: str
    rows: int
    sha256: str


class Catalog:
    """The parts of one store directory.

    Contract: a part is written to a temporary name, synced, renamed to a name never used before and only then entered
    here. A reader that takes its list from here never sees half a part. If ``add`` raises, the store is as it was.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parts_directory = directory / "parts"
        try:
            self.parts_directory.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(directory / "catalog.sqlite", timeout=30, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL: a part is announced only when its row would survive a power cut.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_SCHEMA)
            self._db.commit()
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"store {directory}: is a file, not a directory; choose another with --store") from error
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"store {directory}: cannot be opened ({_reason(error)}); choose another with --store"
            ) from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def parts(self, after: int = 0) -> list[Part]:
        """Return the parts entered after a sequence number, oldest first."""
        rows = self._db.execute("SELECT seq, name, rows, sha256 FROM parts WHERE seq > ? ORDER BY seq", (after,))
        return [Part(*row) for row in rows]

    def path(self, part: Part) -> Path:
        """Return where a part lies."""
        return self.parts_directory / part.name

    def add(self, table: pa.Table) -> Part:
        """Write a table as a new part, durably; raise StoreError, with nothing changed, if that fails."""
        name = f"{uuid.uuid4().hex}.parquet"
        final, partial = self.parts_directory / name, self.parts_directory / f"{name}.tmp"
        try:
            with partial.open("wb") as file:
                pq.write_table(table, file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            digest = hashlib.sha256(partial.read_bytes()).hexdigest()
            partial.replace(final)
            _sync_directory(self.parts_directory)
            with self._db:
                cursor = self._db.execute(
                    "INSERT INTO parts (name, rows, sha256) VALUES (?, ?, ?)", (name, table.num_rows, digest)
                )
        except (OSError, sqlite3.Error) as error:
            for leftover in (partial, final):
                leftover.unlink(missing_ok=True)
            raise StoreError(
                f"store {self.directory}: a finished run could not be written ({_reason(error)}); make room"
            ) from error
        return Part(int(cursor.lastrowid or 0), name, table.num_rows, digest)

    def sweep(self) -> list[Path]:
        """Remove what a killed writer left: temporary files, parts never entered. For the one writer alone."""
        known = {part.name for part in self.parts()}
        orphans = [path for path in self.parts_directory.iterdir() if path.name not in known]
        for path in orphans:
            path.unlink(missing_ok=True)
        return orphans


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
