"""Benchmark of the store with 100,000 runs: queries, compaction, merging; one row per run against one per point."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.frame import Bound, Report, Timing, measure
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.files import sha256_of
from jsc_explore.results import CURVE_PREFIX, POINT_FIELDS
from jsc_explore.store import Store
from jsc_explore.store.catalog import Catalog, run_rows
from jsc_explore.store.compaction import ROWS_PER_PART, compact
from jsc_explore.store.merge import merge
from jsc_explore.store.parquet_writer import PartFile
from jsc_explore.store.publish import publish
from jsc_explore.store.query.curves import curve_points
from jsc_explore.store.query.grid import grid_cells
from jsc_explore.store.schema import COLUMNS, part_schema
from jsc_explore.store.verify import verify

POINTS = 60
SEEDS = 5
DIGEST = "d" * 64
_CHUNK = 10_000
_BOUNDS = {
    "list_ms": Bound(20, at_least=False),
    "curves_50_ms": Bound(30, at_least=False),
    "aggregate_10_ms": Bound(20, at_least=False),
    "open_s": Bound(1, at_least=False),
    "compaction_s": Bound(60, at_least=False),
}


def run(quick: bool) -> Report:
    """Measure queries, opening, compaction, publishing, verifying and merging of a store of many runs."""
    runs, small_parts = (10_000, 500) if quick else (100_000, 10_000)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nested, flat = directory / "nested.parquet", directory / "flat.parquet"
        _write_nested(nested, runs)
        _write_flat(nested, flat)
        _write_store(directory / "store", nested)
        store = Store(directory / "store")
        timings = _measure_queries(store) | _measure_flat_queries(flat, store)
        timings["open"] = measure(lambda: Store(directory / "store").close(), n=5)
        timings["publish"] = measure(lambda: publish(store, directory / "again.parquet"), n=1, warm_ups=0)
        timings["verify"] = measure(lambda: verify(store.catalog), n=1, warm_ups=0)
        timings["merge_same"] = measure(lambda: merge(store, nested), n=1, warm_ups=0)
        store.close()
        timings |= _small_parts(directory / "store", small_parts, first=10_000_000)
        timings |= _long_run(directory / "long")
        sizes = {"nested_mb": nested.stat().st_size / 1e6, "flat_mb": flat.stat().st_size / 1e6}
    seconds = {key: timing.median_s for key, timing in timings.items()}
    in_ms = ("list", "grid", "curves_50", "aggregate_10", "add", "add_during_compaction")
    figures = {
        **{f"{key}_ms": 1e3 * seconds[key] for key in in_ms},
        **{f"{key}_s": value for key, value in seconds.items() if key not in in_ms},
        "list_speedup_vs_point_rows": seconds["flat_list"] / seconds["list"],
        "curves_50_speedup_vs_point_rows": seconds["flat_curves_50"] / seconds["curves_50"],
        "aggregate_10_speedup_vs_point_rows": seconds["flat_aggregate_10"] / seconds["aggregate_10"],
        "size_vs_point_rows": sizes["nested_mb"] / sizes["flat_mb"],
        **sizes,
        "runs": runs,
        "points": runs * POINTS,
        "small_parts": small_parts,
    }
    rows = [
        {"query": key, "median_ms": 1e3 * t.median_s, "low_ms": 1e3 * t.low_s, "high_ms": 1e3 * t.high_s, "n": t.n}
        for key, t in timings.items()
    ]
    notes = [
        "Fifty curves of three quantities spread over all parts, different runs each time; ten configs of five seeds.",
        f"Compaction: all runs sorted again, {small_parts:,} of them from parts of one run, while runs are added.",
    ]
    return Report("store", figures, rows, _BOUNDS if not quick else {}, notes)


def _measure_queries(store: Store) -> dict[str, Timing]:
    ids = store.query("SELECT run_id FROM runs ORDER BY config_id, seed", [])["run_id"].to_pylist()
    one_config: dict[str, list[object]] = {"batch_size": [256], "learning_rate": [1e-3]}
    # Different runs at each call, so that no call is answered from memory.
    fifty: Iterator[list[str]] = (ids[first :: len(ids) // 50][:50] for first in itertools.count(1))
    ten: Iterator[list[str]] = (ids[first : first + 10 * SEEDS] for first in itertools.count(1000, 700))
    return {
        "list": measure(lambda: store.runs(one_config)),
        "grid": measure(lambda: grid_cells(store, ["batch_size", "learning_rate"], "val_acc", {})),
        "curves_50": measure(lambda: store.curves(next(fifty), ["step", "epoch", "val_acc"]), n=15),
        "aggregate_10": measure(lambda: store.grouped_curves(next(ten), "val_acc"), n=9),
    }


def _write_store(directory: Path, nested: Path) -> None:
    """Write a store as compaction leaves it: sorted parts of 4,096 runs."""
    catalog = Catalog(directory)
    names = ", ".join(part_schema().names[:-1])
    with duckdb.connect() as db:
        db.execute(f"CREATE VIEW sorted AS SELECT {names} FROM '{nested}' ORDER BY config_id, seed, run_id")
        reader = db.sql("FROM sorted").to_arrow_reader(ROWS_PER_PART)
        assert reader is not None
        for batch in reader:
            catalog.add(pa.Table.from_batches([batch]).cast(_schema()))
    catalog.close()


def _small_parts(directory: Path, count: int, first: int) -> dict[str, Timing]:
    """Measure opening with many parts of one run each, and compacting everything while runs are added."""
    table = nested_table(count + 1000, first)
    _write_small_parts(directory, table.slice(0, count))
    timings = {"open_small_parts": measure(lambda: Store(directory).close(), n=1, warm_ups=0)}
    store = Store(directory)
    new = iter(range(count, count + 1000))

    def add() -> None:
        place = next(new)
        store.add_table(table.slice(place, 1))

    timings["add"] = measure(add, n=20)
    done = threading.Event()
    ended: list[float] = []

    def compact_all() -> None:
        begin = time.perf_counter()
        compact(directory, select=lambda parts: parts)
        ended.append(time.perf_counter() - begin)
        done.set()

    worker = threading.Thread(target=compact_all)
    worker.start()
    adding = _until(done, add)
    worker.join()
    timings["compaction"] = Timing(ended[0], ended[0], ended[0], 1)
    timings["add_during_compaction"] = adding
    timings["follow_compaction"] = measure(store.refresh, n=1, warm_ups=0)
    store.close()
    return timings


def _until(done: threading.Event, call: Callable[[], None]) -> Timing:
    """Time calls, four per second, until ``done`` is set."""
    times = []
    while not done.wait(0.25):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return Timing(statistics.median(times), min(times), max(times), len(times))


def _write_small_parts(directory: Path, table: pa.Table) -> None:
    """Add parts of one run each, without the syncs, which would take minutes and are not measured here."""
    catalog = Catalog(directory)
    with catalog.transaction() as db:
        for row in range(table.num_rows):
            path = catalog.parts_directory / f"{row:032}.parquet"
            pq.write_table(table.slice(row, 1), path, compression="zstd")
            catalog.register(db, PartFile(path, 1, sha256_of(path)), run_rows(table.slice(row, 1)))
    catalog.close()


def _long_run(directory: Path) -> dict[str, Timing]:
    """Measure one run of a million points: storing it, and drawing it thinned to two thousand."""
    table = nested_table(1, 20_000_000, points=1_000_000)
    store = Store(directory)
    add = measure(lambda: store.add_table(table), n=1, warm_ups=0)
    run_ids = table["run_id"].to_pylist()
    draw = measure(lambda: curve_points(store, run_ids, "epoch", ["val_acc"], budget=2000), n=3)
    store.close()
    return {"add_1m_points": add, "draw_1m_points": draw}


def _measure_flat_queries(flat: Path, store: Store) -> dict[str, Timing]:
    """Run the same queries over one row per point in plain DuckDB."""
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


def nested_table(runs: int, first: int, points: int = POINTS) -> pa.Table:
    """Return generated runs with plausible curves, five seeds per config, whose ids follow from their columns."""
    rng = np.random.default_rng(first)
    config = (first + np.arange(runs)) // SEEDS
    defaults = RunConfig().to_dict()
    steps = np.tile(np.rint(np.geomspace(1, 31_250 * points, points)).astype(np.int64), runs)
    columns: dict[str, pa.Array] = {}
    for column in COLUMNS:
        kind = column.type
        if column.name.startswith(CURVE_PREFIX):
            offsets = pa.array(np.arange(runs + 1) * points, pa.int32())
            noisy = np.round(rng.normal(0.7, 0.05, runs * points), 6)
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
    batch, rate, epochs = 2 ** (4 + config % 7), 10.0 ** -(1 + config // 7 % 6), 1 + config // 42 % 1000
    weight_decay = config // 42_000 * 1e-6
    identities = _identities(batch, rate, epochs, weight_decay, (first + np.arange(runs)) % SEEDS)
    columns |= {
        "run_id": pa.array([run_id for run_id, _ in identities]),
        "config_id": pa.array([config_id for _, config_id in identities]),
        "data_digest": pa.array([DIGEST] * runs),
        "recipe_version": pa.array(np.full(runs, 1), pa.int32()),
        "parameters": pa.array(np.full(runs, 117)),
        "batch_size": pa.array(batch, pa.int32()),
        "learning_rate": pa.array(rate),
        "max_epochs": pa.array(epochs, pa.int32()),
        "epochs_run": pa.array(np.ones(runs), pa.int32()),
        "weight_decay": pa.array(weight_decay),
        "seed": pa.array((first + np.arange(runs)) % SEEDS, pa.int32()),
        "status": pa.array(["done"] * runs),
        "stop_reason": pa.array(["max_epochs"] * runs),
        "versions": pa.array(["{}"] * runs),
        "auc": pa.array([[0.9] * 5] * runs),
        "rejection": pa.array([[10.0] * 5] * runs),
        "confusion": pa.array([[4] * 25] * runs, pa.list_(pa.int64())),
    }
    return pa.table([columns[name] for name in _schema().names], schema=_schema())


def _identities(*fields: np.ndarray) -> list[tuple[str, str]]:
    names = ("batch_size", "learning_rate", "max_epochs", "weight_decay", "seed")
    found = []
    for values in zip(*(column.tolist() for column in fields), strict=True):
        run = RunConfig(**dict(zip(names, values, strict=True)))
        found.append((run.run_id(DIGEST), run.config_id(DIGEST)))
    return found
