"""What writers that died left behind: whole parts that were never entered are taken in, halves go."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from jsc_explore.files import file_lock, sha256_of, sync_directory
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.checks import file_problem, read_row_groups, row_faults
from jsc_explore.store.parquet_writer import PartFile

# How long readers may go on with the files of the generation before: they look anew every second, a paused one later.
RETENTION_S = 600.0
# A writer at work is not in its grave; what it leaves, if it dies, is found next time.
_WAIT_S = 5.0


@dataclass
class RecoveryResult:
    """What became of files in ``parts/`` that the catalogue does not know."""

    registered: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    quarantined: list[Path] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return one line a file."""
        return [
            *(f"{path.name}: whole, but never entered by a writer that died; adopted" for path in self.registered),
            *(f"{path.name}: left by a writer that died; removed" for path in self.removed),
            *(f"{path.name}: no part of this store; moved to quarantine/" for path in self.quarantined),
        ]


def orphans(catalog: Catalog) -> list[Path]:
    """Return the files in ``parts/`` that the catalogue does not know: left by the dead, or being written now."""
    if not catalog.parts_directory.is_dir():
        return []
    paths = sorted(catalog.parts_directory.iterdir())
    known = {part.name for part in catalog.parts()} | {name for name, _ in catalog.retired()}
    return [path for path in paths if path.name not in known]


def recover(catalog: Catalog) -> RecoveryResult:
    """Take in whole parts that were never entered, remove halves and what is stored elsewhere, quarantine the rest.

    Nothing happens while another process writes. StoreError if the disk or the catalogue refuses.
    """
    found = RecoveryResult()
    catalog.require_writable("what dead writers left cannot be cleared up")
    try:
        with file_lock(catalog.writers_lock, exclusive=True, timeout=_WAIT_S) as got:
            for path in orphans(catalog) if got else []:
                _recover_file(catalog, path, found)
    except (OSError, sqlite3.Error) as error:
        raise catalog.refused("what dead writers left cannot be cleared up", error) from error
    return found


def _recover_file(catalog: Catalog, path: Path, found: RecoveryResult) -> None:
    if path.suffix != ".parquet":
        path.unlink(missing_ok=True)
        found.removed.append(path)
        return
    table = _sound(path)
    if table is None:
        quarantine(catalog, path, "was never entered, and is no sound part")
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


def _sound(path: Path) -> pa.Table | None:
    """Return every row of a file of ours, or None if any is not sound."""
    if file_problem(path) is not None:
        return None
    tables = [table for _, table, _ in read_row_groups(path)]
    if not tables or any(table is None for table in tables):
        return None
    whole = pa.concat_tables([table for table in tables if table is not None])
    return None if row_faults(whole) else whole


def quarantine(catalog: Catalog, path: Path, why: str) -> Path:
    """Move a file out of the readers' way, never to be deleted by this program; return where it lies now."""
    catalog.quarantine_directory.mkdir(exist_ok=True)
    target = catalog.quarantine_directory / path.name
    with catalog.transaction() as db:
        db.execute("INSERT OR REPLACE INTO quarantined (name, reason) VALUES (?, ?)", (path.name, why))
    if path.exists():
        path.replace(target)
        sync_directory(catalog.quarantine_directory)
    return target


def drop_retired(catalog: Catalog, retention_s: float = RETENTION_S) -> list[Path]:
    """Remove files of older generations that were kept long enough; return them. StoreError if that fails."""
    now = time.time()
    gone = []
    try:
        for name, retired_at in catalog.retired():
            if retired_at > now:  # The clock was moved back: count from now on.
                with catalog.transaction() as db:
                    db.execute("UPDATE retired SET retired_at = ? WHERE name = ?", (now, name))
            elif now - retired_at >= retention_s:
                path = catalog.parts_directory / name
                path.unlink(missing_ok=True)
                gone.append(path)
        if gone:
            with catalog.transaction() as db:
                db.executemany("DELETE FROM retired WHERE name = ?", [(path.name,) for path in gone])
    except (OSError, sqlite3.Error) as error:
        raise catalog.refused("old generations cannot be removed", error) from error
    return gone
