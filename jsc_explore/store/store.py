"""The store as its readers see it: DuckDB in memory over the published snapshot and the local parts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.config import FIELDS, check_field
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.record import POINT_FIELDS, RunRecord
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.locked import connect, limited
from jsc_explore.store.schema import COLUMNS, CURVE_PREFIX, SCALARS, WEIGHTS, from_row, schema_problem, to_table
from jsc_explore.store.slices import Filters, condition


class Store:
    """Runs and curves of one store directory, beneath them the read-only ``snapshot``.

    The scalars of all runs lie in memory; curves are read from the files that hold them. Each method may be called
    from any thread. ``refresh`` takes in what was added since; queries never do so by themselves.
    ``problems`` lists, one line each, files that were passed over because they cannot be read.
    """

    def __init__(self, directory: Path, snapshot: Path | None = None) -> None:
        self.directory = Path(directory)
        self.catalog = Catalog(self.directory)
        self.problems: list[str] = []
        self.version = 0
        self._seen = 0
        self._lock = threading.RLock()
        self._db = connect([self.directory], [Path(snapshot)] if snapshot is not None else [])
        columns = ", ".join(f"{name} {_duck_type(name)}" for name in SCALARS)
        self._db.execute(f"CREATE TABLE runs ({columns}, file VARCHAR)")
        if snapshot is not None and Path(snapshot).exists():
            self._ingest([Path(snapshot)])
        self.refresh()

    def close(self) -> None:
        """Close catalogue and database."""
        self._db.close()
        self.catalog.close()

    def refresh(self) -> bool:
        """Take in the parts added since; return whether any run is new."""
        with self._lock:
            parts = self.catalog.parts(after=self._seen)
            if not parts:
                return False
            before = self.version
            self._ingest([self.catalog.path(part) for part in parts])
            self._seen = parts[-1].seq
            return self.version != before

    def add(self, record: RunRecord) -> None:
        """Store a finished run durably; a run that is there already is left as it is. StoreError: nothing changed."""
        with self._lock:
            if not self.existing([record.run_id]):
                self.catalog.add(to_table(record))
                self.refresh()

    def existing(self, run_ids: Iterable[str]) -> set[str]:
        """Return which of these runs are stored."""
        ids = list(run_ids)
        found = self.query("SELECT run_id FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [ids])
        return set(found["run_id"].to_pylist())

    def runs(self, filters: Filters | None = None, columns: Sequence[str] = SCALARS) -> pa.Table:
        """Return scalars of the runs whose fields have one of the given values, ordered by config and seed."""
        where, values = condition(filters or {})
        chosen = ", ".join(_known(columns))
        return self.query(f"SELECT {chosen} FROM runs WHERE {where} ORDER BY config_id, seed", values)

    def values(self, field: str, filters: Filters | None = None) -> pa.Table:
        """Return the values a field takes among the runs, with the count of runs: columns ``value`` and ``n``."""
        check_field(field)
        where, values = condition(filters or {})
        return self.query(
            f"SELECT {field} AS value, count(*) AS n FROM runs WHERE {where} GROUP BY ALL ORDER BY ALL", values
        )

    def grid(self, x: str, y: str, score: str, filters: Filters | None = None) -> pa.Table:
        """Return one row a config: its values of the fields ``x`` and ``y``, and over its seeds the mean, standard
        deviation, least and greatest ``score``, counts ``n``, ``n_diverged``, ``n_dead``, and lists of seeds.
        """
        for field in (x, y):
            check_field(field)
        where, values = condition(filters or {})
        return self.query(
            f"""
            SELECT {x} AS x, {y} AS y, config_id, avg({_score(score)}) AS mean, stddev_samp({score}) AS sd,
                   min({score}) AS low, max({score}) AS high, count(*) AS n,
                   count(*) FILTER (WHERE status = 'diverged') AS n_diverged,
                   count(*) FILTER (WHERE len(dead_classes) > 0) AS n_dead,
                   list(seed ORDER BY seed) AS seeds
            FROM runs WHERE {where} GROUP BY ALL ORDER BY ALL
            """,
            values,
        )

    def select(self, text: str, filters: Filters | None = None) -> pa.Table:
        """Run a SELECT of this room over ``chosen``, the scalars of the runs whose fields have one of these values."""
        where, values = condition(filters or {})
        return self.query(f"WITH chosen AS (SELECT * FROM runs WHERE {where}) {text}", values)

    def curves(self, run_ids: Sequence[str], quantities: Sequence[str] = tuple(POINT_FIELDS)) -> pa.Table:
        """Return one row a point of the chosen runs: ``run_id``, ``config_id``, ``seed``, ``dead`` and quantities."""
        columns = ", ".join(f"unnest({CURVE_PREFIX}{name}) AS {name}" for name in _quantities(quantities))
        return self.over_files(
            run_ids,
            f"SELECT run_id, config_id, seed, len(dead_classes) > 0 AS dead, {columns} FROM source ORDER BY ALL",
        )

    def mean_curves(self, run_ids: Sequence[str], quantity: str, live: pa.Table | None = None) -> pa.Table:
        """Return mean and spread of a quantity over the chosen runs of each config, per step.

        Columns ``config_id, step, epoch, samples, time_s, mean, sd, low, high, n``; ``sd`` is null for one seed.
        ``live`` adds points of runs that are not stored yet, as a table with the columns of ``curves``.
        """
        (name,) = _quantities([quantity])
        axes = ("step", "epoch", "samples", "time_s")
        points = ", ".join(
            f"unnest({CURVE_PREFIX}{column}) AS {alias}"
            for column, alias in (*zip(axes, axes, strict=True), (name, "value"))
        )
        growing = ""
        if live is not None and live.num_rows:
            growing = f"UNION ALL SELECT config_id, {', '.join(axes)}, {name} AS value FROM live"
        return self.over_files(
            run_ids,
            f"""
            SELECT config_id, step, avg(epoch) AS epoch, avg(samples) AS samples, avg(time_s) AS time_s,
                   avg(value) AS mean, stddev_samp(value) AS sd, min(value) AS low, max(value) AS high,
                   count(value) AS n
            FROM (SELECT config_id, {points} FROM source {growing}) WHERE value IS NOT NULL
            GROUP BY config_id, step ORDER BY config_id, step
            """,
            live if growing else None,
        )

    def record(self, run_id: str, *, weights: bool = False) -> RunRecord | None:
        """Return one run whole, or None; ``weights`` reads them too, where the file has them."""
        columns = ", ".join(column.name for column in COLUMNS)
        files = self._files([run_id])
        if not files:
            return None
        has_weights = weights and WEIGHTS.name in pq.read_schema(files[0]).names
        extra = f", {WEIGHTS.name}" if has_weights else ""
        table = self.query(f"SELECT {columns}{extra} FROM read_parquet(?) WHERE run_id = ?", [files[:1], run_id])
        return from_row(table.to_pylist()[0])

    def find(self, prefix: str) -> list[str]:
        """Return the ids of runs that begin with these characters, at most ten."""
        found = self.query("SELECT run_id FROM runs WHERE starts_with(run_id, ?) ORDER BY run_id LIMIT 10", [prefix])
        return [str(run_id) for run_id in found["run_id"].to_pylist()]

    def files(self) -> list[str]:
        """Return every file that holds runs."""
        return [
            str(name) for name in self.query("SELECT DISTINCT file FROM runs ORDER BY file", [])["file"].to_pylist()
        ]

    def _ingest(self, paths: Sequence[Path]) -> None:
        readable = [str(path) for path in paths if self._is_readable(path)]
        if not readable:
            return
        columns = ", ".join(SCALARS)
        # The same run may lie in the snapshot and in a part: identical by identity, so either will do.
        try:
            added = self._db.execute(
                f"""
                INSERT INTO runs SELECT {columns}, filename FROM read_parquet(?, filename = true) AS new
                WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = new.run_id)
                QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY filename) = 1
                """,
                [readable],
            ).fetchone()
        except duckdb.Error as error:
            if len(readable) > 1:
                # One of them is to blame; the others are read without it.
                for path in readable:
                    self._ingest([Path(path)])
                return
            what = str(error).splitlines()[0][:80]
            self.problems.append(f"{readable[0]}: is damaged ({what}); it is left out, run `jsc-explore verify`")
            return
        self.version += int(added[0]) if added else 0

    def _is_readable(self, path: Path) -> bool:
        try:
            problem = schema_problem(pq.read_schema(path))
        except (OSError, pa.ArrowException) as error:
            problem = f"cannot be read as Parquet ({str(error).splitlines()[0][:80]})"
        if problem is None:
            return True
        self.problems.append(f"{path}: {problem}; it is left out, run `jsc-explore verify`")
        return False

    def _files(self, run_ids: Sequence[str]) -> list[str]:
        if not run_ids:
            return []
        found = self.query(
            "SELECT DISTINCT file FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [list(run_ids)]
        )
        return [str(name) for name in found["file"].to_pylist()]

    def over_files(
        self, run_ids: Sequence[str], select: str, live: pa.Table | None = None, more: Sequence[Any] = ()
    ) -> pa.Table:
        """Run a SELECT, for use within this room, over ``source``, the stored rows of these runs, and ``live``.

        The text may begin with further CTEs, after a comma; ``more`` are its parameters.
        """
        files = self._files(run_ids)
        # A run may lie in several of these files; only its row in the file that it was taken in from counts.
        source = """
            SELECT src.* EXCLUDE (filename) FROM read_parquet(?, filename = true, union_by_name = true) AS src
            JOIN runs ON runs.run_id = src.run_id AND runs.file = src.filename
            WHERE src.run_id IN (SELECT unnest(?::VARCHAR[]))
        """
        values: list[Any] = [files, list(run_ids)]
        if not files:
            source, values = f"SELECT {_EMPTY}", []
        return self.query(f"WITH source AS ({source}) {select}", [*values, *more], live)

    def query(self, text: str, values: Sequence[Any], live: pa.Table | None = None) -> pa.Table:
        """Ask the table ``runs``, for use within this room; ``live`` is a table that the text may name.

        StoreError if a part cannot be read.
        """
        # A cursor is a connection of its own to the same database: threads do not wait for each other.
        cursor = self._db.cursor()
        try:
            if live is not None:
                cursor.register("live", live)
            with limited(cursor):
                return cursor.sql(text, params=list(values)).to_arrow_table()
        except duckdb.Error as error:
            # A damaged file shows itself in many ways; what is wrong with the question itself is a fault of this room.
            if isinstance(error, duckdb.ProgrammingError) and not isinstance(error, duckdb.InvalidInputException):
                raise
            what = str(error).splitlines()[0]
            raise StoreError(
                f"store {self.directory}: a part cannot be read ({what}); run `jsc-explore verify`"
            ) from error
        finally:
            cursor.close()


def _known(columns: Sequence[str]) -> list[str]:
    for name in columns:
        if name not in SCALARS:
            raise FieldError("column", name, "is no column of a run", "see docs/results.md")
    return list(columns)


def _score(name: str) -> str:
    return _known([name])[0]


def _quantities(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in POINT_FIELDS:
            raise FieldError("quantity", name, "is not recorded", "choose among " + ", ".join(POINT_FIELDS))
    return list(names)


_DUCK = {
    "int32": "INTEGER",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
}


def _duck_type(name: str) -> str:
    kind = next(column.type for column in COLUMNS if column.name == name)
    return f"{_DUCK[str(kind.value_type)]}[]" if pa.types.is_list(kind) else _DUCK[str(kind)]


_EMPTY = ", ".join(f"NULL::{_duck_type(column.name)} AS {column.name}" for column in COLUMNS) + " WHERE false"
assert set(FIELDS) <= set(SCALARS)
