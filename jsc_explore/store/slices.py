"""Slices of the store: conditions on hyperparameters and text, cells of a grid, counts, the points of its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.config import FIELDS, check_field
from jsc_explore.errors import FieldError
from jsc_explore.record import POINT_FIELDS
from jsc_explore.store.schema import CURVE_PREFIX, SCALARS
from jsc_explore.store.where import read_filter

if TYPE_CHECKING:
    from jsc_explore.store.store import Store

# What a curve may be drawn along; the last is made from the others.
LR_SUM = "lr_sum"
PROGRESS_FIELDS = ("epoch", "step", "samples", "time_s", LR_SUM)


@dataclass(frozen=True)
class Between:
    """A range of a number, both ends included."""

    low: float
    high: float


Filters = Mapping[str, Sequence[Any] | Between]


def condition(filters: Filters, text: str = "") -> tuple[str, list[Any]]:
    """Return a WHERE condition and its parameters: every filter holds, and the text filter where one is given.

    A momentum is asked of sgd alone: for other optimizers it has no effect and is not part of a run's identity.
    Raises FieldError for a name that is no column, FilterError for a bad text.
    """
    clauses, values = [], []
    for name, allowed in filters.items():
        if name not in SCALARS:
            check_field(name)
        if isinstance(allowed, Between):
            clause = f"{name} BETWEEN ? AND ?"
            given: list[Any] = [allowed.low, allowed.high]
        else:
            clause, given = f"list_contains(?, {name})", [list(allowed)]
        clauses.append(f"({clause} OR optimizer <> 'sgd')" if name == "momentum" else clause)
        values += given
    if text.strip():
        clause, more = read_filter(text)
        clauses.append(clause)
        values += more
    return " AND ".join(clauses) or "true", values


def grid_cells(store: Store, axes: Sequence[str], score: str, filters: Filters, text: str = "") -> pa.Table:
    """Return one row a cell of a grid over the fields ``axes``, columns named by them.

    Over the runs of a cell that pass: mean, standard deviation, least and greatest ``score``, counts ``n``,
    ``n_configs``, ``n_dead``, ``n_diverged``; ``n_hidden`` counts those that the text filter alone leaves out.
    """
    for name in axes:
        check_field(name)
    if score not in SCALARS:
        raise FieldError("score", score, "is no column of a run", "see docs/results.md")
    where, values = condition(filters)
    passing, more = condition({}, text)
    names = ", ".join(dict.fromkeys(axes))
    return store.query(
        f"""
        SELECT {names}, avg({score}) FILTER (passing) AS mean, stddev_samp({score}) FILTER (passing) AS sd,
               min({score}) FILTER (passing) AS low, max({score}) FILTER (passing) AS high,
               count(*) FILTER (passing) AS n, count(*) FILTER (NOT passing) AS n_hidden,
               count(DISTINCT config_id) FILTER (passing) AS n_configs,
               count(*) FILTER (passing AND status = 'diverged') AS n_diverged,
               count(*) FILTER (passing AND len(dead_classes) > 0) AS n_dead
        FROM (SELECT *, coalesce({passing}, false) AS passing FROM runs WHERE {where}) GROUP BY {names}
        """,
        [*more, *values],
    )


def configs(store: Store, filters: Filters, text: str = "", limit: int = 1_000_000) -> tuple[pa.Table, int]:
    """Return one row a config whose runs pass, every field with ``config_id``, ``n``, ``n_dead``; and how many pass.

    No more than ``limit`` rows come back.
    """
    where, values = condition(filters, text)
    fields = ", ".join(f"any_value({name}) AS {name}" for name in FIELDS if name != "seed")
    table = store.query(
        f"""
        SELECT config_id, count(*) AS n, count(*) FILTER (WHERE len(dead_classes) > 0) AS n_dead, {fields},
               count(*) OVER () AS total
        FROM runs WHERE {where} GROUP BY config_id ORDER BY config_id LIMIT {int(limit)}
        """,
        values,
    )
    return table.drop_columns(["total"]), table["total"][0].as_py() if table.num_rows else 0


def seeds_of(store: Store, config_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return the stored seeds of each of these configs, whatever the filters say."""
    table = store.query(
        "SELECT config_id, list(seed ORDER BY seed) AS seeds FROM runs "
        "WHERE config_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY config_id",
        [list(config_ids)],
    )
    return dict(zip(table["config_id"].to_pylist(), table["seeds"].to_pylist(), strict=True))


def count_choices(store: Store, filters: Filters, text: str = "") -> dict[str, dict[Any, int]]:
    """Return, for every field but the seed, its stored values with the count of runs that the *other* filters let pass.

    What is stored but passes nowhere stands there with a count of zero.
    """
    names = [name for name in FIELDS if name != "seed"]
    # One query for all fields, whose figures NumPy counts in a third of the time that DuckDB's grouping sets take.
    # Fields without a filter of their own are counted under the same condition.
    conditions = {name: condition({one: filters[one] for one in filters if one != name}, text) for name in names}
    flags = list(dict.fromkeys(where for where, _ in conditions.values()))
    values = [value for flag in flags for value in next(more for where, more in conditions.values() if where == flag)]
    passes = ", ".join(f"coalesce({flag}, false) AS pass_{i}" for i, flag in enumerate(flags))
    table = store.query(f"SELECT {', '.join(names)}, {passes} FROM runs", values)
    passing = [table[f"pass_{i}"].to_numpy() for i in range(len(flags))]
    counts: dict[str, dict[Any, int]] = {}
    for name in names:
        found = table[name].combine_chunks().dictionary_encode(null_encoding="encode")
        own = found.indices.to_numpy()[passing[flags.index(conditions[name][0])]]
        order = pc.array_sort_indices(found.dictionary).to_numpy()
        number = np.bincount(own, minlength=len(order))[order]
        counts[name] = dict(zip(found.dictionary.take(order).to_pylist(), number.tolist(), strict=True))
    return counts


