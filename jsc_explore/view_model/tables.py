"""Exports of a page besides its charts: the grid and the curves as tables, command lines that reproduce the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, format_value
from jsc_explore.importers.csv_table import CURVE_RATE, RUN
from jsc_explore.store import Store
from jsc_explore.store.query.grid import configs, stored_seeds
from jsc_explore.view_model.slice import Slice

# Nobody reads a longer file of commands; `jsc-explore list` shows every run of a larger slice.
MAX_COMMANDS = 2000


def cells_table(slice: Slice, cells: Sequence[Cell], predicted: Mapping[str, Prediction]) -> pa.Table:
    """Return the grid as a table of one row a cell: axis values, metric, state, statistics over runs, config id.

    Missing cells with a prediction in ``predicted``, by config id, have its value and the ends of its 80% band.
    """
    medians = ("value", "n_median", "median", "low", "high", "median_all", "lowest", "highest")
    counts = ("n", "n_configs", "n_silent", "n_diverged")
    rows = []
    for cell in cells:
        prediction = predicted.get(cell.config_id) if cell.state == "missing" else None
        ends = (prediction.value, prediction.low, prediction.high) if prediction else (None, None, None)
        rows.append(
            {**dict(zip(slice.axes, cell.place, strict=True)), "metric": slice.metric, "state": cell.state,
             **{name: getattr(cell, name) for name in (*medians, *counts)},
             **dict(zip(("predicted", "predicted_low", "predicted_high"), ends, strict=True)),
             "config_id": cell.config_id}
        )  # fmt: skip
    return pa.Table.from_pylist(rows)


def public_table(table: pa.Table, x: str, metric: str) -> pa.Table:
    """Return the table of a chart of curves with the names of what its columns hold instead of how they are drawn."""
    names = {"x": x, "value": metric, "smooth": "smoothed_median", "group": "colour", "is_silent": "has_silent_class"}
    kept = table.drop_columns([name for name in ("line",) if name in table.column_names])
    return kept.rename_columns([names.get(name, name) for name in kept.column_names])


def points_table(store: Store, run_ids: Sequence[str]) -> pa.Table:
    """Return the curves of runs as ``jsc-explore import csv`` reads them: one row a point, hyperparameters in each.

    ``curve_learning_rate`` is the rate at a point, ``learning_rate`` the hyperparameter.
    """
    points = store.curves(run_ids).drop_columns(["config_id", "seed", "silent"])
    runs = store.runs({"run_id": list(run_ids)}, ("run_id", *FIELDS, "test_acc", "test_loss"))
    names = [CURVE_RATE if name == "learning_rate" else name for name in points.column_names]
    joined = points.rename_columns(names).join(runs, "run_id", join_type="inner")
    ordered = joined.sort_by([("run_id", "ascending"), ("step", "ascending")])
    return ordered.rename_columns([RUN if name == "run_id" else name for name in ordered.column_names])


def commands(store: Store, slice: Slice) -> list[str]:
    """Return the command lines that train the runs of a slice, or print them if they are stored."""
    table, total = configs(store, slice.filters, slice.text, limit=MAX_COMMANDS)
    seeds = stored_seeds(store, table["config_id"].to_pylist())
    lines = [
        command(RunConfig(**{name: row[name] for name in FIELDS if name != "seed"}), seeds[row["config_id"]])
        for row in table.to_pylist()
    ]
    if total > len(lines):
        lines.append(f"# {total - len(lines):,} more configurations: jsc-explore list shows them")
    return lines


def command(config: RunConfig, seeds: Sequence[int]) -> str:
    """Return the shell commands that train these seeds of a config, or print them if they are stored."""
    options = [
        f"--{name.replace('_', '-')} {_quoted(format_value(name, value))}"
        for name, value in config.to_dict().items()
        if value != DEFAULTS[name] and name != "seed"
    ]
    first, count = (min(seeds), len(seeds)) if seeds else (0, 1)
    if list(seeds) == list(range(first, first + count)):
        tails = [([f"--seed {first}"] if first else []) + ([f"--seeds {count}"] if count > 1 else [])]
    else:
        tails = [[f"--seed {seed}"] for seed in seeds]
    return "\n".join(" ".join(["jsc-explore train", *options, *tail]) for tail in tails)


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text
