"""The points of curves as they are drawn: of every seed along one axis, thinned where they are too many, and means.

Counted by NumPy: what grows is drawn several times a second, and planning one query takes longer than all of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jsc_explore.errors import FieldError, StoreError
from jsc_explore.results import CURVE_PREFIX, POINT_FIELDS

if TYPE_CHECKING:
    from jsc_explore.store.store import Store

# What a curve may be drawn along; the last is made from the others.
LR_SUM = "lr_sum"


@dataclass(frozen=True)
class CurvePoints:
    """What is drawn of some runs: points of every seed, means over seeds, and how far they were thinned.

    ``seeds`` has ``run_id, config_id, seed, silent`` (names of silent classes), ``x, quantity, value``; ``means`` has
    ``config_id, x, quantity, mean, sd, low, high, n``. Of every ``stride`` points one is there, of ``total`` rows.
    """

    seeds: pa.Table
    means: pa.Table
    stride: int
    total: int


def curve_points(
    store: Store,
    run_ids: Sequence[str],
    x: str,
    quantities: Sequence[str],
    *,
    budget: int,
    x_range: tuple[float, float] | None = None,
    live: pa.Table | None = None,
    each_seed: bool = True,
) -> CurvePoints:
    """Read the curves of runs along ``x``, all quantities in one column.

    Above ``budget`` rows each run keeps every n-th point, always its first and last; ``x_range``
    keeps what lies within a range of ``x`` and so brings the others back. ``live`` are points of runs not stored yet:
    columns ``run_id, config_id, seed, silent_classes`` and the recorded quantities. A mean is over the seeds of one
    config at one step: other configs never enter it. Raises FieldError for what is not recorded.
    """
    for name in (*quantities, *((x,) if x != LR_SUM else ())):
        if name not in POINT_FIELDS:
            raise FieldError("quantity", name, "is not recorded", "choose among " + ", ".join(POINT_FIELDS))
    names = list(dict.fromkeys(["step", "learning_rate" if x == LR_SUM else x, *quantities]))
    points = _ordered(_stored(store, run_ids, names), _live_points(live, names))
    along = _learning_rate_sums(points) if x == LR_SUM else points.values[x]
    if x_range:
        within = (along >= x_range[0]) & (along <= x_range[1])
        points, along = points.take(within), along[within]
    total = len(along) * len(quantities)
    stride = max(1, math.ceil(total / budget))
    place, last = points.places()
    kept = (place % stride == 0) | last
    table = _long_table(points.take(kept), along[kept], quantities)
    seeds = table.drop_columns(["step"])
    return CurvePoints(seeds if each_seed else seeds.slice(0, 0), _means(table), stride, total)


@dataclass(frozen=True)
class _Runs:
    """Points of runs, one after the other: ``owner (n,)`` is the row in ``runs`` of each, ``values`` are ``(n,)``."""

    runs: pa.Table
    owner: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    def take(self, rows: NDArray[Any]) -> _Runs:
        return _Runs(self.runs, self.owner[rows], {name: values[rows] for name, values in self.values.items()})

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the place of each point within its run, and whether it is the run's last."""
        begins = np.flatnonzero(np.diff(self.owner, prepend=-1))
        lengths = np.diff(begins, append=len(self.owner))
        last = np.zeros(len(self.owner), np.bool_)
        last[begins + lengths - 1] = True
        return np.arange(len(self.owner)) - np.repeat(begins, lengths), last


_RUNS = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32()), ("silent", pa.string())]
)  # fmt: skip


def _stored(store: Store, run_ids: Sequence[str], names: Sequence[str]) -> _Runs:
    columns = [CURVE_PREFIX + name for name in names]
    read = store.rows(run_ids, columns, scalars=("config_id", "seed", "silent_classes"))
    silent = pc.binary_join(read["silent_classes"].cast(pa.list_(pa.string())), " ")
    runs = pa.table([read["run_id"], read["config_id"], read["seed"], silent], schema=_RUNS)
    lengths = pc.list_value_length(read[columns[0]]).to_numpy()
    values = {name: _numbers(pc.list_flatten(read[column])) for name, column in zip(names, columns, strict=True)}
    if any(len(column) != lengths.sum() for column in values.values()):
        raise StoreError(f"store {store.directory}: a run's curves have different lengths; run `jsc-explore verify`")
    return _Runs(runs, np.repeat(np.arange(len(lengths)), lengths), values)


