"""Publish and verify: the snapshot people open, and the proof that what lies on the disk is what was written."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore import __version__
from jsc_explore.errors import StoreError
from jsc_explore.store.schema import COLUMNS, PROVENANCE_KEY, SCHEMA_VERSION, VERSION_KEY, schema_problem
from jsc_explore.store.store import Store, whole


def publish(store: Store, target: Path) -> int:
    """Write every run of the store, without weights, to one Parquet file; return how many.

    The file is whole or as it was before. Runs are sorted by config and seed. StoreError if it cannot be written.
    """
    files = store.files()
    if not files:
        raise StoreError(f"store {store.directory}: holds no runs to publish; run `jsc-explore fill GRID.toml` first")
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    columns = ", ".join(column.name for column in COLUMNS)
    try:
        with duckdb.connect(":memory:") as db:
            query = f"""
                COPY (SELECT DISTINCT ON (config_id, seed, run_id) {columns}
                      FROM ({whole(f"read_parquet({_literals(files)}, union_by_name = true)")})
                      ORDER BY config_id, seed, run_id)
                TO {_literal(str(partial))} (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2,
                  ROW_GROUP_SIZE 2048, KV_METADATA {{
                    '{VERSION_KEY.decode()}': '{SCHEMA_VERSION}',
                    '{PROVENANCE_KEY.decode()}': {_literal(_provenance())} }})
            """
            count = db.execute(query).fetchone()
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except (OSError, duckdb.Error) as error:
        partial.unlink(missing_ok=True)
        raise StoreError(
            f"{target}: cannot be written ({str(error).splitlines()[0]}); the old file is untouched"
        ) from error
    return int(count[0]) if count else 0


def verify(store: Store, snapshot: Path | None = None) -> list[str]:
    """Check every part against its checksum, its schema and its count of runs; return one line a fault."""
    faults = []
    for part in store.catalog.parts():
        path = store.catalog.path(part)
        if not path.exists():
            faults.append(f"{path}: is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256:
            faults.append(f"{path}: its checksum is not the recorded one")
        elif problem := _problem(path, part.rows):
            faults.append(f"{path}: {problem}")
    if snapshot is not None and snapshot.exists() and (problem := _problem(snapshot, None)):
        faults.append(f"{snapshot}: {problem}")
    return faults


def _problem(path: Path, rows: int | None) -> str | None:
    try:
        file = pq.ParquetFile(path)
        if problem := schema_problem(file.schema_arrow):
            return problem
        for group in range(file.num_row_groups):
            file.read_row_group(group)
        if rows is not None and file.metadata.num_rows != rows:
            return f"holds {file.metadata.num_rows} runs, {rows} are recorded"
    except (OSError, pa.ArrowException) as error:
        return f"cannot be read ({str(error).splitlines()[0][:80]})"
    return None


def _provenance() -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"written_by": f"jsc-explore {__version__}", "written_at": now})


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literals(texts: list[str]) -> str:
    return "[" + ", ".join(_literal(text) for text in texts) + "]"
