"""Verify: the proof that what lies on the disk is what was written; repair: what can be saved, and what is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from jsc_explore.files import file_lock, sha256_of
from jsc_explore.store.catalog import Catalog, Entry, Part, run_rows
from jsc_explore.store.checks import Faults, file_problem, first_line, ids_of, read_row_groups, row_faults
from jsc_explore.store.parquet_writer import has_page_checksums, write_part
from jsc_explore.store.recovery import RecoveryResult, orphans, quarantine, recover
from jsc_explore.store.schema import part_schema

# Of a part with thousands of runs a few lines say enough.
_SHOWN = 3
_WAIT_S = 5.0


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file of the store or an entry; ``part`` is None where there is no part to repair."""

    path: Path
    what: str
    part: Part | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass
class RepairResult:
    """What was done about the faults: files moved away, runs saved from them, and the entries of runs that are lost."""

    quarantined: list[Path] = field(default_factory=list)
    runs_kept: int = 0
    lost: list[Entry] = field(default_factory=list)
    recovered: RecoveryResult = field(default_factory=RecoveryResult)


def verify(catalog: Catalog, snapshot: Path | None = None) -> list[Fault]:
    """Check every part against its checksum and schema, every row against its id, every entered run against its part.

    The snapshot's rows are checked too. What is being put together meanwhile is read as it was. Nothing is changed.
    """
    faults = []
    for part in catalog.parts():
        what = _part_faults(catalog, part)
        if what and any(part.seq == other.seq for other in catalog.parts()):
            faults += [Fault(catalog.path_of(part), line, part) for line in what]
    seqs = {part.seq for part in catalog.parts()}
    astray = [entry for entry in catalog.entries() if entry.part not in seqs]
    if astray and seqs == {part.seq for part in catalog.parts()}:
        faults += [Fault(catalog.path, f"run {entry.run_id} is entered, but its part is not") for entry in astray]
    faults += [Fault(path, "is entered nowhere, left by a writer that died") for path in _unused_files(catalog)]
    faults += [Fault(path, what) for path, what in _conflict_faults(catalog)]
    if snapshot is not None and snapshot.exists():
        faults += [Fault(snapshot, what) for what in _content_faults(snapshot, None)]
    return faults


def _unused_files(catalog: Catalog) -> list[Path]:
    """Return what no row names; nothing while somebody is writing, for then it may be theirs."""
    if catalog.read_only is not None:
        return orphans(catalog)
    with file_lock(catalog.writers_lock, exclusive=True, timeout=_WAIT_S) as got:
        return orphans(catalog) if got else []


def _part_faults(catalog: Catalog, part: Part) -> list[str]:
    path = catalog.path_of(part)
    try:
        if sha256_of(path) != part.sha256:
            return ["its checksum is not the recorded one"]
    except FileNotFoundError:
        return ["is missing"]
    except OSError as error:
        return [f"cannot be read ({first_line(error)})"]
    entered = {entry.run_id for entry in catalog.entries(parts=[part.seq])}
    return _content_faults(path, part.rows, entered)


def _content_faults(path: Path, rows: int | None, entered: set[str] | None = None) -> list[str]:
    """Return what is wrong inside a file; ``entered`` are the runs that must be in it."""
    if problem := file_problem(path, rows):
        return [problem]
    found: list[str] = []
    ids: set[str] = set()
    for group, table, why in read_row_groups(path, with_weights=entered is not None):
        if table is None:
            found.append(f"row group {group} cannot be read ({why})")
            continue
        ids.update(table["run_id"].to_pylist())
        found += _row_lines(table, row_faults(table))
    missing = sorted(entered - ids) if entered is not None else []
    return [*found, *_shortened([f"run {run_id} is entered here, and is not in it" for run_id in missing])]


def _row_lines(table: pa.Table, faults: Faults) -> list[str]:
    ids = ids_of(table, list(faults))
    return _shortened([f"run {run_id}: {what}" for run_id, what in zip(ids, faults.values(), strict=True)])


def _shortened(lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _SHOWN} more like that"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more]


def _conflict_faults(catalog: Catalog) -> list[tuple[Path, str]]:
    if not catalog.conflicts_directory.is_dir():
        return []
    faults = []
    for name, sha256 in catalog.read("SELECT DISTINCT name, sha256 FROM conflicts ORDER BY name"):
        path = catalog.conflicts_directory / name
        try:
            if sha256_of(path) != sha256:
                faults.append((path, "its checksum is not the recorded one"))
        except OSError as error:
            faults.append((path, f"cannot be read ({first_line(error)})"))
    return faults


def repair(catalog: Catalog, faults: Sequence[Fault]) -> RepairResult:
    """Quarantine the faulty parts, never deleting any; keep their sound rows in new parts, return what is lost.

    A row is sound if the page checksums of its row group hold and its id follows from its content. Runs of a part of
    which nothing can be read are known from the catalogue. StoreError if the disk or the catalogue refuses.
    """
    done = RepairResult()
    with catalog.writing("the store could not be repaired"):
        for part in {fault.part.seq: fault.part for fault in faults if fault.part is not None}.values():
            _repair_part(catalog, part, [fault.what for fault in faults if fault.part == part], done)
        seqs = {part.seq for part in catalog.parts()}
        astray = [entry for entry in catalog.entries() if entry.part not in seqs]
        with catalog.transaction() as db:
            db.executemany("DELETE FROM runs WHERE run_id = ?", [(entry.run_id,) for entry in astray])
        done.lost += astray
    done.recovered = recover(catalog)
    return done


def _repair_part(catalog: Catalog, part: Part, why: Sequence[str], done: RepairResult) -> None:
    path = catalog.path_of(part)
    entries = catalog.entries(parts=[part.seq])
    sound = _sound_rows(path, {entry.run_id for entry in entries})
    if sound is not None:
        # What is wrong may be the words about the columns: a new part has its own.
        sound = sound.replace_schema_metadata(part_schema().metadata)
    file = write_part(catalog.parts_directory, sound) if sound is not None else None
    runs_kept = set(sound["run_id"].to_pylist()) if sound is not None else set()
    try:
        with catalog.transaction() as db:
            still = db.execute("SELECT 1 FROM parts WHERE seq = ?", (part.seq,)).fetchone() is not None
            if still:
                db.execute("DELETE FROM parts WHERE seq = ?", (part.seq,))
                db.execute("DELETE FROM runs WHERE part = ?", (part.seq,))
                if file is not None and sound is not None:
                    catalog.register(db, file, run_rows(sound))
    except sqlite3.Error:
        if file is not None:
            file.path.unlink(missing_ok=True)
        raise
    if not still:
        if file is not None:
            file.path.unlink(missing_ok=True)
        return
    # Entered as gone before it is moved: a reader never looks for it in vain, and a crash leaves it to `recover`.
    done.quarantined.append(quarantine(catalog, path, "; ".join(why)))
    done.runs_kept += len(runs_kept)
    done.lost += [entry for entry in entries if entry.run_id not in runs_kept]


def _sound_rows(path: Path, entered: set[str]) -> pa.Table | None:
    """Return the rows of a broken part that can be trusted, or None."""
    if not path.exists() or file_problem(path) is not None or not has_page_checksums(path):
        return None
    kept = []
    for _, table, _ in read_row_groups(path):
        if table is not None:
            faults = row_faults(table)
            ids = table["run_id"].to_pylist()
            good = [place not in faults and run_id in entered for place, run_id in enumerate(ids)]
            kept.append(table.filter(pa.array(good, pa.bool_())))
    whole = pa.concat_tables(kept) if kept else None
    return whole if whole is not None and whole.num_rows else None
