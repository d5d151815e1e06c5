"""Publish: write all runs of a store, with their provenance, to one Parquet snapshot."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore import __version__
from jsc_explore.errors import StoreError
from jsc_explore.files import atomic_write, error_reason
from jsc_explore.store.schema import COLUMNS, PROVENANCE_KEY, SCHEMA_VERSION, VERSION_KEY
from jsc_explore.store.store import Store

# Runs in memory and per row group. With smaller row groups other tools would lose more on the footer than they save.
_RUNS_PER_GROUP = 2048


def publish(store: Store, target: Path) -> int:
    """Write every run of the store, without weights, to one Parquet file, atomically; return how many.

    Runs are sorted by config and seed. The metadata hold the schema version and ``provenance``. Raises StoreError if
    the store is empty, the file cannot be written, or another file than one of published runs would be replaced.
    """
    if target.exists() and not _is_published(target):
        raise StoreError(f"{target}: exists and holds no published runs; choose another file")
    order = "SELECT run_id FROM runs ORDER BY config_id, seed, run_id"
    run_ids = store.query(order, [])["run_id"].to_pylist()
    if not run_ids:
        raise StoreError(f"store {store.directory}: holds no runs to publish; run `jsc-explore sweep GRID.toml` first")
    metadata = {VERSION_KEY: str(SCHEMA_VERSION), PROVENANCE_KEY: json.dumps(provenance(store), sort_keys=True)}
    schema = pa.schema([(column.name, column.type) for column in COLUMNS], metadata)
    try:
        with atomic_write(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for first in range(0, len(run_ids), _RUNS_PER_GROUP):
                writer.write_table(_rows(store, run_ids[first : first + _RUNS_PER_GROUP]).cast(schema))
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error_reason(error)}); the old file is untouched") from error
    return len(run_ids)


def _is_published(path: Path) -> bool:
    try:
        return VERSION_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def provenance(store: Store) -> dict[str, object]:
    """Return the provenance of a snapshot: which program wrote it and when, and the data and software of its runs.

    ``runs``, ``configs``; ``recipe_versions`` and ``data`` (digests by data set) with counts of runs; ``trained_with``:
    each combination of software versions with its count, most frequent first.
    """
    counts = store.query("SELECT count(*) AS runs, count(DISTINCT config_id) AS configs FROM runs", []).to_pylist()[0]
    groups = {
        name: store.query(
            f"SELECT {name} AS key, count(*) AS n FROM runs GROUP BY 1 ORDER BY n DESC, 1", []
        ).to_pylist()
        for name in ("recipe_version", "versions")
    }
    data = store.query("SELECT dataset, data_digest, count(*) AS n FROM runs GROUP BY 1, 2 ORDER BY 1, 2", [])
    digests: dict[str, dict[str, int]] = {}
    for row in data.to_pylist():
        digests.setdefault(row["dataset"], {})[row["data_digest"]] = row["n"]
    return {
        "written_by": f"jsc-explore {__version__}",
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **counts,
        "recipe_versions": {str(row["key"]): row["n"] for row in groups["recipe_version"]},
        "data": digests,
        "trained_with": [{**json.loads(row["key"]), "runs": row["n"]} for row in groups["versions"]],
    }


def _rows(store: Store, run_ids: list[str]) -> pa.Table:
    """Return all columns of these runs, in the order of the ids."""
    names = [column.name for column in COLUMNS if column.name != "run_id"]
    table = store.rows(run_ids, names)
    row_of = {run_id: row for row, run_id in enumerate(table["run_id"].to_pylist())}
    return table.take(pa.array([row_of[run_id] for run_id in run_ids])).select([column.name for column in COLUMNS])
