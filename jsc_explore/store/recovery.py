"""Recovery: register the complete parts that killed writers left, and delete their incomplete files."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from jsc_explore.files import file_lock, sha256_of, sync_directory
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.checks import file_problem, read_row_groups, row_faults
from jsc_explore.store.directory import PART_NAME, UNFINISHED_PART_NAME
from jsc_explore.store.parquet_writer import PartFile

# How long replaced files are kept for readers: a reader refreshes every second, one that was paused later.
RETENTION_S = 600.0
# How long to wait for running writers. Without the lock nothing is recovered: the files may still be theirs.
_LOCK_TIMEOUT_S = 5.0


@dataclass
class RecoveryResult:
    """What was done with the files in ``parts/`` that the catalogue does not list."""

    registered: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return one message per file."""
        return [
            *(
                f"{path.name}: complete, but its writer ended before it was registered; registered"
                for path in self.registered
            ),
            *(f"{path.name}: left by a writer that was killed; removed" for path in self.removed),
            *(f"{path.name}: not a valid part; moved to quarantine/" for path in self.quarantined),
        ]


def orphans(catalog: Catalog) -> list[Path]:
    """Return the files in ``parts/`` that the catalogue does not list: left by killed writers, or being written.

    Files that are not named as the store names its parts are not among them: they are left alone.
    """
    folder = catalog.home.folder("parts")
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if _is_part(path) or UNFINISHED_PART_NAME.fullmatch(path.name))
    known = {part.name for part in catalog.parts()} | {name for name, _ in catalog.retired()}
    return [path for path in paths if path.name not in known]


def _is_part(path: Path) -> bool:
    """Return whether a file is named as the store names its parts."""
    return PART_NAME.fullmatch(path.name) is not None


def recover(catalog: Catalog) -> RecoveryResult:
    """Register complete parts, remove incomplete files and those whose runs are stored, quarantine the rest.

    Does nothing while another process writes. Raises StoreError if the disk or the catalogue cannot be written.
    """
    found = RecoveryResult()
    catalog.require_writable("files of killed writers cannot be recovered")
    try:
        with file_lock(catalog.writers_lock, exclusive=True, timeout=_LOCK_TIMEOUT_S) as acquired:
            for path in orphans(catalog) if acquired else []:
                _recover_file(catalog, path, found)
    except (OSError, sqlite3.Error) as error:
        raise catalog.write_error("files of killed writers cannot be recovered", error) from error
    return found


def _recover_file(catalog: Catalog, path: Path, found: RecoveryResult) -> None:
    if not _is_part(path):
        path.unlink(missing_ok=True)
        found.removed.append(path)
        return
    table = _valid_table(path)
    if table is None:
        quarantine(catalog, path, "was never registered, and is not a valid part")
        found.quarantined.append(path)
        return
    stored = {entry.run_id for entry in catalog.entries(run_ids=table["run_id"].to_pylist())}
    if table.num_rows and not stored:
        catalog.register_orphan(PartFile(path, table.num_rows, sha256_of(path)), table)
        found.registered.append(path)
        return
    missing = table.filter(pa.array([run_id not in stored for run_id in table["run_id"].to_pylist()]))
    if missing.num_rows:
        catalog.add_locked(missing)
    path.unlink(missing_ok=True)
    (found.registered if missing.num_rows else found.removed).append(path)


def _valid_table(path: Path) -> pa.Table | None:
    """Return all rows of a file, or None if any is invalid."""
    if file_problem(path) is not None:
        return None
    tables = [table for _, table, _ in read_row_groups(path)]
    if not tables or any(table is None for table in tables):
        return None
    table = pa.concat_tables([table for table in tables if table is not None])
    return None if row_faults(table) else table


def quarantine(catalog: Catalog, path: Path, reason: str) -> Path:
    """Move a file to ``quarantine/``, which this program never deletes; return its new path."""
    catalog.home.make_folder("quarantine")
    target = catalog.quarantine_directory / path.name
    with catalog.transaction() as db:
        db.execute("INSERT OR REPLACE INTO quarantined (name, reason) VALUES (?, ?)", (path.name, reason))
    if path.exists():
        path.replace(target)
        sync_directory(catalog.quarantine_directory)
    return target


def drop_retired(catalog: Catalog, retention_s: float = RETENTION_S) -> list[Path]:
    """Delete replaced files older than ``retention_s``; return them. Raises StoreError if that fails."""
    now = time.time()
    deleted = []
    try:
        for name, retired_at in catalog.retired():
            if retired_at > now:  # the clock was set back: count from now
                with catalog.transaction() as db:
                    db.execute("UPDATE retired SET retired_at = ? WHERE name = ?", (now, name))
            elif now - retired_at >= retention_s:
                path = catalog.home.folder("parts") / name
                path.unlink(missing_ok=True)
                deleted.append(path)
        if deleted:
            with catalog.transaction() as db:
                db.executemany("DELETE FROM retired WHERE name = ?", [(path.name,) for path in deleted])
    except (OSError, sqlite3.Error) as error:
        raise catalog.write_error("replaced files cannot be deleted", error) from error
    return deleted
