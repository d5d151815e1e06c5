"""Runs grouped by config: the aggregates that the Overview and Compare pages show."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, stdev
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.config import FIELDS
from jsc_explore.errors import FieldError
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store.query.filters import Filters
from jsc_explore.store.schema import METRICS
from jsc_explore.store.store import Store

# The fields that identify a config: all but the seed.
CONFIG_FIELDS = tuple(name for name in FIELDS if name != "seed")
# Curves that are read for predictions; of more runs the rest adds nothing.
MAX_CURVES = 2000


def _figures(metric: str) -> str:
    """Return the SQL of a config's figure and of what stands beside it, by the rule of ``grid_cells``."""
    finite, silent = f"status <> 'diverged' AND coalesce(isfinite({metric}), false)", "len(silent_classes) > 0"
    return f"""
        coalesce(median({metric}) FILTER ({finite} AND NOT {silent}), median({metric}) FILTER ({finite})) AS metric,
        stddev_samp({metric}) FILTER ({finite} AND NOT {silent}) AS sd, count(*) AS n_runs,
        count(*) FILTER ({finite} AND {silent}) AS n_silent, count(*) FILTER (NOT ({finite})) AS n_diverged,
        CASE n_silent + n_diverged WHEN n_runs THEN n_silent ELSE n_runs - n_silent - n_diverged END AS n
    """


def cell_table(store: Store, metric: str, filters: Filters | None = None, expression: str = "") -> pa.Table:
    """Return one row per config: ``config_id``, its hyperparameters, ``parameters``, and over its seeds:

    ``metric``, the median of the metric over its ``n`` seeds without a silent class, with their standard deviation
    ``sd``; where all have one, it is the median of the ``n`` others and ``sd`` null. Of ``n_runs``, ``n_silent`` have a
    silent class and ``n_diverged`` diverged. Configs without a finite metric are left out; rows are sorted by metric.

    ``expression`` is a filter expression. Raises FieldError for a metric that is not in ``METRICS``, or a bad filter.
    """
    if metric not in METRICS:
        raise FieldError("metric", metric, "must be one of " + ", ".join(METRICS), f"try {next(iter(METRICS))}")
    fields = ", ".join(f"min({name}) AS {name}" for name in CONFIG_FIELDS)
    return store.select(
        f"""
        SELECT config_id, {fields}, min(parameters) AS parameters,
               {_figures(metric)}
        FROM selected GROUP BY config_id HAVING n > 0 ORDER BY metric, config_id
        """,
        filters,
        expression,
    )


def training_times(store: Store, filters: Filters | None = None, expression: str = "") -> pa.Table:
    """Return the training times of configs by machine: ``config_id``, ``device``, ``backend``, ``seconds`` and ``n``.

    ``seconds`` is the mean of the ``n`` runs trained to their end, each its own time in optimizer steps.
    """
    return store.select(
        """
        SELECT config_id, device, string_agg(DISTINCT backend, '; ' ORDER BY backend) AS backend,
               avg(train_time_s) AS seconds, count(*) AS n
        FROM selected WHERE status <> 'diverged' AND train_time_s > 0 GROUP BY config_id, device ORDER BY ALL
        """,
        filters,
        expression,
    )


def machines(store: Store, filters: Filters | None = None, expression: str = "") -> dict[str, list[str]]:
    """Return the devices that trained runs, those with most runs first, with the backends of each."""
    table = store.select(
        "SELECT device, list(DISTINCT backend ORDER BY backend) AS backends FROM selected "
        "GROUP BY device ORDER BY count(*) DESC, device",
        filters,
        expression,
    )
    return dict(zip(table["device"].to_pylist(), table["backends"].to_pylist(), strict=True))


