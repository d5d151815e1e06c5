"""Merge: add the runs of another machine's store or snapshot, each row checked; nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from jsc_explore.errors import StoreError
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.checks import external_faults, file_problem, ids_of, read_row_groups
from jsc_explore.store.parquet_writer import write_part
from jsc_explore.store.schema import COLUMNS, OPTIONAL, part_schema, with_columns
from jsc_explore.store.store import Store

# Columns that depend on the machine, the stack or the time, not on the run.
_NOT_COMPARED = frozenset({
    "created_at", "train_time_s", "wall_time_s", "replicas", "peak_memory_mb", "device", "backend", "versions",
    "curve_time_s",
    # These follow from the same weights as the columns that are compared, and may be unknown.
    "roc",
}) | OPTIONAL  # fmt: skip
COMPARED_COLUMNS = tuple(column.name for column in COLUMNS if column.name not in _NOT_COMPARED)
# Rows that are compared, and written as one part: their curves as Python objects still fit in memory.
_BATCH_ROWS = 512


@dataclass(frozen=True)
class Conflict:
    """A run with other values than the stored run of the same id; ``differs`` lists the differences."""

    run_id: str
    source: str
    differs: str

    def __str__(self) -> str:
        return f"run {self.run_id}: differs from {self.source}: {self.differs}"


@dataclass
class MergeResult:
    """Counts of the runs of one source: added, identical to stored ones, in conflict with them, or refused."""

    added: int = 0
    same: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def merge(store: Store, source: Path) -> MergeResult:
    """Add the runs of another store or of a Parquet file.

    New runs are added durably, in parts of up to 512. Stored runs with the same values are skipped; those with other
    values are kept in ``conflicts/``, which readers ignore. Invalid rows are refused, with one message each. Merging
    the same source twice changes nothing. Raises StoreError if source or store cannot be used: what was added before
    stays, and merging again continues from there.
    """
    files, catalog = _files(source)
    if source.resolve() == store.directory.resolve():
        raise StoreError(f"{source}: is this store itself; give another one")
    store.catalog.require_writable("nothing can be merged")
    done = MergeResult()
    try:
        for path in files:
            if problem := file_problem(path):
                if catalog is None:
                    raise StoreError(f"{path}: {problem}; nothing was added from it")
                done.refused.append(f"{path}: {problem}; it is skipped")
                continue
            for group, table, why in read_row_groups(path):
                if table is None:
                    done.refused.append(f"{path}: row group {group} cannot be read ({why}); it is skipped")
                    continue
                for first in range(0, table.num_rows, _BATCH_ROWS):
                    _merge_rows(store, _to_part_schema(table.slice(first, _BATCH_ROWS)), str(source), path, done)
    finally:
        if catalog is not None:
            catalog.close()
    return done


def _files(source: Path) -> tuple[list[Path], Catalog | None]:
    """Return the Parquet files of a source, and the catalogue, opened read-only, if it is a store."""
    if source.is_dir():
        catalog = Catalog(source, read_only=True)
        if not catalog.path.exists():
            raise StoreError(f"{source}: is not a store, it has no catalog.sqlite; give a store or a Parquet file")
        return [catalog.path_of(part) for part in catalog.parts()], catalog
    if not source.exists():
        raise StoreError(f"{source}: does not exist; give a store or a Parquet file")
    return [source], None


def _to_part_schema(table: pa.Table) -> pa.Table:
    """Return a copy with the columns of a part; a copy because Arrow's list functions fail on slices."""
    return with_columns(table, part_schema().names).cast(part_schema()).take(pa.array(range(table.num_rows)))


def _merge_rows(store: Store, table: pa.Table, source: str, path: Path, done: MergeResult) -> None:
    faults = external_faults(table)
    done.refused += [
        f"{path}: run {run_id}: {what}; it is skipped"
        for run_id, what in zip(ids_of(table, list(faults)), faults.values(), strict=True)
    ]
    ids = table["run_id"].to_pylist()
    stored = store.existing(ids)
    new: list[int] = []
    known: list[int] = []
    for row in range(len(ids)):
        if row not in faults:
            # A file may hold a run twice.
            (known if ids[row] in stored else new).append(row)
            stored.add(ids[row])
    added = store.add_table(table.take(pa.array(new, pa.int64())))
    if added < len(new):
        # Another process has just stored some of them: compare all, of which those added here are identical.
        known, done.same = sorted([*new, *known]), done.same - added
    done.added += added
    if known:
        _compare(store, table.take(pa.array(known, pa.int64())), source, done)


