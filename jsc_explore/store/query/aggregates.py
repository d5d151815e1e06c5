"""Runs grouped by config: the aggregates that the Overview and Compare pages show."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from jsc_explore.config import FIELDS
from jsc_explore.data.jets import CLASSES
from jsc_explore.errors import FieldError
from jsc_explore.store.query.filters import Filters
from jsc_explore.store.schema import METRICS
from jsc_explore.store.store import Store

# The fields that identify a config: all but the seed.
CONFIG_FIELDS = tuple(name for name in FIELDS if name != "seed")
_N = len(CLASSES)

# The rule of analysis.classes.unpredicted_classes in SQL: a zero on the diagonal of the 25 counts.
_UNPREDICTED = "len(silent_classes) > 0 OR " + " OR ".join(
    f"confusion[{1 + place * (_N + 1)}] = 0" for place in range(_N)
)


def cell_table(store: Store, metric: str, filters: Filters | None = None, expression: str = "") -> pa.Table:
    """Return one row per config: ``config_id``, its hyperparameters, ``parameters``, and over its seeds:

    ``mean`` and ``sd`` of the metric (null for one seed), counts ``n``, ``n_diverged`` and ``n_lost`` (seeds with a
    recall of zero for some class), and ``seconds`` of training per run: a stack's time divided by its replicas.
    Configs without a finite metric are left out; rows are sorted by mean.

    ``expression`` is a filter expression. Raises FieldError for a metric that is not in ``METRICS``, or a bad filter.
    """
    if metric not in METRICS:
        raise FieldError("metric", metric, "must be one of " + ", ".join(METRICS), f"try {next(iter(METRICS))}")
    fields = ", ".join(f"min({name}) AS {name}" for name in CONFIG_FIELDS)
    return store.select(
        f"""
        SELECT config_id, {fields}, min(parameters) AS parameters,
               avg({metric}) AS mean, stddev_samp({metric}) AS sd, count({metric}) AS n,
               count(*) FILTER (WHERE {_UNPREDICTED}) AS n_unpredicted,
               count(*) FILTER (WHERE status = 'diverged') AS n_diverged,
               avg(train_time_s / replicas) AS seconds
        FROM selected GROUP BY config_id HAVING isfinite(avg({metric})) ORDER BY mean, config_id
        """,
        filters,
        expression,
    )


def spread_table(
    store: Store, field: str, metric: str, filters: Filters | None = None, expression: str = ""
) -> pa.Table:
    """Return the distribution of the configs' mean metrics at each value of one hyperparameter.

    Columns ``value``, ``low``, ``q1``, ``median``, ``q3``, ``high``, ``n`` (configs), ordered by value.
    Raises FieldError for an unknown field or metric.
    """
    if field not in CONFIG_FIELDS or metric not in METRICS:
        raise FieldError("field", f"{field}, {metric}", "must be a hyperparameter and a metric", "see docs/results.md")
    return store.select(
        f"""
        SELECT value, min(mean) AS low, quantile_cont(mean, 0.25) AS q1, median(mean) AS median,
               quantile_cont(mean, 0.75) AS q3, max(mean) AS high, count(*) AS n
        FROM (SELECT min({field}) AS value, avg({metric}) AS mean FROM selected GROUP BY config_id
              HAVING isfinite(avg({metric})))
        GROUP BY value ORDER BY value
        """,
        filters,
        expression,
    )


def seed_table(store: Store, config_ids: Sequence[str], metric: str) -> pa.Table:
    """Return one row per run of these configs: ids, seed, ``metric``, ``auc``, ``rejection``, ``confusion``,
    ``silent_classes``, ``status``.

    Raises FieldError for a metric that is not a column.
    """
    columns = ["run_id", "config_id", "seed", "auc", "rejection", "confusion", "silent_classes", "status"]
    table = store.runs({"config_id": list(config_ids)}, [*columns, metric])
    return table.rename_columns([*columns, "metric"])
