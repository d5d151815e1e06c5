"""Curves ready to draw: the points of every seed along one axis, thinned if there are too many, also by config.

Computed with NumPy: live curves are drawn several times a second, and planning one SQL query takes longer than this.
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

# The one x axis that is computed, not recorded: the sum of learning rates over steps.
LR_SUM = "lr_sum"


@dataclass(frozen=True)
class CurvePoints:
    """Points of every seed and their values grouped by config, after thinning.

    ``seeds`` has ``run_id, config_id, seed, silent`` (names of silent classes), ``zero_output_share``, ``status``
    (``running`` and ``cancelled`` of live points, else that of the stored run), ``x, quantity, value``.
    ``groups`` has ``config_id, is_silent, x, quantity, values`` of all runs of a group: those of a config with a silent
    class are another group than the others, and diverged and cancelled runs are in neither. A group ends where the
    shortest of its runs ends; a running one without a point leaves none. Every ``stride``-th point was kept, of
    ``total`` rows.
    """

    seeds: pa.Table
    groups: pa.Table
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
    """Read the curves of runs along ``x`` in long format, one row per point and quantity.

    Above ``budget`` rows the points of each run are thinned by a stride, always keeping the first and the last;
    ``x_range`` selects a range of ``x`` before thinning. ``live`` holds points of runs that are not stored: columns
    ``run_id, config_id, seed, status`` and the recorded quantities, all null for a run that has no point yet. Groups
    are of the seeds of one config at one step. Raises FieldError for a quantity that is not recorded.
    """
    for name in (*quantities, *((x,) if x != LR_SUM else ())):
        if name not in POINT_FIELDS:
            raise FieldError("quantity", name, "is not recorded", "use one of " + ", ".join(POINT_FIELDS))
    names = list(dict.fromkeys(["step", "learning_rate" if x == LR_SUM else x, *quantities]))
    points = _sorted_points(_stored(store, run_ids, names), _live_points(live, names))
    xs = _learning_rate_sums(points) if x == LR_SUM else points.values[x]
    runs = _runs_by_group(points, quantities)
    if x_range:
        inside = (xs >= x_range[0]) & (xs <= x_range[1])
        points, xs = points.take(inside), xs[inside]
    total = len(xs) * len(quantities)
    stride = max(1, math.ceil(total / budget))
    index, is_last = points.index_in_run()
    kept = (index % stride == 0) | is_last
    table = _long_table(points.take(kept), xs[kept], quantities)
    seeds = table.drop_columns(["step"])
    return CurvePoints(seeds if each_seed else seeds.slice(0, 0), _groups(table, runs), stride, total)


@dataclass(frozen=True)
class _Runs:
    """Points of several runs: ``owner`` ``(n,)`` is each point's row in ``runs``, each of ``values`` is ``(n,)``."""

    runs: pa.Table
    owner: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    def take(self, rows: NDArray[Any]) -> _Runs:
        return _Runs(self.runs, self.owner[rows], {name: values[rows] for name, values in self.values.items()})

    def index_in_run(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the index of each point within its run, and whether it is the last of its run."""
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        lengths = np.diff(starts, append=len(self.owner))
        is_last = np.zeros(len(self.owner), np.bool_)
        is_last[starts + lengths - 1] = True
        return np.arange(len(self.owner)) - np.repeat(starts, lengths), is_last


_RUNS = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32()), ("silent", pa.string()),
     ("zero_output_share", pa.float64()), ("status", pa.string())]
)  # fmt: skip


def _stored(store: Store, run_ids: Sequence[str], names: Sequence[str]) -> _Runs:
    columns = [CURVE_PREFIX + name for name in names]
    scalars = ("config_id", "seed", "silent_classes", "zero_output_share", "status")
    read = store.rows(run_ids, columns, scalars=scalars)
    silent = pc.binary_join(read["silent_classes"].cast(pa.list_(pa.string())), " ")
    known = [read[name] for name in ("run_id", "config_id", "seed")]
    runs = pa.table([*known, silent, read["zero_output_share"], read["status"].cast(pa.string())], schema=_RUNS)
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
    runs = live.select(["run_id", "config_id", "seed", "status"]).take(first)
    runs = runs.append_column("silent", pa.array([""] * len(first), pa.string()))
    runs = runs.append_column("zero_output_share", pa.nulls(len(first), pa.float64()))
    return _Runs(runs.select(_RUNS.names).cast(_RUNS), owner, {name: _numbers(live[name]) for name in names})


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column as float64 with NaN for nulls."""
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _sorted_points(stored: _Runs, live: _Runs) -> _Runs:
    """Return the points of both, sorted by config, run and step."""
    runs = pa.concat_tables([stored.runs, live.runs])
    order = pc.sort_indices(runs, [("config_id", "ascending"), ("run_id", "ascending")]).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    owner = rank[np.concatenate([stored.owner, live.owner + stored.runs.num_rows])]
    values = {name: np.concatenate([stored.values[name], live.values[name]]) for name in stored.values}
    return _Runs(runs.take(order), owner, values).take(np.lexsort((values["step"], owner)))


def _learning_rate_sums(points: _Runs) -> NDArray[np.float64]:
    """Return the sum of learning rates over all steps up to each point."""
    index, _ = points.index_in_run()
    step = points.values["step"]
    # The learning rate recorded at a point is that of the steps since the previous point.
    taken = np.where(index == 0, step, np.diff(step, prepend=0.0))
    sums = np.nan_to_num(points.values["learning_rate"]) * taken
    for run in np.split(sums, np.flatnonzero(index == 0)[1:]):
        np.cumsum(run, out=run)
    return sums


def _long_table(points: _Runs, xs: NDArray[np.float64], quantities: Sequence[str]) -> pa.Table:
    """Return one row per point and known quantity, sorted by config, run, quantity and step."""
    names = sorted(set(quantities))
    values = np.concatenate([points.values[name] for name in names])
    quantity, point = np.divmod(np.arange(len(values)), max(1, len(xs)))
    known = np.flatnonzero(~np.isnan(values))
    rows = known[np.argsort(points.owner[point[known]], kind="stable")]
    point, quantity = point[rows], quantity[rows]
    table = points.runs.take(points.owner[point])
    for name, column in (
        ("step", points.values["step"][point]),
        ("x", xs[point]),
        ("quantity", pa.DictionaryArray.from_arrays(quantity.astype(np.int32), names).cast(pa.string())),
        ("value", values[rows]),
    ):
        table = table.append_column(name, pa.array(column))
    return table


_GROUP = ["config_id", "is_silent", "quantity"]


def _runs_by_group(points: _Runs, quantities: Sequence[str]) -> pa.Table:
    """Return how many runs have a value of each quantity, or will have one, by ``_GROUP``."""
    parts = []
    is_running = np.asarray(pc.equal(points.runs["status"], "running"))[points.owner]
    for name in sorted(set(quantities)):
        owners = np.unique(points.owner[is_running | ~np.isnan(points.values[name])])
        runs = _with_group(points.runs.take(owners)).select(["config_id", "is_silent"])
        parts.append(runs.append_column("quantity", pa.array([name] * runs.num_rows, pa.string())))
    return pa.concat_tables(parts).group_by(_GROUP).aggregate([([], "count_all")]).rename_columns([*_GROUP, "runs"])


def _with_group(table: pa.Table) -> pa.Table:
    """Return the rows of runs that count in a group, with ``is_silent``: whether the run has a silent class."""
    table = table.filter(pc.invert(pc.is_in(table["status"], pa.array(["diverged", "cancelled"]))))
    return table.append_column("is_silent", pc.not_equal(table["silent"], ""))


def _groups(points: pa.Table, runs: pa.Table) -> pa.Table:
    """Return the values of each group at each step that all runs of the group have reached."""
    keys = [*_GROUP, "step"]
    found = _with_group(points).group_by(keys, use_threads=False).aggregate([("x", "mean"), ("value", "list")])
    # Arrow cannot join lists: they are taken by their rows afterwards.
    lists, rows = found["value_list"], pa.array(np.arange(found.num_rows))
    found = found.set_column(found.column_names.index("value_list"), "row", rows)
    found = found.append_column("count", pc.list_value_length(lists)).join(runs, _GROUP, join_type="inner")
    # Of runs of unlike length the thinned points differ, too: the last one of each is kept, whatever its step.
    found = found.filter(pc.equal(found["count"], found["runs"])).sort_by([(key, "ascending") for key in keys])
    return pa.table(
        {
            "config_id": found["config_id"],
            "is_silent": found["is_silent"],
            "x": found["x_mean"],
            "quantity": found["quantity"],
            "values": lists.take(found["row"]),
        }
    )
