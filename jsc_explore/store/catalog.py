"""The catalogue: a SQLite file that lists the parts of a store and says which part holds which run."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from jsc_explore.config import FIELDS
from jsc_explore.errors import StoreError, StoreGoneError
from jsc_explore.files import error_reason, file_lock, sync_directory
from jsc_explore.store.database import open_database, remedy
from jsc_explore.store.directory import StoreDirectory, open_directory, part_name
from jsc_explore.store.parquet_writer import PartFile, write_part
from jsc_explore.store.schema import schema_problem

CATALOG_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS parts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  rows INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, part INTEGER NOT NULL, config TEXT NOT NULL, data_digest TEXT, recipe_version INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_part ON runs (part);
CREATE TABLE IF NOT EXISTS retired (name TEXT PRIMARY KEY, retired_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS quarantined (
  name TEXT PRIMARY KEY, reason TEXT NOT NULL, at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
CREATE TABLE IF NOT EXISTS conflicts (
  run_id TEXT NOT NULL, digest TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, source TEXT NOT NULL,
  differs TEXT NOT NULL, found_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (run_id, digest)
) WITHOUT ROWID;
"""
_IDENTITY = ("run_id", *FIELDS, "data_digest", "recipe_version")
# How long a writer waits for a process that recovers files.
_LOCK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Part:
    """One immutable Parquet file of finished runs; ``seq`` increases with every part added."""

    seq: int
    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One run in the catalogue: its part, and enough to train it again if that part is lost."""

    run_id: str
    part: int
    config: dict[str, Any]
    data_digest: str
    recipe_version: int


class Catalog:
    """The list of parts of one store directory, and of the runs in them.

    Contract, tested by ``tests/integration/test_store_contract.py``:

    - A finished run is durable before it is visible: its part is written to a temporary name, synced, renamed to a
      new name, the directory synced, and only then registered here, in one transaction that is synced too.
    - Parts are immutable. Their names are never reused.
    - Readers never see partial state: every part in the list is complete, and every run is in exactly one part.
    - A run is identified by its id: it is registered once, however many processes write it at the same time.
    - If a method raises StoreError, the store is unchanged.
    - Nothing depends on clocks: ``seq`` alone orders parts.

    Any number of processes may write. A directory that is not writable opens for reading: ``read_only`` is the reason,
    and every method that writes raises StoreError with it. Each method may be called from any thread.
    """

    def __init__(self, directory: Path | StoreDirectory, *, read_only: bool = False) -> None:
        self.home = open_directory(directory, create=not read_only)
        self.directory = self.home.path
        self.parts_directory = self.directory / "parts"
        self.conflicts_directory = self.directory / "conflicts"
        self.quarantine_directory = self.directory / "quarantine"
        self.path = self.directory / "catalog.sqlite"
        self.writers_lock = self.directory / "writers.lock"
        self.read_only: str | None = "opened for reading" if read_only else None
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        if not read_only:
            self._open()

    def close(self) -> None:
        """Close the database connection."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # ---- reading

    def parts(self) -> list[Part]:
        """Return the current parts, oldest first."""
        rows = self.read("SELECT seq, name, rows, sha256 FROM parts ORDER BY seq")
        with self._checking():
            return [Part(seq, part_name(name, self.directory), int(count), sha256) for seq, name, count, sha256 in rows]

    def fingerprint(self) -> tuple[int, int]:
        """Return the number of parts and the largest ``seq``: a pair that changes whenever the list of parts does."""
        count, newest = self.read("SELECT count(*), coalesce(max(seq), 0) FROM parts")[0]
        return int(count), int(newest)

    def entries(self, run_ids: Collection[str] | None = None, parts: Collection[int] | None = None) -> list[Entry]:
        """Return the entries of these runs, or of all runs in these parts, or of all runs."""
        where, values = "", []
        for column, wanted in (("run_id", run_ids), ("part", parts)):
            if wanted is not None:
                where, values = f"WHERE {column} IN (SELECT value FROM json_each(?))", [json.dumps(list(wanted))]
        rows = self.read(
            f"SELECT run_id, part, config, data_digest, recipe_version FROM runs {where} ORDER BY run_id", values
        )
        with self._checking():
            return [Entry(row[0], row[1], json.loads(row[2]), row[3], row[4]) for row in rows]

    def retired(self) -> list[tuple[str, float]]:
        """Return name and time of the replaced files that are kept for readers that still use them."""
        rows = self.read("SELECT name, retired_at FROM retired ORDER BY name")
        with self._checking():
            return [(part_name(name, self.directory), float(at)) for name, at in rows]

    def path_of(self, part: Part) -> Path:
        """Return the path of a part."""
        return self.parts_directory / part.name

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a SELECT over the catalogue, for this package only. Raises StoreError if that fails."""
        self.home.check()
        try:
            with self._lock:
                if self._db is not None:
                    return self._db.execute(sql, values).fetchall()
            # Opened for each query: changes by other users are seen, and no lock is kept.
            return self._query_read_only(sql, values)
        except sqlite3.Error as error:
            raise StoreError(
                f"store {self.directory}: its catalogue cannot be read ({error_reason(error)}); "
                + remedy(error, "try again")
            ) from error

    @contextmanager
    def _checking(self) -> Iterator[None]:
        """Turn the errors of converting what the catalogue holds, which another program may have written."""
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(
                f"store {self.directory}: its catalogue holds an invalid value ({error_reason(error)[:80]}); "
                "run `jsc-explore verify --repair`"
            ) from error

    def _query_read_only(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            with closing(sqlite3.connect(":memory:")) as empty:
                empty.executescript(_SCHEMA)
                return empty.execute(sql, values).fetchall()
        # Reading a database with a write-ahead log needs a shared-memory file, which cannot be created here. Without a
        # log nobody is writing, and the database can be read as an immutable file.
        log = self.path.with_name(f"{self.path.name}-wal")
        mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=30)) as db:
            self._check_version(db)
            return db.execute(sql, values).fetchall()

    # ---- writing

    def add(self, table: pa.Table, unreadable: Collection[str] = ()) -> Part | None:
        """Write runs as a new part, durably; return it, or None if all of them are stored already.

        Stored runs are left out, unless the file of their part is missing or among the ``unreadable`` names. Raises
        StoreError, with nothing changed, if the part cannot be written or the table lacks columns.
        """
        if problem := schema_problem(table.schema):
            raise StoreError(f"store {self.directory}: the table to add {problem}; nothing was written")
        with self.writing("a finished run could not be written"):
            return self.add_locked(table, unreadable)

    def add_locked(self, table: pa.Table, unreadable: Collection[str] = ()) -> Part | None:
        """Do what ``add`` does; the caller holds the writers' lock. Raises OSError or sqlite3.Error."""
        while table.num_rows:
            file = write_part(self.parts_directory, table)
            part, taken = self._register_file(file, table, unreadable)
            if part is not None:
                return part
            table = table.filter(pa.array([run_id not in taken for run_id in table["run_id"].to_pylist()]))
        return None

    def register_orphan(self, file: PartFile, table: pa.Table) -> Part | None:
        """Register a complete file of a killed writer; if one of its runs is stored, delete it and return None."""
        return self._register_file(file, table, ())[0]

    def _register_file(
        self, file: PartFile, table: pa.Table, unreadable: Collection[str]
    ) -> tuple[Part | None, set[str]]:
        try:
            with self.transaction() as db:
                taken = self._stored_ids(db, table["run_id"].to_pylist(), unreadable)
                if not taken:
                    return self.register(db, file, run_rows(table)), set()
        except BaseException:
            # A COMMIT that raised may have succeeded all the same: delete the file only if it did not.
            if not self.read("SELECT 1 FROM parts WHERE name = ?", [file.path.name]):
                file.path.unlink(missing_ok=True)
            raise
        file.path.unlink(missing_ok=True)
        return None, taken

    def _stored_ids(self, db: sqlite3.Connection, run_ids: Sequence[str], unreadable: Collection[str]) -> set[str]:
        found = db.execute(
            "SELECT run_id, name FROM runs JOIN parts ON parts.seq = runs.part "
            "WHERE run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(run_ids)],
        )
        return {
            run_id
            for run_id, name in found
            if name not in unreadable and (self.parts_directory / part_name(name, self.directory)).exists()
        }

    def register(self, db: sqlite3.Connection, file: PartFile, rows: Sequence[tuple[Any, ...]]) -> Part:
        """Insert a file and its runs (``run_rows``) in a transaction; runs that are in other parts move to this one."""
        cursor = db.execute(
            "INSERT INTO parts (name, rows, sha256) VALUES (?, ?, ?)", (file.path.name, file.rows, file.sha256)
        )
        part = Part(int(cursor.lastrowid or 0), file.path.name, file.rows, file.sha256)
        db.executemany(
            "INSERT OR REPLACE INTO runs (run_id, config, data_digest, recipe_version, part) "
            f"VALUES (?, ?, ?, ?, {part.seq})",
            rows,
        )
        return part

    @contextmanager
    def writing(self, failure: str) -> Iterator[None]:
        """Hold the shared writers' lock; turn an OSError or sqlite3.Error of the block into a StoreError."""
        self.require_writable(failure)
        try:
            with file_lock(self.writers_lock, exclusive=False, timeout=_LOCK_TIMEOUT_S) as acquired:
                if not acquired:
                    raise StoreError(
                        f"store {self.directory}: {failure} (another process is recovering files); try again"
                    )
                yield
        except (OSError, sqlite3.Error) as error:
            raise self.write_error(failure, error) from error

    def write_error(self, failure: str, error: BaseException) -> StoreError:
        """Return the StoreError for a failed write to the disk or the database; StoreGoneError if the store is gone."""
        try:
            self.home.check()
        except StoreGoneError as gone:
            return gone
        return StoreError(f"store {self.directory}: {failure} ({error_reason(error)}); free disk space")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction: committed at its end, rolled back if it raises."""
        with self._lock:
            self.require_writable("its catalogue cannot be changed")
            db = self._db
            assert db is not None
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    # ---- opening

    def require_writable(self, failure: str) -> None:
        """Raise StoreError, with ``failure`` and the reason, if the store is open for reading only or gone."""
        self.home.check()
        with self._lock:
            if self._db is None and self.read_only != "opened for reading":
                self._open()  # A full disk or a permission may have been fixed meanwhile.
            if self.read_only is not None:
                raise StoreError(
                    f"store {self.directory}: {failure}, it is read-only here ({self.read_only}); "
                    "ask its owner or choose another with --store"
                )

    def _open(self) -> None:
        try:
            self._db = self._open_for_writing()
            self.read_only = None
        except (OSError, sqlite3.Error) as error:
            self._db, self.read_only = None, error_reason(error)
            try:
                self.parts()
            except (OSError, sqlite3.Error, StoreError):
                raise StoreError(
                    f"store {self.directory}: cannot be opened ({error_reason(error)}); "
                    + remedy(error, "choose another with --store")
                ) from error

    def _open_for_writing(self) -> sqlite3.Connection:
        if not self.home.id:
            self.home = open_directory(self.directory)
        if not self.parts_directory.is_dir():
            self.home.make_folder("parts")
            sync_directory(self.directory)
        # Opening the lock file detects a directory whose permissions changed after its files were created.
        with file_lock(self.writers_lock, exclusive=False):
            pass
        # FULL: a part must be in the catalogue, even after a power cut, before its runs are visible.
        db = open_database(self.path, "FULL")
        try:
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                # Several processes may create the tables at once: each statement may be repeated.
                db.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {CATALOG_VERSION}")
                db.execute("COMMIT")
            self._check_version(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check_version(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != CATALOG_VERSION:
            raise StoreError(
                f"store {self.directory}: its catalogue has version {version}, this program reads only version "
                f"{CATALOG_VERSION}; use the jsc-explore that wrote it, or another directory with --store"
            )


def run_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return the catalogue's row of each run: id, config as JSON, data digest, recipe version."""
    return [
        (row["run_id"], json.dumps({name: row[name] for name in FIELDS}), row["data_digest"], row["recipe_version"])
        for row in table.select(_IDENTITY).to_pylist()
    ]