def _live_points(live: pa.Table | None, names: Sequence[str]) -> _Runs:
    if live is None or not live.num_rows:
        return _Runs(_RUNS.empty_table(), np.empty(0, np.int64), {name: np.empty(0) for name in names})
    found = live["run_id"].combine_chunks().dictionary_encode()
    owner = found.indices.to_numpy().astype(np.int64)
    first = np.unique(owner, return_index=True)[1]
    runs = live.select(["run_id", "config_id", "seed"]).take(first)
    runs = runs.append_column("silent", pa.array([""] * len(first), pa.string()))
    return _Runs(runs.cast(_RUNS), owner, {name: _numbers(live[name]) for name in names})


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column as float64; what is not known is not a number."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _ordered(stored: _Runs, growing: _Runs) -> _Runs:
    """Return the points of both, by config, run and step."""
    runs = pa.concat_tables([stored.runs, growing.runs])
    order = pc.sort_indices(runs, [("config_id", "ascending"), ("run_id", "ascending")]).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    owner = rank[np.concatenate([stored.owner, growing.owner + stored.runs.num_rows])]
    values = {name: np.concatenate([stored.values[name], growing.values[name]]) for name in stored.values}
    return _Runs(runs.take(order), owner, values).take(np.lexsort((values["step"], owner)))


def _learning_rate_sums(points: _Runs) -> NDArray[np.float64]:
    """Return the sum of learning rates over the steps up to each point."""
    place, _ = points.places()
    step = points.values["step"]
    # The rate recorded at a point is that of the steps since the point before it.
    taken = np.where(place == 0, step, np.diff(step, prepend=0.0))
    sums = np.nan_to_num(points.values["learning_rate"]) * taken
    for run in np.split(sums, np.flatnonzero(place == 0)[1:]):
        np.cumsum(run, out=run)
    return sums


def _long_table(points: _Runs, along: NDArray[np.float64], quantities: Sequence[str]) -> pa.Table:
    """Return one row a point and quantity that is known, ordered by config, run, quantity and step."""
    names = sorted(set(quantities))
    values = np.concatenate([points.values[name] for name in names])
    quantity, point = np.divmod(np.arange(len(values)), max(1, len(along)))
    known = np.flatnonzero(~np.isnan(values))
    rows = known[np.argsort(points.owner[point[known]], kind="stable")]
    point, quantity = point[rows], quantity[rows]
    table = points.runs.take(points.owner[point])
    for name, column in (
        ("step", points.values["step"][point]),
        ("x", along[point]),
        ("quantity", pa.DictionaryArray.from_arrays(quantity.astype(np.int32), names).cast(pa.string())),
        ("value", values[rows]),
    ):
        table = table.append_column(name, pa.array(column))
    return table


def _means(points: pa.Table) -> pa.Table:
    """Return the mean over seeds, with its spread, of each config, quantity and step."""
    keys = ["config_id", "quantity", "step"]
    spread = pc.VarianceOptions(ddof=1)
    found = points.group_by(keys, use_threads=False).aggregate(
        [("x", "mean"), ("value", "stddev", spread), *(("value", name) for name in ("mean", "min", "max", "count"))]
    )
    found = found.sort_by([(key, "ascending") for key in keys])
    return pa.table(
        {
            "config_id": found["config_id"],
            "x": found["x_mean"],
            "quantity": found["quantity"],
            "mean": found["value_mean"],
            "sd": found["value_stddev"],
            "low": found["value_min"],
            "high": found["value_max"],
            "n": found["value_count"],
        }
    )
