"""A metric against one hyperparameter, over the stored runs of a slice: its fields, charts, legend text and table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.cells import in_order
from jsc_explore.analysis.statistics import MIN_INTERVAL_SEEDS
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.response import (
    MAX_LINES,
    ResponseOptions,
    response_axes,
    response_figure,
    response_tables,
    spread_of,
)
from jsc_explore.charts.style import SILENT_SIGN, format_metric, is_percentage, is_time
from jsc_explore.config import FIELDS, display_value
from jsc_explore.network import parse
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import AUTO, NONE

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Response:
    """Charts with their titles (without facets one chart, its title empty), their legend text, and all as a table.

    ``best`` is a sentence on the best median, empty if each seed has a silent class.
    """

    figures: list[tuple[str, Figure]]
    best: str
    legend: str
    table: pa.Table


def fields_of(state: Mapping[str, Any], varying: Sequence[str], against: str, lines: str) -> tuple[str, str | None]:
    """Return the hyperparameter on the x axis and that of the lines, None for no lines.

    ``against`` and ``lines`` are what ``AUTO`` stands for. A hyperparameter of one value has no lines of its own.
    """
    chosen = against if state["against"] == AUTO else state["against"]
    if state["lines"] != AUTO:
        return chosen, None if state["lines"] in (NONE, chosen) else state["lines"]
    other = lines if lines != chosen else against
    return chosen, other if other in varying and other != chosen else None


def automatic_fields(varying: Sequence[str]) -> tuple[str, str]:
    """Return what ``AUTO`` stands for without a grid: batch size on x, lines by network or final ReLU."""
    against = next((name for name in ("batch_size", "learning_rate", *varying) if name in varying), "batch_size")
    others = [name for name in ("model", "final_relu", *varying) if name in varying and name != against]
    return against, next(iter(others), against)


def slice_response(repository: Repository, state: Mapping[str, Any], slice: Slice, theme: str, size: float) -> Response:
    """Return the charts of a slice, one for each value of its facet."""
    varying = repository.varying(slice)
    against, lines = fields_of(state, varying, slice.x, slice.y)
    facet = slice.facet if slice.facet not in (against, lines) else None
    fields = tuple(name for name in (against, lines, facet) if name)
    options = ResponseOptions(slice.metric, against, lines, theme, size)
    return response_of(repository.response(slice, fields), options, varying, facet)


def response_of(
    rows: Rows, options: ResponseOptions, varying: Sequence[str] = (), facet: str | None = None
) -> Response:
    """Return the charts of the rows of ``view_model.repository.response_rows``; none if no run has a finite metric.

    ``varying`` hyperparameters have several values among the runs; those on no axis are named where a point holds
    several configs.
    """
    shown = [row for row in rows if row["n"]]
    table = response_table(rows, options, facet)
    if not shown:
        return Response([], "", "", table)
    axes = response_axes(shown, options)
    parts: dict[Any, Rows] = {"": shown}
    if facet:
        values = in_order(facet, {row[facet] for row in shown})
        parts = {value: [row for row in shown if row[facet] == value] for value in values}
    figures = [
        (f"{FIELDS[facet].label}: {display_value(facet, value)}" if facet else "",
         response_figure(response_tables(part, options, axes), options, axes))
        for value, part in parts.items()
    ]  # fmt: skip
    pooled = [name for name in varying if name not in (options.against, options.lines, facet)]
    return Response(figures, _best(rows, options), _legend(rows, options, len(axes.lines), pooled), table)


def _legend(rows: Rows, options: ResponseOptions, n_lines: int, pooled: Sequence[str]) -> str:
    """Return what points, bars and signs mean, as far as they occur."""
    several = any(row["n_configs"] > 1 for row in rows)
    counts = {len(row["metrics"] or []) for row in rows if row["n_configs"] == 1} - {0, 1}
    silent = any(row["n_silent"] for row in rows)
    runs = "runs" if several else "seeds"
    parts = [f"Point: median of the {runs} without a silent class" if silent else f"Point: median of the {runs}"]
    if not is_time(options.metric):
        if counts:
            interval, span = "95% interval of the median", f"range of fewer than {MIN_INTERVAL_SEEDS} seeds"
            many, few = max(counts) >= MIN_INTERVAL_SEEDS, min(counts) < MIN_INTERVAL_SEEDS
            parts.append("bar: " + (f"{interval}, or the {span}" if many and few else interval if many else span))
        if several:
            names = " and ".join(FIELDS[name].inline_label for name in pooled)
            parts.append(f"wide bar: middle half of the runs of several configs{names and f', of any {names}'}")
    parts.append(f"dots: {runs}")
    if any(row["n"] and row["n"] == row["n_silent"] for row in rows):
        parts.append(f"open: each of the {runs} has a silent class")
    if silent:
        parts.append(SILENT_SIGN)
    text = "; ".join(parts) + "."
    values = {row[options.lines] for row in rows} if options.lines else set()
    if len(values) > n_lines:
        text += f" {n_lines} of {len(values)} lines are drawn, evenly chosen; at most {MAX_LINES} can be told apart."
    if diverged := sum(row["n_diverged"] for row in rows):
        text += f" {diverged} diverged run{'s are' if diverged > 1 else ' is'} left out."
    return text


def _best(rows: Rows, options: ResponseOptions) -> str:
    measured = [row for row in rows if row["metrics"]]
    if not measured:
        return ""
    choose = max if is_percentage(options.metric) else min
    row = choose(measured, key=lambda row: row["median"])
    names = [name for name in (options.against, options.lines) if name]
    place = ", ".join(f"{FIELDS[name].inline_label} {display_value(name, row[name])}" for name in names)
    return f"Best median: {format_metric(options.metric, row['median'])} at {place} (n={len(row['metrics'])})."


def response_table(rows: Rows, options: ResponseOptions, facet: str | None = None) -> pa.Table:
    """Return the chart as a table of one row a point, with the column names of the grid's table.

    ``spread`` names what ``low`` and ``high`` are.
    """
    fields = [name for name in (facet, options.lines, options.against) if name]
    orders = [(name, in_order(name, {row[name] for row in rows})) for name in fields]
    ordered = sorted(rows, key=lambda row: [values.index(row[name]) for name, values in orders])
    counts = ("n", "n_configs", "n_silent", "n_diverged")
    table = []
    for row in ordered:
        low, high, kind = spread_of(row, options.metric) or (None, None, "")
        middle = row["median"] if row["metrics"] else None
        size = {"parameters": parse(row["model"]).parameters} if "model" in fields else {}
        table.append(
            {name: row[name] for name in fields} | size
            | {"metric": options.metric, "n_median": row["n"] - row["n_silent"], "median": middle, "low": low,
               "high": high, "spread": kind}
            | {name: row[name] for name in ("median_all", "lowest", "highest", *counts)}
        )  # fmt: skip
    return pa.Table.from_pylist(table)
