"""The SQL behind the grid: cells, configs, run counts per value, stored seeds, training times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.config import FIELDS, check_field
from jsc_explore.errors import FieldError
from jsc_explore.store.query.filters import Filters, condition
from jsc_explore.store.schema import SCALARS

if TYPE_CHECKING:
    from jsc_explore.store.store import Store


def grid_cells(store: Store, axes: Sequence[str], metric: str, filters: Filters, expression: str = "") -> pa.Table:
    """Return one row per cell of a grid over the fields ``axes``, which are its first columns.

    ``n`` counts the runs of a cell that pass and have a finite metric; ``median_all``, ``lowest`` and ``highest`` are
    over them. ``n_silent`` of them have a silent class; ``metrics`` lists those of the others, null where there are
    none: metrics of both kinds have two humps. ``n_diverged`` runs pass but diverged, ``n_hidden`` are left out by the
    filter expression alone; ``n_configs`` counts configs.
    """
    for name in axes:
        check_field(name)
    if metric not in SCALARS:
        raise FieldError("metric", metric, "is not a column of a run", "docs/results.md lists them")
    where, values = condition(filters)
    passing, more = condition({}, expression)
    names = ", ".join(dict.fromkeys(axes))
    return store.query(
        f"""
        SELECT {names}, list({metric}) FILTER (counts AND NOT silent) AS metrics,
               median({metric}) FILTER (counts) AS median_all,
               min({metric}) FILTER (counts) AS lowest, max({metric}) FILTER (counts) AS highest,
               count(*) FILTER (counts) AS n, count(*) FILTER (counts AND silent) AS n_silent,
               count(*) FILTER (passing AND NOT counts) AS n_diverged, count(*) FILTER (NOT passing) AS n_hidden,
               count(DISTINCT config_id) FILTER (passing) AS n_configs
        FROM (SELECT *, coalesce({passing}, false) AS passing, len(silent_classes) > 0 AS silent,
                     passing AND status <> 'diverged' AND coalesce(isfinite({metric}), false) AS counts
              FROM runs WHERE {where}) GROUP BY {names}
        """,
        [*more, *values],
    )


def varying_fields(store: Store, filters: Filters, expression: str = "") -> list[str]:
    """Return the hyperparameters with more than one value among the passing runs, in the order of RunConfig."""
    where, values = condition(filters, expression)
    names = [name for name in FIELDS if name != "seed"]
    flags = ", ".join(f"coalesce(min({name}) <> max({name}), false) AS {name}" for name in names)
    row = store.query(f"SELECT {flags} FROM runs WHERE {where}", values).to_pylist()[0]
    return [name for name in names if row[name]]


def configs(store: Store, filters: Filters, expression: str = "", limit: int = 1_000_000) -> tuple[pa.Table, int]:
    """Return one row per config with passing runs: ``config_id``, ``n``, ``n_silent``, fields; and their number.

    Rows are in the order of their fields. The table has at most ``limit`` rows.
    """
    where, values = condition(filters, expression)
    names = [name for name in FIELDS if name != "seed"]
    fields = ", ".join(f"any_value({name}) AS {name}" for name in names)
    table = store.query(
        f"""
        SELECT config_id, count(*) AS n, count(*) FILTER (WHERE len(silent_classes) > 0) AS n_silent, {fields},
               count(*) OVER () AS total
        FROM runs WHERE {where} GROUP BY config_id ORDER BY {", ".join(names)}, config_id LIMIT {int(limit)}
        """,
        values,
    )
    return table.drop_columns(["total"]), table["total"][0].as_py() if table.num_rows else 0


def stored_seeds(store: Store, config_ids: Sequence[str]) -> dict[str, list[int]]:
    """Return config id -> its stored seeds, independent of any filter."""
    table = store.query(
        "SELECT config_id, list(seed ORDER BY seed) AS seeds FROM runs "
        "WHERE config_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY config_id",
        [list(config_ids)],
    )
    return dict(zip(table["config_id"].to_pylist(), table["seeds"].to_pylist(), strict=True))


def count_choices(store: Store, filters: Filters, expression: str = "") -> dict[str, dict[Any, int]]:
    """Return for every field but the seed its stored values, with the number of runs that pass all *other* filters.

    Stored values without passing runs have a count of zero.
    """
    names = [name for name in FIELDS if name != "seed"]
    # One query for all fields; NumPy counts them in a third of the time that DuckDB's grouping sets take. All fields
    # without a filter share one condition.
    conditions = {name: condition({one: filters[one] for one in filters if one != name}, expression) for name in names}
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


def run_ids(store: Store, filters: Filters, expression: str = "") -> list[str]:
    """Return the ids of passing runs, ordered by config and seed."""
    where, values = condition(filters, expression)
    found = store.query(f"SELECT run_id FROM runs WHERE {where} ORDER BY config_id, seed", values)
    return [str(run_id) for run_id in found["run_id"].to_pylist()]


def timings(store: Store) -> pa.Table:
    """Return median training times: ``seconds`` per run, its share of the wall time, of ``n`` runs.

    One row per combination of data, validation, network, batch size, epochs run, replicas, rows of the training and
    validation parts, ``backend``, ``device``, and whether ``here`` (in a part of this store).
    """
    keys = "dataset, validation, model, batch_size, epochs_run, replicas, train_rows, val_rows, backend, device"
    return store.query(
        f"SELECT {keys}, starts_with(file, ?) AS here, count(*) AS n, "
        "median(coalesce(wall_share_s, wall_time_s / replicas)) AS seconds FROM runs "
        "WHERE steps > 0 AND wall_time_s > 0 AND epochs_run > 0 AND train_rows > 0 GROUP BY ALL ORDER BY ALL",
        [str(store.directory)],
    )
