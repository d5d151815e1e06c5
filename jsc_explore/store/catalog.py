"""The catalogue: which parts make up the store, and which run lies in which. SQLite, many readers while one writes."""

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
from jsc_explore.errors import StoreError
from jsc_explore.files import error_reason, file_lock, sync_directory
from jsc_explore.store.database import open_database
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
  run_id TEXT NOT NULL, figures TEXT NOT NULL, name TEXT NOT NULL, sha256 TEXT NOT NULL, source TEXT NOT NULL,
  differs TEXT NOT NULL, found_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (run_id, figures)
) WITHOUT ROWID;
"""
_IDENTITY = ("run_id", *FIELDS, "data_digest", "recipe_version")
# How long a writer waits for one that clears up.
_CLEARING_S = 60.0


@dataclass(frozen=True)
class Part:
    """One immutable Parquet file of finished runs; ``seq`` grows with every part ever added."""

    seq: int
    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What the catalogue knows of a run, beside its part: enough to ask for it again when the part is lost."""

    run_id: str
    part: int
    config: dict[str, Any]
    data_digest: str
    recipe_version: int


class Catalog:
    """The parts of one store directory, and the runs in them.

    Contract, held by ``tests/integration/test_store_contract.py``:

    - A finished run is durable before it is announced: a part is written to a temporary name, synced, renamed to a
      name never used before, its directory synced, and only then entered here, in one transaction that is synced too.
    - Parts are immutable. Names are never used again.
    - Readers never see a half: who takes the list from here sees whole parts, and every run in one part only.
    - Ids decide identity: a run is entered once, whoever writes it, in however many processes at once.
    - If a method raises StoreError, the store is as it was.
    - Nothing depends on the order of clocks: ``seq`` alone orders parts.

    Any number of processes may write. A directory that cannot be written opens for reading: ``read_only`` says why,
    and whatever would write raises StoreError with that reason. Each method may be called from any thread.
    """

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory = Path(directory)
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
        elif not self.directory.is_dir():
            raise StoreError(f"store {directory}: there is no such directory; check the path")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # ---- reading

    def parts(self) -> list[Part]:
        """Return the parts that make up the store at this moment, in the order in which they were entered."""
        return [Part(*row) for row in self.read("SELECT seq, name, rows, sha256 FROM parts ORDER BY seq")]

    def fingerprint(self) -> tuple[int, int]:
        """Return what changes with every change of the list of parts: their number and the newest one's ``seq``."""
        count, newest = self.read("SELECT count(*), coalesce(max(seq), 0) FROM parts")[0]
        return int(count), int(newest)

    def entries(self, run_ids: Collection[str] | None = None, parts: Collection[int] | None = None) -> list[Entry]:
        """Return what is known of these runs, or of the runs of these parts, or of all."""
        where, values = "", []
        for column, wanted in (("run_id", run_ids), ("part", parts)):
            if wanted is not None:
                where, values = f"WHERE {column} IN (SELECT value FROM json_each(?))", [json.dumps(list(wanted))]
        rows = self.read(
            f"SELECT run_id, part, config, data_digest, recipe_version FROM runs {where} ORDER BY run_id", values
        )
        return [Entry(row[0], row[1], json.loads(row[2]), row[3], row[4]) for row in rows]

    def retired(self) -> list[tuple[str, float]]:
        """Return the files of older generations that are kept for readers that still hold their names, with times."""
        return [(str(name), float(at)) for name, at in self.read("SELECT name, retired_at FROM retired ORDER BY name")]

    def path_of(self, part: Part) -> Path:
        """Return where a part lies."""
        return self.parts_directory / part.name

    def read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a SELECT of this room over the catalogue. StoreError if that fails."""
        try:
            with self._lock:
                if self._db is not None:
                    return self._db.execute(text, values).fetchall()
            # Opened anew each time: what another user writes meanwhile is seen, and nothing is kept locked.
            return self._read_only(text, values)
        except sqlite3.Error as error:
            raise StoreError(f"store {self.directory}: its catalogue cannot be read ({error_reason(error)})") from error

    def _read_only(self, text: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            with closing(sqlite3.connect(":memory:")) as nothing:
                nothing.executescript(_SCHEMA)
                return nothing.execute(text, values).fetchall()
        # A write-ahead log needs a file beside it even to be read, which may not be made here. Where there is no log,
        # nobody is writing, and the database is read as it lies.
        log = self.path.with_name(f"{self.path.name}-wal")
        mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=30)) as db:
            self._check_version(db)
            return db.execute(text, values).fetchall()

    # ---- writing

    def add(self, table: pa.Table, broken: Collection[str] = ()) -> Part | None:
        """Write runs as a new part, durably; return it, or None if every one of them was entered already.

        Runs that another writer has entered are left out, unless their part is gone or named among the ``broken``.
        StoreError, with nothing changed, if it cannot be written, or the table has not the columns of a part.
        """
        if problem := schema_problem(table.schema):
            raise StoreError(f"store {self.directory}: what was to be added {problem}; nothing was written")
        with self.writing("a finished run could not be written"):
            return self.add_locked(table, broken)

    def add_locked(self, table: pa.Table, broken: Collection[str] = ()) -> Part | None:
        """Add, as ``add`` does, for one who holds the writers' lock already. OSError or sqlite3.Error if that fails."""
        while table.num_rows:
            file = write_part(self.parts_directory, table)
            part, taken = self._register_file(file, table, broken)
            if part is not None:
                return part
            table = table.filter(pa.array([run_id not in taken for run_id in table["run_id"].to_pylist()]))
        return None

    def register_orphan(self, file: PartFile, table: pa.Table) -> Part | None:
        """Enter a file that a writer that died left whole; None, and the file removed, if a run of it is stored."""
        return self._register_file(file, table, ())[0]

    def _register_file(self, file: PartFile, table: pa.Table, broken: Collection[str]) -> tuple[Part | None, set[str]]:
        try:
            with self.transaction() as db:
                taken = self._taken(db, table["run_id"].to_pylist(), broken)
                if not taken:
                    return self.register(db, file, run_rows(table)), set()
        except BaseException:
            # A commit that raised may have been carried out all the same: the file goes only if it was not.
            if not self.read("SELECT 1 FROM parts WHERE name = ?", [file.path.name]):
                file.path.unlink(missing_ok=True)
            raise
        file.path.unlink(missing_ok=True)
        return None, taken

    def _taken(self, db: sqlite3.Connection, run_ids: Sequence[str], broken: Collection[str]) -> set[str]:
        found = db.execute(
            "SELECT run_id, name FROM runs JOIN parts ON parts.seq = runs.part "
            "WHERE run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(run_ids)],
        )
        return {run_id for run_id, name in found if name not in broken and (self.parts_directory / name).exists()}

    def register(self, db: sqlite3.Connection, file: PartFile, rows: Sequence[tuple[Any, ...]]) -> Part:
        """Enter a file and its runs, as of ``run_rows``, within a transaction; runs of other parts move here."""
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
        """Be one of those that may be writing files here; StoreError for a disk or database that refuses."""
        self.require_writable(failure)
        try:
            with file_lock(self.writers_lock, exclusive=False, timeout=_CLEARING_S) as got:
                if not got:
                    raise StoreError(f"store {self.directory}: {failure} (another process clears up); try again")
                yield
        except (OSError, sqlite3.Error) as error:
            raise self.refused(failure, error) from error

    def refused(self, failure: str, error: BaseException) -> StoreError:
        """Return the error of a disk or a database that refused."""
        return StoreError(f"store {self.directory}: {failure} ({error_reason(error)}); make room")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write to the catalogue: all of it when the block ends, nothing if it raises."""
        with self._lock:
            self.require_writable("nothing can be entered")
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
        """Raise StoreError, saying what fails and why, where the store is open for reading only."""
        with self._lock:
            if self._db is None and self.read_only != "opened for reading":
                self._open()  # A disk that was full, or a directory that was closed, may have opened up.
            if self.read_only is not None:
                raise StoreError(
                    f"store {self.directory}: {failure}, it is read-only here ({self.read_only}); "
                    "ask its owner or choose another with --store"
                )

    def _open(self) -> None:
        try:
            self._db = self._writable()
            self.read_only = None
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(
                f"store {self.directory}: is a file, not a directory; choose another with --store"
            ) from error
        except (OSError, sqlite3.Error) as error:
            self._db, self.read_only = None, error_reason(error)
            try:
                if not self.directory.is_dir():
                    raise error
                self.parts()
            except (OSError, sqlite3.Error, StoreError):
                raise StoreError(
                    f"store {self.directory}: cannot be opened ({error_reason(error)}); choose another with --store"
                ) from error

    def _writable(self) -> sqlite3.Connection:
        if not self.parts_directory.is_dir():
            self.parts_directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self.directory)
        # Opened for writing, or nothing would tell a directory that was closed after its files were made.
        with file_lock(self.writers_lock, exclusive=False):
            pass
        # FULL: a part is announced only when its row would survive a power cut.
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
    """Return what the catalogue keeps of each run: id, config as JSON, digest of the data, recipe_version."""
    return [
        (row["run_id"], json.dumps({name: row[name] for name in FIELDS}), row["data_digest"], row["recipe_version"])
        for row in table.select(_IDENTITY).to_pylist()
    ]