def run_ids(store: Store, filters: Filters, text: str = "") -> list[str]:
    """Return the runs that pass, ordered by config and seed."""
    where, values = condition(filters, text)
    found = store.query(f"SELECT run_id FROM runs WHERE {where} ORDER BY config_id, seed", values)
    return [str(run_id) for run_id in found["run_id"].to_pylist()]


def timings(store: Store) -> pa.Table:
    """Return how long training took, one row a kind: median ``seconds`` of a stack's time shared among its ``n`` runs.

    A kind is data, protocol, batch size, parameters, epochs run, stack size, rows of the training and validation parts,
    whether the kernel trained it, and whether ``here``, as a part of this store, or elsewhere.
    """
    kind = "dataset, protocol, batch_size, parameters, epochs_run, stack_size, train_rows, val_rows"
    return store.query(
        f"SELECT {kind}, engine = 'kernel' AS kernel, starts_with(file, ?) AS here, count(*) AS n, "
        "median(wall_time_s / stack_size) AS seconds FROM runs "
        "WHERE steps > 0 AND wall_time_s > 0 AND epochs_run > 0 AND train_rows > 0 GROUP BY ALL ORDER BY ALL",
        [str(store.directory)],
    )


# ---- points


@dataclass(frozen=True)
class Points:
    """What is drawn of some runs: points of every seed, means over seeds, and how far they were thinned.

    ``seeds`` has ``run_id, config_id, seed, dead`` (names of dead classes), ``x, quantity, value``; ``means`` has
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
    span: tuple[float, float] | None = None,
    live: pa.Table | None = None,
    each_seed: bool = True,
) -> Points:
    """Read the curves of runs along ``x``, all quantities in one column.

    When more than ``budget`` rows would come, each run keeps every so many points, always its first and last; ``span``
    keeps what lies within a range of ``x`` and so brings the others back. ``live`` are points of runs not stored yet:
    columns ``run_id, config_id, seed, dead_classes`` and the recorded quantities. A mean is over the seeds of one
    config at one step: other configs never enter it. Raises FieldError for what is not recorded.
    """
    for name in (*quantities, *((x,) if x != LR_SUM else ())):
        if name not in POINT_FIELDS:
            raise FieldError("quantity", name, "is not recorded", "choose among " + ", ".join(POINT_FIELDS))
    with_live = live is not None and live.num_rows > 0
    names = list(dict.fromkeys(["step", "learning_rate", *([x] if x != LR_SUM else []), *quantities]))
    kept, values = _kept_points(x, names, span, with_live)
    unfolded = ", ".join(f"{{quantity: '{name}', value: {name}}}" for name in quantities)
    table = store.over_curves(
        run_ids,
        names,
        f"""
        {kept}, thinned AS (
            SELECT *, greatest(1, ceil(total * {len(quantities)} / {int(budget)}))::BIGINT AS stride FROM kept
        )
        SELECT run_id, config_id, seed, dead, step, x, point.quantity AS quantity, point.value::DOUBLE AS value,
               total, stride
        FROM (SELECT *, unnest([{unfolded}]) AS point FROM thinned WHERE place % stride = 0 OR place = places - 1)
        WHERE point.value IS NOT NULL ORDER BY config_id, run_id, quantity, step
        """,
        live if with_live else None,
        values,
    )
    first = table.slice(0, 1).to_pylist()
    stride, total = (first[0]["stride"], first[0]["total"] * len(quantities)) if first else (1, 0)
    means = _means(table)
    seeds = table.drop_columns(["step", "total", "stride"])
    return Points(seeds if each_seed else seeds.slice(0, 0), means, stride, total)


def _means(points: pa.Table) -> pa.Table:
    """Return the mean over seeds, with its spread, of each config, quantity and step."""
    keys = ["config_id", "quantity", "step"]
    spread = pc.VarianceOptions(ddof=1)
    # Arrow's own, in a fifth of the time of a query: while a curve grows this is done several times a second.
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


def _kept_points(
    x: str, names: Sequence[str], span: tuple[float, float] | None, with_live: bool
) -> tuple[str, list[Any]]:
    """Return the CTEs up to ``kept``: one row a point within the span, with its place in its run."""
    stored = ", ".join(f"unnest({CURVE_PREFIX}{name}) AS {name}" for name in names)
    head = "run_id, config_id, seed"
    union = f"UNION ALL SELECT {head}, '' AS dead, {', '.join(names)} FROM live" if with_live else ""
    along = x
    # The rate recorded at a point is that of the steps since the point before it.
    if x == LR_SUM:
        along = "sum(coalesce(learning_rate, 0) * taken) OVER run"
    within, values = ("WHERE x BETWEEN ? AND ?", list(span)) if span else ("", [])
    text = f"""
        , points AS (
            SELECT {head}, array_to_string(dead_classes, ' ') AS dead, {stored} FROM source {union}
        ), steps AS (
            SELECT *, step - lag(step, 1, 0) OVER (PARTITION BY run_id ORDER BY step) AS taken FROM points
        ), placed AS (
            SELECT *, ({along})::DOUBLE AS x FROM steps WINDOW run AS (PARTITION BY run_id ORDER BY step)
        ), kept AS (
            SELECT *, row_number() OVER run - 1 AS place, count(*) OVER (PARTITION BY run_id) AS places,
                   count(*) OVER () AS total
            FROM placed {within} WINDOW run AS (PARTITION BY run_id ORDER BY step)
        )
    """
    return text, values
