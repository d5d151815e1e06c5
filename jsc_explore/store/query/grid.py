"""The SQL behind the grid: one row a cell, one row a config, counts of runs by value, seeds, times."""

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


def grid_cells(store: Store, axes: Sequence[str], metric: str, filters: Filters, text: str = "") -> pa.Table:
    """Return one row a cell of a grid over the fields ``axes``, columns named by them.

    Over the runs of a cell that pass: mean, standard deviation, least and greatest ``metric``, counts ``n``,
    ``n_configs``, ``n_silent``, ``n_diverged``; ``n_hidden`` counts those that the text filter alone leaves out.
    """
    for name in axes:
        check_field(name)
    if metric not in SCALARS:
        raise FieldError("metric", metric, "is no column of a run", "see docs/results.md")
    where, values = condition(filters)
    passing, more = condition({}, text)
    names = ", ".join(dict.fromkeys(axes))
    return store.query(
        f"""
        SELECT {names}, avg({metric}) FILTER (passing) AS mean, stddev_samp({metric}) FILTER (passing) AS sd,
               min({metric}) FILTER (passing) AS low, max({metric}) FILTER (passing) AS high,
               count(*) FILTER (passing) AS n, count(*) FILTER (NOT passing) AS n_hidden,
               count(DISTINCT config_id) FILTER (passing) AS n_configs,
               count(*) FILTER (passing AND status = 'diverged') AS n_diverged,
               count(*) FILTER (passing AND len(silent_classes) > 0) AS n_silent
        FROM (SELECT *, coalesce({passing}, false) AS passing FROM runs WHERE {where}) GROUP BY {names}
        """,
        [*more, *values],
    )


def configs(store: Store, filters: Filters, text: str = "", limit: int = 1_000_000) -> tuple[pa.Table, int]:
    """Return one row a config whose runs pass, every field with ``config_id``, ``n``, ``n_silent``; and how many pass.

    No more than ``limit`` rows come back.
    """
    where, values = condition(filters, text)
    fields = ", ".join(f"any_value({name}) AS {name}" for name in FIELDS if name != "seed")
    table = store.query(
        f"""
        SELECT config_id, count(*) AS n, count(*) FILTER (WHERE len(silent_classes) > 0) AS n_silent, {fields},
               count(*) OVER () AS total
        FROM runs WHERE {where} GROUP BY config_id ORDER BY config_id LIMIT {int(limit)}
        """,
        values,
    )
    return table.drop_columns(["total"]), table["total"][0].as_py() if table.num_rows else 0


def stored_seeds(store: Store, config_ids: Sequence[str]) -> dict[str, list[int]]:
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

    A kind is data, validation, batch size, parameters, epochs run, replicas, rows of training and validation parts,
    whether the kernel trained it, and whether ``here``, as a part of this store, or elsewhere.
    """
    kind = "dataset, validation, batch_size, parameters, epochs_run, replicas, train_rows, val_rows"
    return store.query(
        f"SELECT {kind}, backend = 'kernel' AS kernel, starts_with(file, ?) AS here, count(*) AS n, "
        "median(wall_time_s / replicas) AS seconds FROM runs "
        "WHERE steps > 0 AND wall_time_s > 0 AND epochs_run > 0 AND train_rows > 0 GROUP BY ALL ORDER BY ALL",
        [str(store.directory)],
    )