def prediction_cells(
    store: Store, metric: str, filters: Filters | None = None, text: str = "", epochs: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Return one row a config that ``analysis.prediction.predict`` learns from, in no order.

    ``metric`` (the median), ``sd`` and ``n`` are over the runs without a silent class that did not diverge;
    ``n_silent`` counts those with one. Configs without the former are left out. At each of ``epochs`` there is also a
    row for every config that trains longer at a constant rate: its runs are the first part of the longer ones.
    Raises FieldError for a metric that is none of ``METRICS``.
    """
    if metric not in METRICS:
        raise FieldError("metric", metric, "must be one of " + ", ".join(METRICS), f"try {next(iter(METRICS))}")
    counts = f"FILTER (status <> 'diverged' AND isfinite({metric}) AND len(silent_classes) = 0)"
    names = ", ".join(CONFIG_FIELDS)
    rows: list[dict[str, Any]] = store.select(
        f"""
        SELECT {names}, median({metric}) {counts} AS metric, stddev_samp({metric}) {counts} AS sd,
               count(*) {counts} AS n, count(*) FILTER (len(silent_classes) > 0) AS n_silent
        FROM selected GROUP BY {names} HAVING n > 0 ORDER BY {names}
        """,
        filters,
        text,
    ).to_pylist()
    if epochs and metric in POINT_FIELDS:
        known = {tuple(row[name] for name in CONFIG_FIELDS) for row in rows}
        shorter = _shorter_cells(store, metric, filters, text, epochs)
        rows += [row for row in shorter if tuple(row[name] for name in CONFIG_FIELDS) not in known]
    return rows


def _shorter_cells(
    store: Store, metric: str, filters: Filters | None, text: str, epochs: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the cells that configs with a constant rate passed on their way, by their curves."""
    others = ", ".join(name for name in CONFIG_FIELDS if name != "max_epochs")
    runs = store.select(
        f"""
        SELECT run_id, max_epochs, {others} FROM selected
        WHERE scheduler IN ('constant', 'warmup') AND patience = 0 AND status <> 'diverged' AND len(silent_classes) = 0
        ORDER BY run_id LIMIT {MAX_CURVES}
        """,
        filters,
        text,
    )
    if not runs.num_rows:
        return []
    points = store.curves(runs["run_id"].to_pylist(), ["epoch", metric])
    points = points.filter(pc.is_in(points["epoch"], pa.array([float(epoch) for epoch in epochs])))
    groups: dict[tuple[Any, ...], list[float]] = {}
    configs = {row.pop("run_id"): row for row in runs.to_pylist()}
    for row in points.to_pylist():
        config = configs[row["run_id"]]
        if row["epoch"] < config["max_epochs"] and row[metric] is not None:
            place = config | {"max_epochs": int(row["epoch"])}
            groups.setdefault(tuple(place[name] for name in CONFIG_FIELDS), []).append(row[metric])
    return [
        dict(zip(CONFIG_FIELDS, place, strict=True))
        | {"metric": median(values), "sd": stdev(values) if len(values) > 1 else None, "n": len(values), "n_silent": 0}
        for place, values in groups.items()
    ]


def seed_table(store: Store, config_ids: Sequence[str], metric: str) -> pa.Table:
    """Return one row per run of these configs: ids, seed, ``metric``, ``auc``, ``rejection``, ``confusion``,
    ``silent_classes``, ``zero_output_share``, ``status``.

    Raises FieldError for a metric that is not a column.
    """
    columns = ["run_id", "config_id", "seed", "auc", "rejection", "confusion", "silent_classes", "zero_output_share"]
    columns.append("status")
    table = store.runs({"config_id": list(config_ids)}, [*columns, metric])
    return table.rename_columns([*columns, "metric"])


def seed_metrics(store: Store, metric: str, filters: Filters | None = None, expression: str = "") -> pa.Table:
    """Return one row per run that did not diverge: ``config_id``, ``seed``, ``metric``, ``silent``; sorted.

    ``silent``: some class is silent. Raises FieldError for a metric that is none of ``METRICS``.
    """
    if metric not in METRICS:
        raise FieldError("metric", metric, "must be one of " + ", ".join(METRICS), f"try {next(iter(METRICS))}")
    return store.select(
        f"""
        SELECT config_id, seed, {metric} AS metric, len(silent_classes) > 0 AS silent FROM selected
        WHERE status <> 'diverged' AND isfinite({metric}) ORDER BY config_id, seed
        """,
        filters,
        expression,
    )