def _compare(store: Store, table: pa.Table, source: str, done: MergeResult) -> None:
    ours = store.rows(table["run_id"].to_pylist(), [name for name in COMPARED_COLUMNS if name != "run_id"])
    if _are_equal(ours, table):
        done.same += table.num_rows
        return
    mine = {row["run_id"]: row for row in ours.to_pylist()}
    conflicts, rows = [], []
    for row, theirs in enumerate(table.select(COMPARED_COLUMNS).to_pylist()):
        if differs := _differences(mine[theirs["run_id"]], theirs):
            conflicts.append((Conflict(theirs["run_id"], source, differs), _digest(theirs)))
            rows.append(row)
        else:
            done.same += 1
    if conflicts:
        _store_conflicts(store.catalog, table.take(pa.array(rows)), conflicts)
        done.conflicts += [conflict for conflict, _ in conflicts]


def _are_equal(ours: pa.Table, theirs: pa.Table) -> bool:
    """Return whether two tables of the same runs have equal values: the usual case, decided without Python rows."""
    order = [("run_id", "ascending")]
    return bool(ours.select(COMPARED_COLUMNS).sort_by(order).equals(theirs.select(COMPARED_COLUMNS).sort_by(order)))


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Describe the values in which two rows of one run differ; empty if there are none."""
    differ = [name for name in COMPARED_COLUMNS if not _equal(ours[name], theirs[name])]
    return ", ".join(_difference(name, ours[name], theirs[name]) for name in differ[:4]) + (
        f" and {len(differ) - 4} more" if len(differ) > 4 else ""
    )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other):
        return True
    return bool(one == other)


def _difference(name: str, ours: Any, theirs: Any) -> str:
    if not isinstance(ours, list) or not isinstance(theirs, list):
        return f"{name} {_number(ours)}, there {_number(theirs)}"
    if len(ours) != len(theirs):
        return f"{name} has {len(ours)} values, there {len(theirs)}"
    at = next(index for index, pair in enumerate(zip(ours, theirs, strict=True)) if not _equal(*pair))
    return f"{name}[{at}] {_number(ours[at])}, there {_number(theirs[at])}"


def _number(value: Any) -> str:
    return "null" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _digest(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([row[name] for name in COMPARED_COLUMNS]).encode()).hexdigest()


def _store_conflicts(catalog: Catalog, table: pa.Table, conflicts: Sequence[tuple[Conflict, str]]) -> None:
    """Write the conflicting rows durably to ``conflicts/``, each only once."""
    kept = {(run_id, digest) for run_id, digest in catalog.read("SELECT run_id, digest FROM conflicts")}
    new = {(one.run_id, digest): (one, row) for row, (one, digest) in enumerate(conflicts)}
    new = {key: value for key, value in new.items() if key not in kept}
    if not new:
        return
    with catalog.writing("conflicting runs could not be stored"):
        catalog.home.make_folder("conflicts")
        file = write_part(catalog.conflicts_directory, table.take(pa.array([row for _, row in new.values()])))
        try:
            with catalog.transaction() as db:
                db.executemany(
                    "INSERT OR IGNORE INTO conflicts (run_id, digest, name, sha256, source, differs) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    [(run_id, digest, file.path.name, file.sha256, one.source, one.differs)
                     for (run_id, digest), (one, _) in new.items()],
                )  # fmt: skip
        except sqlite3.Error:
            if not catalog.read("SELECT 1 FROM conflicts WHERE name = ?", [file.path.name]):
                file.path.unlink(missing_ok=True)
            raise


def conflicts(catalog: Catalog) -> Iterator[Conflict]:
    """Yield the conflicts of all merges, ordered by run id."""
    for row in catalog.read("SELECT run_id, source, differs FROM conflicts ORDER BY run_id, found_at"):
        yield Conflict(*row)
