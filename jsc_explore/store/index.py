"""The in-memory index: a DuckDB table with the scalars of all runs, which answers most queries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from jsc_explore.errors import StoreError
from jsc_explore.store.checks import first_line
from jsc_explore.store.parquet_reader import StaleFileError
from jsc_explore.store.sandbox import connect, limited
from jsc_explore.store.schema import COLUMNS, SCALARS

# The scalars that the files hold: those of ``schema.OPTIONAL`` may be missing in some, or in all, and are then null.
_PRESENT_SCALARS = f"COLUMNS('^({'|'.join(SCALARS)})$')"


class RunIndex:
    """The table ``runs``: the scalars of each run once, with the ``file`` that holds it and its ``row_index`` there.

    Any number of threads may query while one thread, never two, replaces files.
    """

    def __init__(self, directory: Path, snapshot: Path | None) -> None:
        self.directory = directory
        self._db = connect([directory], [] if snapshot is None else [snapshot])
        columns = ", ".join(f"{name} {_duckdb_type(name)}" for name in SCALARS)
        self._db.execute(f"CREATE TABLE runs ({columns}, file VARCHAR, row_index BIGINT)")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def replace_files(self, added: Sequence[str], removed: Sequence[str], snapshot: str) -> int:
        """Add the runs of some files and remove those of others in one transaction; return how many runs changed.

        A run of a removed file that another file or the ``snapshot`` (empty: there is none) also holds stays. Raises
        StaleFileError if a file no longer exists and StoreError if one cannot be read; nothing has changed then.
        """
        db = self._db
        db.execute("BEGIN")
        try:
            if removed:
                db.execute("CREATE TEMP TABLE lost AS SELECT run_id FROM runs WHERE list_contains(?, file)", [removed])
                db.execute("DELETE FROM runs WHERE list_contains(?, file)", [removed])
                # The snapshot may hold runs of a quarantined part too.
                added = [*added, *([snapshot] if snapshot and snapshot not in added else [])]
            changed = self._insert(added) if added else 0
            if removed:
                kept = _count(db, "SELECT count(*) FROM lost WHERE run_id IN (SELECT run_id FROM runs)")
                changed += _count(db, "SELECT count(*) FROM lost") - 2 * kept
                db.execute("DROP TABLE lost")
            db.execute("COMMIT")
        except BaseException as error:
            db.execute("ROLLBACK")
            if isinstance(error, duckdb.IOException) and any(not Path(path).exists() for path in added):
                raise StaleFileError(first_line(error)) from error
            if isinstance(error, duckdb.Error):
                raise StoreError(f"store {self.directory}: a part cannot be read ({first_line(error)})") from error
            raise
        return changed

    def read_error(self, path: str) -> str | None:
        """Return why a file cannot be read; None if it can."""
        try:
            self.query(f"SELECT any_value({_PRESENT_SCALARS}) FROM read_parquet(?, hive_partitioning = false)", [path])
        except duckdb.Error as error:
            return first_line(error)
        return None

    def _insert(self, paths: Sequence[str]) -> int:
        # The snapshot and a part may hold the same run: equal ids mean equal content, so either will do.
        inserted = self._db.execute(
            f"""
            INSERT INTO runs BY NAME SELECT {_PRESENT_SCALARS}, filename AS file, file_row_number AS row_index
            FROM read_parquet(
                ?, filename = true, file_row_number = true, hive_partitioning = false, union_by_name = true
            ) AS new
            WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = new.run_id)
            QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY filename) = 1
            """,
            [list(paths)],
        ).fetchone()
        return int(inserted[0]) if inserted else 0

    def query(self, sql: str, values: Sequence[Any], read: pa.Table | None = None) -> pa.Table:
        """Run a query over the table ``runs``, and over ``read`` where the SQL names it."""
        # A cursor is its own connection to the same database: threads do not wait for each other.
        cursor = self._db.cursor()
        try:
            if read is not None:
                cursor.register("read", read)
            with limited(cursor):
                return cursor.sql(sql, params=list(values)).to_arrow_table()
        finally:
            cursor.close()


def _count(db: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = db.execute(sql).fetchone()
    return int(row[0]) if row else 0


_DUCKDB_TYPES = {"int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE", "string": "VARCHAR", "bool": "BOOLEAN"}


def _duckdb_type(name: str) -> str:
    kind = next(column.type for column in COLUMNS if column.name == name)
    return f"{_DUCKDB_TYPES[str(kind.value_type)]}[]" if pa.types.is_list(kind) else _DUCKDB_TYPES[str(kind)]
