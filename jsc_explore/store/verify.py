"""Verify that the files of a store are as they were written; repair: keep intact rows, list the lost runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pyarrow as pa

from jsc_explore.errors import StoreError
from jsc_explore.files import error_reason, file_lock, sha256_of, sync_directory
from jsc_explore.store.catalog import Catalog, Entry, Part, run_rows
from jsc_explore.store.checks import Faults, file_problem, first_line, ids_of, read_row_groups, row_faults
from jsc_explore.store.database import TIMEOUT_S, is_damaged
from jsc_explore.store.directory import StoreDirectory, part_name
from jsc_explore.store.parquet_writer import has_page_checksums, write_part
from jsc_explore.store.recovery import RecoveryResult, orphans, quarantine, recover
from jsc_explore.store.schema import part_schema

# The SQLite files of a store.
DATABASES = ("catalog.sqlite", "queue.sqlite", "views.sqlite")
# Faults listed per part.
_MAX_LINES = 3
_LOCK_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Fault:
    """A fault in a file of the store or in the catalogue; ``part`` is None where no part can be repaired."""

    path: Path
    what: str
    part: Part | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass
class RepairResult:
    """The result of a repair: quarantined files, number of runs kept from them, and the entries of lost runs."""

    quarantined: list[Path] = field(default_factory=list)
    runs_kept: int = 0
    lost: list[Entry] = field(default_factory=list)
    recovery: RecoveryResult = field(default_factory=RecoveryResult)


def verify(catalog: Catalog, snapshot: Path | None = None) -> list[Fault]:
    """Check each part's checksum and schema, each row's id, that each registered run is in its part, and the snapshot.

    Nothing is changed. Parts that a compaction replaces meanwhile are not reported.
    """
    faults = []
    for part in catalog.parts():
        what = _part_faults(catalog, part)
        if what and any(part.seq == other.seq for other in catalog.parts()):
            faults += [Fault(catalog.path_of(part), line, part) for line in what]
    seqs = {part.seq for part in catalog.parts()}
    dangling = [entry for entry in catalog.entries() if entry.part not in seqs]
    if dangling and seqs == {part.seq for part in catalog.parts()}:
        faults += [
            Fault(catalog.path, f"run {entry.run_id} is in the catalogue, but its part is not") for entry in dangling
        ]
    faults += [
        Fault(path, "is not in the catalogue, left by a writer that was killed") for path in _unused_files(catalog)
    ]
    faults += [Fault(path, what) for path, what in _conflict_faults(catalog)]
    if snapshot is not None and snapshot.exists():
        faults += [Fault(snapshot, what) for what in _content_faults(snapshot, None)]
    return faults


def damaged_databases(home: StoreDirectory) -> list[Fault]:
    """Return a fault for each SQLite file of the store that is no database, is damaged, or names foreign files."""
    found = ((home.path / name, _database_problem(home, name)) for name in DATABASES if (home.path / name).exists())
    return [Fault(path, problem) for path, problem in found if problem]


def _database_problem(home: StoreDirectory, name: str) -> str:
    uri = f"{(home.path / name).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S)) as db:
            problem = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
        if problem != "ok":
            return f"is damaged ({problem.splitlines()[-1][:80]})"
    except sqlite3.Error as error:
        return f"cannot be read ({first_line(error)})" if is_damaged(error) else ""
    return _catalog_problem(home) if name == "catalog.sqlite" else ""


def _catalog_problem(home: StoreDirectory) -> str:
    catalog = Catalog(home, read_only=True)
    try:
        catalog.parts()
        catalog.retired()
        catalog.entries()
        for (name,) in catalog.read("SELECT name FROM conflicts"):
            part_name(name, home.path)
    except StoreError as error:
        return f"is not a valid catalogue ({str(error).partition(': ')[2].partition('; ')[0]})"
    finally:
        catalog.close()
    return ""


def quarantine_databases(home: StoreDirectory, faults: Sequence[Fault]) -> list[Path]:
    """Move damaged SQLite files to ``quarantine/``, where nothing is overwritten; return their new paths.

    A new catalogue is filled from the parts by ``repair``; a new queue and new saved views are empty. Raises
    StoreError, with nothing moved, while an engine serves the store or another process writes.
    """
    moved = []
    try:
        with (
            file_lock(home.path / "engine.lock", exclusive=True, timeout=_LOCK_TIMEOUT_S) as is_idle,
            file_lock(home.path / "writers.lock", exclusive=True, timeout=_LOCK_TIMEOUT_S) as acquired,
        ):
            if not is_idle or not acquired:
                raise StoreError(f"store {home.path}: is in use; stop its app and engine, then repair it")
            folder = home.make_folder("quarantine")
            for path in [fault.path for fault in faults]:
                number = next(n for n in count() if not (folder / f"{path.name}.{n}").exists())
                for suffix in ("-wal", "-shm", ""):
                    if (file := path.with_name(path.name + suffix)).exists():
                        file.rename(folder / f"{path.name}.{number}{suffix}")
                moved.append(folder / f"{path.name}.{number}")
            sync_directory(home.path)
    except OSError as error:
        raise StoreError(
            f"store {home.path}: could not be repaired ({error_reason(error)}); free disk space"
        ) from error
    return moved


def _unused_files(catalog: Catalog) -> list[Path]:
    """Return the files that the catalogue does not list; none while a process writes, because they may be its own."""
    if catalog.read_only is not None:
        return orphans(catalog)
    with file_lock(catalog.writers_lock, exclusive=True, timeout=_LOCK_TIMEOUT_S) as acquired:
        return orphans(catalog) if acquired else []


def _part_faults(catalog: Catalog, part: Part) -> list[str]:
    path = catalog.path_of(part)
    try:
        if sha256_of(path) != part.sha256:
            return ["its checksum differs from the recorded one"]
    except FileNotFoundError:
        return ["is missing"]
    except OSError as error:
        return [f"cannot be read ({first_line(error)})"]
    registered = {entry.run_id for entry in catalog.entries(parts=[part.seq])}
    return _content_faults(path, part.rows, registered)


def _content_faults(path: Path, rows: int | None, registered: set[str] | None = None) -> list[str]:
    """Return the faults inside a file; ``registered`` are the runs that it must hold."""
    if problem := file_problem(path, rows):
        return [problem]
    found: list[str] = []
    ids: set[str] = set()
    for group, table, why in read_row_groups(path, with_weights=registered is not None):
        if table is None:
            found.append(f"row group {group} cannot be read ({why})")
            continue
        ids.update(table["run_id"].to_pylist())
        found += _row_lines(table, row_faults(table))
    missing = sorted(registered - ids) if registered is not None else []
    return [*found, *_shortened([f"run {run_id} is registered for this part, but not in it" for run_id in missing])]


def _row_lines(table: pa.Table, faults: Faults) -> list[str]:
    ids = ids_of(table, list(faults))
    return _shortened([f"run {run_id}: {what}" for run_id, what in zip(ids, faults.values(), strict=True)])


def _shortened(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _MAX_LINES} more like these"] if len(lines) > _MAX_LINES else []
    return [*lines[:_MAX_LINES], *more]


def _conflict_faults(catalog: Catalog) -> list[tuple[Path, str]]:
    if not catalog.conflicts_directory.is_dir():
        return []
    faults = []
    for name, sha256 in catalog.read("SELECT DISTINCT name, sha256 FROM conflicts ORDER BY name"):
        path = catalog.home.folder("conflicts") / part_name(name, catalog.directory)
        try:
            if sha256_of(path) != sha256:
                faults.append((path, "its checksum differs from the recorded one"))
        except OSError as error:
            faults.append((path, f"cannot be read ({first_line(error)})"))
    return faults


def repair(catalog: Catalog, faults: Sequence[Fault]) -> RepairResult:
    """Move faulty parts to quarantine, write their intact rows to new parts, and return which runs are lost.

    A row is intact if the page checksums of its row group match and its id follows from its content. The catalogue
    knows the runs of a part that cannot be read at all. Raises StoreError if disk or catalogue cannot be written.
    """
    done = RepairResult()
    with catalog.writing("the store could not be repaired"):
        for part in {fault.part.seq: fault.part for fault in faults if fault.part is not None}.values():
            _repair_part(catalog, part, [fault.what for fault in faults if fault.part == part], done)
        seqs = {part.seq for part in catalog.parts()}
        dangling = [entry for entry in catalog.entries() if entry.part not in seqs]
        with catalog.transaction() as db:
            db.executemany("DELETE FROM runs WHERE run_id = ?", [(entry.run_id,) for entry in dangling])
        done.lost += dangling
    done.recovery = recover(catalog)
    return done


def _repair_part(catalog: Catalog, part: Part, reasons: Sequence[str], done: RepairResult) -> None:
    path = catalog.path_of(part)
    entries = catalog.entries(parts=[part.seq])
    intact = _intact_rows(path, {entry.run_id for entry in entries})
    if intact is not None:
        # The metadata of the damaged file may be wrong.
        intact = intact.replace_schema_metadata(part_schema().metadata)
    file = write_part(catalog.parts_directory, intact) if intact is not None else None
    runs_kept = set(intact["run_id"].to_pylist()) if intact is not None else set()
    try:
        with catalog.transaction() as db:
            is_current = db.execute("SELECT 1 FROM parts WHERE seq = ?", (part.seq,)).fetchone() is not None
            if is_current:
                db.execute("DELETE FROM parts WHERE seq = ?", (part.seq,))
                db.execute("DELETE FROM runs WHERE part = ?", (part.seq,))
                if file is not None and intact is not None:
                    catalog.register(db, file, run_rows(intact))
    except sqlite3.Error:
        if file is not None:
            file.path.unlink(missing_ok=True)
        raise
    if not is_current:
        if file is not None:
            file.path.unlink(missing_ok=True)
        return
    # Removed from the catalogue before it is moved: no reader looks for it, and `recover` finds it after a crash.
    done.quarantined.append(quarantine(catalog, path, "; ".join(reasons)))
    done.runs_kept += len(runs_kept)
    done.lost += [entry for entry in entries if entry.run_id not in runs_kept]


def _intact_rows(path: Path, registered: set[str]) -> pa.Table | None:
    """Return the intact rows of a damaged part, or None if there are none."""
    if not path.exists() or file_problem(path) is not None or not has_page_checksums(path):
        return None
    kept = []
    for _, table, _ in read_row_groups(path):
        if table is not None:
            faults = row_faults(table)
            ids = table["run_id"].to_pylist()
            good = [row not in faults and run_id in registered for row, run_id in enumerate(ids)]
            kept.append(table.filter(pa.array(good, pa.bool_())))
    table = pa.concat_tables(kept) if kept else None
    return table if table is not None and table.num_rows else None
