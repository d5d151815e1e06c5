"""The store: reads runs and curves from the published snapshot and the local parts, and adds finished runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.config import FIELDS, check_field
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.results import CURVE_PREFIX, POINT_FIELDS, RunRecord
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.checks import file_problem, first_line
from jsc_explore.store.compaction import BackgroundCompaction, parts_to_compact
from jsc_explore.store.directory import StoreDirectory
from jsc_explore.store.index import RunIndex
from jsc_explore.store.parquet_reader import CurveReader, StaleFileError
from jsc_explore.store.query.filters import Filters, condition
from jsc_explore.store.recovery import RecoveryResult, drop_retired, recover
from jsc_explore.store.schema import COLUMNS, CURVES, ROC, SCALARS, WEIGHTS, from_row, to_table

log = logging.getLogger("jsc_explore.store")
# How often a reader starts again when a compaction or a publication replaces files while it reads.
_MAX_ATTEMPTS = 5
# How often the replaced files are checked for deletion.
_DELETE_INTERVAL_S = 60.0
_AXES = ("step", "epoch", "samples", "time_s")


class Store:
    """Runs and curves of one store directory, together with those of the read-only ``snapshot``.

    Contract, beside that of ``Catalog``: once ``add`` returns, every reader that refreshes sees the run, whatever
    crashes. A reader sees every run exactly once, also during a compaction. Added runs appear after ``refresh``;
    queries refresh by themselves only when a file was removed.

    The scalars of all runs are in memory; curves are read from the files. Each method may be called from any thread.
    ``version`` changes whenever runs are added or removed. ``read_only=True`` writes nothing, not even a lock file.
    """

    def __init__(
        self, directory: Path | StoreDirectory, snapshot: Path | None = None, *, read_only: bool = False
    ) -> None:
        self.catalog = Catalog(directory, read_only=read_only)
        self.directory = self.catalog.directory
        self.version = 0
        self.snapshot = Path(snapshot) if snapshot is not None else None
        self._snapshot_state: tuple[int, ...] | None = None
        self._problems: dict[str, str] = {}
        self._parts: dict[str, str] = {}
        self._fingerprint = (0, 0)
        self._checked_fingerprint = (0, 0)
        self._deleted_at = time.monotonic()
        self._background = BackgroundCompaction(self.catalog.home)
        self._curves = CurveReader()
        self._lock = threading.RLock()
        self._index = RunIndex(self.directory, self.snapshot)
        self.refresh()

    def close(self) -> None:
        """Close catalogue and index; a running compaction is stopped and has no effect."""
        self._background.stop()
        self._index.close()
        self.catalog.close()

    @property
    def problems(self) -> list[str]:
        """Messages, one for each file that is skipped because it cannot be read."""
        return list(self._problems.values())

    @property
    def home(self) -> StoreDirectory:
        """The opened directory, for what else opens files in it."""
        return self.catalog.home

    @property
    def read_only(self) -> str | None:
        """The reason why runs cannot be added; None if they can."""
        return self.catalog.read_only

    # ---- changes

    def refresh(self) -> bool:
        """Read the changes since the last refresh; return whether any run was added or removed."""
        with self._lock:
            before = self.version
            for _ in range(_MAX_ATTEMPTS):
                try:
                    self._sync_index()
                    return self.version != before
                except StaleFileError:
                    continue
            raise StoreError(f"store {self.directory}: its parts change faster than they can be read; try again")

    def _sync_index(self) -> None:
        """Update the index from catalogue and snapshot. Raises StaleFileError if a file is removed meanwhile."""
        state = _file_state(self.snapshot)
        fingerprint = self.catalog.fingerprint()
        if state == self._snapshot_state and fingerprint == self._fingerprint:
            return
        current = {part.name: str(self.catalog.path_of(part)) for part in self.catalog.parts()}
        added = [path for name, path in current.items() if name not in self._parts]
        removed = [path for name, path in self._parts.items() if name not in current]
        if state != self._snapshot_state:
            removed += [str(self.snapshot)] if self._snapshot_state else []
            added += [str(self.snapshot)] if state else []
        readable = [path for path in added if self._is_readable(path)]
        snapshot = str(self.snapshot) if state else ""
        try:
            self.version += self._index.replace_files(readable, removed, snapshot)
        except StoreError:
            # A bad sector in one file must not make the other files unreadable.
            loadable = [path for path in readable if self._is_loadable(path)]
            if len(loadable) == len(readable):
                raise
            self.version += self._index.replace_files(
                loadable, removed, snapshot if snapshot not in self._problems else ""
            )
        for path in removed:
            self._problems.pop(path, None)
        self._curves.forget(removed)
        self._parts, self._fingerprint, self._snapshot_state = current, fingerprint, state

    def _is_readable(self, path: str) -> bool:
        problem = file_problem(Path(path))
        if problem is None:
            return True
        if path != str(self.snapshot) and not Path(path).exists() and self._is_removed(Path(path).name):
            raise StaleFileError(path)
        self._skip_file(path, problem)
        return False

    def _is_loadable(self, path: str) -> bool:
        problem = self._index.read_error(path)
        if problem is not None:
            self._skip_file(path, f"cannot be read ({problem})")
        return problem is None

    def _skip_file(self, path: str, problem: str) -> None:
        self._problems[path] = f"{path}: {problem}; it is skipped, run `jsc-explore verify`"

    def _is_removed(self, name: str) -> bool:
        return all(part.name != name for part in self.catalog.parts())

    def add(self, record: RunRecord) -> None:
        """Store a finished run durably, unless it is stored already. If it raises StoreError, nothing has changed."""
        self.add_all([record])

    def add_all(self, records: Sequence[RunRecord]) -> None:
        """Store finished runs as ``add`` does, in one part: all of them or, if it raises StoreError, none."""
        self.add_table(pa.concat_tables([to_table(record) for record in records]))

    def add_table(self, table: pa.Table) -> int:
        """Store the rows of a table with the columns of a part, durably, as one part; return how many were new.

        Stored runs are not changed. If it raises StoreError, nothing has changed.
        """
        with self._lock:
            stored = self.existing(table["run_id"].to_pylist())
            new = pa.array([run_id not in stored for run_id in table["run_id"].to_pylist()], pa.bool_())
            table = table.filter(new)
            if not table.num_rows:
                return 0
            # Runs in an unreadable part do not count as stored: they are written again.
            unreadable = {Path(path).name for path in self._problems}
            part = self.catalog.add(table, unreadable)
            self.refresh()
            return part.rows if part is not None else 0

    def recover(self) -> RecoveryResult:
        """Register or delete the files that killed writers left. Raises StoreError if the disk cannot be written."""
        with self._lock:
            found = recover(self.catalog)
            self.refresh()
            return found

    def compact_if_needed(self) -> bool:
        """Start a compaction in the background if there are many small parts; return whether one was started.

        Cheap enough to be called every second; it neither blocks nor raises.
        """
        with self._lock:
            if self.read_only is not None:
                return False
            self._delete_retired()
            if self._checked_fingerprint == self._fingerprint:
                return False
            self._checked_fingerprint = self._fingerprint
            if len(self._parts) < 2 or not parts_to_compact(self.catalog.parts()):
                return False
        if self._background.message:
            log.warning("%s", self._background.message)
        return self._background.start()

    def _delete_retired(self) -> None:
        now = time.monotonic()
        if now - self._deleted_at > _DELETE_INTERVAL_S:
            self._deleted_at = now
            try:
                drop_retired(self.catalog)
            except StoreError as error:
                log.warning("%s", error)

    def existing(self, run_ids: Iterable[str]) -> set[str]:
        """Return the ids, of those given, whose runs are stored."""
        ids = list(run_ids)
        found = self.query("SELECT run_id FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [ids])
        return set(found["run_id"].to_pylist())

    def runs(self, filters: Filters | None = None, columns: Sequence[str] = SCALARS) -> pa.Table:
        """Return scalar columns of the runs that pass the filters, ordered by config and seed."""
        where, values = condition(filters or {})
        selected = ", ".join(_check_columns(columns))
        return self.query(f"SELECT {selected} FROM runs WHERE {where} ORDER BY config_id, seed", values)

    def values(self, field: str, filters: Filters | None = None) -> pa.Table:
        """Return the stored values of a field with their number of runs: columns ``value`` and ``n``."""
        check_field(field)
        return self.select(f"SELECT {field} AS value, count(*) AS n FROM selected GROUP BY ALL ORDER BY ALL", filters)

    def select(self, sql: str, filters: Filters | None = None, expression: str = "") -> pa.Table:
        """Run a SELECT of this package over ``selected``, the runs that pass the filters and the filter expression."""
        where, values = condition(filters or {}, expression)
        return self.query(f"WITH selected AS (SELECT * FROM runs WHERE {where}) {sql}", values)

    def curves(self, run_ids: Sequence[str], quantities: Sequence[str] = tuple(POINT_FIELDS)) -> pa.Table:
        """Return one row per point of these runs: ``run_id, config_id, seed, silent`` and the quantities."""
        names = _check_quantities(quantities)
        columns = ", ".join(f"unnest({CURVE_PREFIX}{name}) AS {name}" for name in names)
        return self._over_curves(
            run_ids,
            names,
            f"SELECT run_id, config_id, seed, len(silent_classes) > 0 AS silent, {columns} FROM source ORDER BY ALL",
        )

    def grouped_curves(self, run_ids: Sequence[str], quantity: str) -> pa.Table:
        """Return the values of a quantity in these runs, per config, group and step.

        Columns ``config_id, is_silent, step, epoch, samples, time_s, values``. Runs of a config with a silent class
        (``is_silent``) are a group of their own, diverged runs are in none, and a group ends where its shortest run
        ends.
        """
        (name,) = _check_quantities([quantity])
        is_silent = "len(silent_classes) > 0 AS is_silent"
        points = ", ".join(
            f"unnest({CURVE_PREFIX}{column}) AS {alias}"
            for column, alias in (*zip(_AXES, _AXES, strict=True), (name, "value"))
        )
        return self._over_curves(
            run_ids,
            [*_AXES, name],
            f"""
            SELECT config_id, is_silent, step, avg(epoch) AS epoch, avg(samples) AS samples, avg(time_s) AS time_s,
                   list(value) AS values
            FROM (SELECT config_id, {is_silent}, {points}, count(*) FILTER (list_count({CURVE_PREFIX}{name}) > 0)
                         OVER (PARTITION BY config_id, is_silent) AS runs FROM source WHERE status <> 'diverged')
            WHERE value IS NOT NULL
            GROUP BY config_id, is_silent, step HAVING count(value) = any_value(runs)
            ORDER BY config_id, is_silent, step
            """,
        )

    def roc_curves(self, run_ids: Sequence[str]) -> pa.Table:
        """Return ``run_id`` and ``roc`` of these runs, ordered by id, without runs whose ROC curves are not stored."""
        table = self.rows(run_ids, [ROC.name])
        return table.filter(table[ROC.name].is_valid()).sort_by("run_id")

    def record(self, run_id: str, *, weights: bool = False) -> RunRecord | None:
        """Return one run with its curve, or None; ``weights`` reads the weights too, where the file has them."""
        scalars = self.runs({"run_id": [run_id]}).to_pylist()
        if not scalars:
            return None
        table = self.rows([run_id], [*CURVES, ROC.name], weights=weights)
        return from_row({**scalars[0], **table.to_pylist()[0]})

    def find(self, prefix: str) -> list[str]:
        """Return up to ten ids of runs that start with this prefix."""
        found = self.query("SELECT run_id FROM runs WHERE starts_with(run_id, ?) ORDER BY run_id LIMIT 10", [prefix])
        return [str(run_id) for run_id in found["run_id"].to_pylist()]

    def rows(
        self, run_ids: Sequence[str], columns: Sequence[str], *, scalars: Sequence[str] = (), weights: bool = False
    ) -> pa.Table:
        """Return ``run_id``, these columns of the files, and ``scalars``, of these runs in any order.

        Runs that are not stored are left out; ``weights`` are added where the files have them. Raises StoreError if a
        file cannot be read.
        """
        # Reading the scalars together with the row numbers saves a second scan of all runs.
        find = (
            f"SELECT {', '.join(['file', 'row_index', 'run_id', *scalars])} FROM runs "
            "WHERE run_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY file, row_index"
        )
        try:
            for _ in range(_MAX_ATTEMPTS):
                found = self.query(find, [list(run_ids)]) if run_ids else None
                if found is None or not found.num_rows:
                    return pa.table({name: pa.array([], _TYPES[name]) for name in ("run_id", *columns, *scalars)})
                rows: dict[str, list[int]] = {}
                for file, row in zip(found["file"].to_pylist(), found["row_index"].to_pylist(), strict=True):
                    rows.setdefault(file, []).append(row)
                try:
                    more = [WEIGHTS.name] if weights and _have_weights(rows) else []
                    table = self._curves.read_rows(rows, [*columns, *more])
                except (StaleFileError, FileNotFoundError):
                    self.refresh()
                    continue
                order = {run_id: row for row, run_id in enumerate(found["run_id"].to_pylist())}
                if set(read := table["run_id"].to_pylist()) == set(order):
                    known = found.select(scalars).take(pa.array([order[run_id] for run_id in read]))
                    for name in scalars:
                        table = table.append_column(name, known[name])
                    return table
                # Only the snapshot can be replaced by another file of the same name.
                self._curves.forget(list(rows))
                self.refresh()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"store {self.directory}: a part cannot be read ({first_line(error)}); run `jsc-explore verify`"
            ) from error
        raise StoreError(f"store {self.directory}: a part is missing; run `jsc-explore verify`")

    def query(self, sql: str, values: Sequence[Any], *, read: pa.Table | None = None) -> pa.Table:
        """Run a query over the table ``runs``, for this package only; the SQL may also name the table ``read``."""
        return self._index.query(sql, values, read)

    def _over_curves(self, run_ids: Sequence[str], quantities: Sequence[str], select: str) -> pa.Table:
        """Run a SELECT over ``source``: one row per stored run of these, with the curves of these quantities.

        Its columns are ``run_id, config_id, seed, silent_classes, status`` and the ``curve_`` columns.
        """
        names = [CURVE_PREFIX + name for name in dict.fromkeys(quantities)]
        read = self.rows(run_ids, names, scalars=("config_id", "seed", "silent_classes", "status"))
        return self.query(f"WITH source AS (FROM read) {select}", [], read=read)


def _check_columns(columns: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in SCALARS:
            raise FieldError("column", name, "is not a column of a run", "docs/results.md lists them")
    return list(columns)


def _check_quantities(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in POINT_FIELDS:
            raise FieldError("quantity", name, "is not recorded", "use one of " + ", ".join(POINT_FIELDS))
    return list(names)


_TYPES = {column.name: column.type for column in COLUMNS}


def _have_weights(files: Iterable[str]) -> bool:
    return all(WEIGHTS.name in pq.read_schema(name).names for name in files)


def _file_state(path: Path | None) -> tuple[int, ...] | None:
    """Return a value that changes when the file is replaced, which gives it a new inode; None if it does not exist."""
    try:
        if path is None or not path.is_file():
            return None
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


assert set(FIELDS) <= set(SCALARS)
