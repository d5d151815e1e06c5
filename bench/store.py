"""How fast the store answers: one row a run with nested curves, against one row a point, and many small parts."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.frame import Report, Timing, measure
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.record import POINT_FIELDS
from jsc_explore.store import Store
from jsc_explore.store.publish import publish
from jsc_explore.store.schema import COLUMNS, CURVE_PREFIX, part_schema
from jsc_explore.store.slices import grid_cells

POINTS = 60
SEEDS = 5
_CHUNK = 10_000


def run(quick: bool) -> Report:
    """Measure list, curves, aggregate and grid over one file of runs, the opening of many parts, and publishing."""
    runs, small_parts = (10_000, 200) if quick else (100_000, 1_000)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nested, flat = directory / "nested.parquet", directory / "flat.parquet"
        _write_nested(nested, runs)
        _write_flat(nested, flat)
        store = Store(directory / "store", nested)
        timings = _questions(store) | _flat_questions(flat, store)
        timings["open_store"] = measure(lambda: Store(directory / "store", nested).close(), n=5)
        timings["open_small_parts"] = _small_parts(directory / "parts", small_parts)
        timings["publish"] = measure(lambda: publish(store, directory / "again.parquet"), n=2, warm_ups=0)
        store.close()
        sizes = {"nested_mb": nested.stat().st_size / 1e6, "flat_mb": flat.stat().st_size / 1e6}
    seconds = {key: timing.median_s for key, timing in timings.items()}
    figures = {
        "list_speedup_vs_point_rows": seconds["flat_list"] / seconds["list"],
        "curves_50_speedup_vs_point_rows": seconds["flat_curves_50"] / seconds["curves_50"],
        "aggregate_10_speedup_vs_point_rows": seconds["flat_aggregate_10"] / seconds["aggregate_10"],
        "size_vs_point_rows": sizes["nested_mb"] / sizes["flat_mb"],
        **{f"{key}_s": value for key, value in seconds.items()},
        **sizes,
        "runs": runs,
        "points": runs * POINTS,
        "small_parts": small_parts,
    }
    rows = [
        {"question": key, "median_ms": 1e3 * t.median_s, "low_ms": 1e3 * t.low_s, "high_ms": 1e3 * t.high_s, "n": t.n}
        for key, t in timings.items()
    ]
    return Report("store", figures, rows)


def _questions(store: Store) -> dict[str, Timing]:
    ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
    one_config: dict[str, list[object]] = {"batch_size": [256], "learning_rate": [1e-3]}
    fifty, ten_configs = ids[:: len(ids) // 50][:50], ids[1000 : 1000 + 10 * SEEDS]
    return {
        "list": measure(lambda: store.runs(one_config)),
        "grid": measure(lambda: grid_cells(store, ["batch_size", "learning_rate"], "val_acc", {"optimizer": ["adam"]})),
        "curves_50": measure(lambda: store.curves(fifty, ["step", "epoch", "val_acc"])),
        "aggregate_10": measure(lambda: store.mean_curves(ten_configs, "val_acc")),
    }


def _flat_questions(flat: Path, store: Store) -> dict[str, Timing]:
    """Ask the same of one row a point, in plain DuckDB."""
    ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
    fifty, fields = ids[:: len(ids) // 50][:50], ", ".join(FIELDS)
    ten_configs = store.runs({"run_id": ids[1000 : 1000 + 10 * SEEDS]}, ["config_id"])["config_id"].to_pylist()
    db = duckdb.connect(":memory:")
    source = f"read_parquet('{flat}')"

    def ask(text: str, *values: object) -> object:
        return db.sql(text, params=list(values)).to_arrow_table()

    where = "batch_size = 256 AND learning_rate = 1e-3"
    return {
        "flat_list": measure(lambda: ask(f"SELECT DISTINCT run_id, {fields} FROM {source} WHERE {where}")),
        "flat_curves_50": measure(
            lambda: ask(f"SELECT run_id, step, epoch, val_acc FROM {source} WHERE list_contains(?, run_id)", fifty)
        ),
        "flat_aggregate_10": measure(
            lambda: ask(
                f"SELECT config_id, step, avg(val_acc), stddev_samp(val_acc), count(*) FROM {source} "
                "WHERE list_contains(?, config_id) GROUP BY ALL",
                ten_configs,
            )
        ),
    }


def _small_parts(directory: Path, count: int) -> Timing:
    store = Store(directory)
    table = nested_table(count, first=10_000_000)
    for row in range(count):
        store.catalog.add(table.slice(row, 1))
    store.close()
    return measure(lambda: Store(directory).close(), n=3)


def _write_nested(path: Path, runs: int) -> None:
    with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
        for first in range(0, runs, _CHUNK):
            writer.write_table(nested_table(min(_CHUNK, runs - first), first), row_group_size=2048)


def _write_flat(nested: Path, flat: Path) -> None:
    scalars = ", ".join(["run_id", "config_id", *FIELDS])
    curves = ", ".join(f"unnest({CURVE_PREFIX}{name}) AS {name}" for name in POINT_FIELDS)
    curves = curves.replace(" AS learning_rate", " AS point_learning_rate")
    duckdb.sql(
        f"COPY (SELECT {scalars}, {curves} FROM read_parquet('{nested}')) TO '{flat}' "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
    )


def _schema() -> pa.Schema:
    return pa.schema([part_schema().field(column.name) for column in COLUMNS], part_schema().metadata)


def nested_table(runs: int, first: int) -> pa.Table:
    """Return made-up runs with plausible curves: sorted by config, five seeds each."""
    rng = np.random.default_rng(first)
    config = (first + np.arange(runs)) // SEEDS
    defaults = RunConfig().to_dict()
    steps = np.tile(np.rint(np.geomspace(1, 31_250, POINTS)).astype(np.int64), runs)
    columns: dict[str, pa.Array] = {}
    for column in COLUMNS:
        kind = column.type
        if column.name.startswith(CURVE_PREFIX):
            offsets = pa.array(np.arange(runs + 1) * POINTS, pa.int32())
            noisy = np.round(rng.normal(0.7, 0.05, runs * POINTS), 6)
            values = steps if pa.types.is_integer(kind.value_type) else noisy
            columns[column.name] = pa.ListArray.from_arrays(offsets, pa.array(values, kind.value_type))
        elif pa.types.is_list(kind):
            columns[column.name] = pa.array([[]] * runs, kind)
        elif pa.types.is_floating(kind):
            columns[column.name] = pa.array(rng.normal(0.7, 0.05, runs), kind)
        elif pa.types.is_integer(kind):
            columns[column.name] = pa.array(np.full(runs, 10), kind)
        elif column.name in defaults:
            columns[column.name] = pa.array([defaults[column.name]] * runs, kind)
        else:
            columns[column.name] = pa.array([""] * runs, kind)
    batch, rate = 2 ** (4 + config % 7), 10.0 ** -(1 + config // 7 % 6)
    columns |= {
        "run_id": pa.array([uuid.UUID(int=first + i).hex for i in range(runs)]),
        "config_id": pa.array([uuid.UUID(int=int(c)).hex for c in config]),
        "batch_size": pa.array(batch, pa.int32()),
        "learning_rate": pa.array(rate),
        "seed": pa.array(np.arange(runs) % SEEDS, pa.int32()),
        "status": pa.array(["done"] * runs),
        "versions": pa.array(["{}"] * runs),
    }
    return pa.table([columns[name] for name in _schema().names], schema=_schema())
