"""The grid of cells: colour is the metric, text its value, number of seeds or state."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import proportion_interval
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import (
    FAINT,
    INK,
    MUTED,
    PREDICTED_SIGN,
    SEQUENTIAL_SCHEME,
    SVG_RENDERER,
    axis_value_text,
    band_text,
    format_median,
    format_metric,
    is_percentage,
    prediction_text,
)

CELL_HEIGHT = 50
AXIS_HEIGHT = 60
# A click selects one cell, a shift-click adds or removes one, a dragged box selects the cells that it touches.
SELECTION, TOGGLED, BOX = "cell", "toggled", "box"
# Fixed, so that the same colour always means the same accuracy. 0.2 is guessing among five classes.
ACCURACY_DOMAIN = (0.2, 0.8)
DARK_TEXT, BRIGHT_TEXT = "#101418", "#FFFFFF"
TABLE = "cells"
# Sets the font size where no text is longer.
_TYPICAL_TEXT = {"first": "≈71.3%", "second": "68.0–72.1%"}
_BOLD: dict[str, Any] = {"fontWeight": "bold"}


def grid_table(
    cells: Sequence[Cell],
    metric: str,
    selected: Collection[str] = (),
    domain: tuple[float, float] | None = None,
    predicted: Mapping[str, Prediction] | None = None,
) -> pa.Table:
    """Return one row a cell: axis labels, metric, two lines of text, tooltip, whether it is ``selected``.

    ``selected`` and ``predicted``, the predictions for missing cells, are by config id.
    """
    low, high = domain or metric_domain(cells, metric)
    rows = []
    for cell in cells:
        share = (cell.value - low) / (high - low) if cell.value is not None and high > low else 0.0
        brightness = share if is_percentage(metric) else 1 - share
        prediction = (predicted or {}).get(cell.config_id) if cell.state == "missing" else None
        rows.append(
            {
                "x": axis_value_text(cell.x),
                "y": axis_value_text(cell.y),
                "config_id": cell.config_id,
                "state": cell.state,
                # Vega leaves out marks without a number, but an empty cell must be drawn and clickable, too.
                "metric": low if cell.value is None else cell.value,
                "first": f"{PREDICTED_SIGN}{format_metric(metric, prediction.value)}"
                if prediction
                else _first_line(cell, metric),
                "second": band_text(metric, prediction) if prediction else _second_line(cell),
                "bright": brightness > 0.45,
                "filled": cell.value is not None,
                "selected": cell.config_id in selected,
                "tooltip": _tooltip(cell, metric)
                + (f": {prediction_text(metric, prediction)}, not measured" if prediction else ""),
            }
        )
    return pa.Table.from_pylist(rows, schema=_CELLS)


def metric_domain(cells: Sequence[Cell], metric: str) -> tuple[float, float]:
    """Return the range of the colours: fixed for accuracies, else from the lowest to the highest figure."""
    if is_percentage(metric):
        return ACCURACY_DOMAIN
    values = [cell.value for cell in cells if cell.value is not None]
    return (min(values), max(values)) if values else (0.0, 1.0)


def _first_line(cell: Cell, metric: str) -> str:
    if cell.state == "running":
        return "▶"
    if cell.value is not None:
        return format_metric(metric, cell.value)
    symbols = {"queued": "…", "failed": "✕", "missing": "+", "done": "diverged", "partly": "diverged", "hidden": "–"}
    return symbols.get(cell.state, "")


def _second_line(cell: Cell) -> str:
    if cell.state == "running":
        # Not a percentage: among accuracies it would pass for one.
        return f"epoch {cell.epoch}/{cell.config.max_epochs}"
    if cell.state == "queued":
        return "queued"
    if cell.state == "failed":
        return "failed"
    if cell.state == "missing":
        return ""
    if cell.state == "hidden":
        return "filtered"
    notes = [f"×{cell.n_configs}"] if cell.n_configs > 1 else [f"n={cell.n_median}"] if cell.n_median else []
    if cell.n_silent:
        notes.append(f"†{cell.n_silent}" + ("" if cell.n_median else f" of {cell.n}"))
    if cell.n_diverged:
        notes.append(f"‡{cell.n_diverged}")
    if cell.state == "partly":
        notes.append(f"of {cell.wanted}")
    return " ".join(notes)


def cell_median(cell: Cell, metric: str) -> str:
    """Format the median of the runs without a silent class, with its spread; without over several configs.

    Over several configs the spread is not that of seeds, so that an interval would mislead. Empty without such runs.
    """
    if cell.median is None or cell.low is None or cell.high is None:
        return ""
    if cell.n_configs > 1:
        return format_metric(metric, cell.median)
    return format_median(metric, cell.median, cell.low, cell.high, cell.n_median)


def seed_texts(cell: Cell, metric: str) -> list[str]:
    """Describe the runs of a cell: the median; where some have a silent class, their rate and the median of all."""
    if not cell.n:
        return []
    middle = cell_median(cell, metric)
    low, high = format_metric(metric, cell.lowest), format_metric(metric, cell.highest)
    kind = "runs" if cell.n_configs > 1 else "seeds"
    if cell.n_silent:
        rate = ""
        if cell.n_configs == 1:
            ends = proportion_interval(cell.n_silent, cell.n)
            rate = f" (95% interval {100 * ends[0]:.0f}% to {100 * ends[1]:.0f}%, Clopper–Pearson)"
        parts = [f"a class is silent in {cell.n_silent} of {cell.n} {kind}{rate}"]
        parts += [f"median of the other {cell.n_median}: {middle}"] if middle else []
        return [*parts, f"all {cell.n}: median {format_metric(metric, cell.median_all)}, range {low} to {high}"]
    if cell.n_configs > 1:
        return [f"median of {cell.n} runs of {cell.n_configs} configs: {middle}", f"range {low} to {high}"]
    return [f"median of {cell.n} seeds: {middle}" if cell.n > 1 else f"one seed: {middle}"]


def _tooltip(cell: Cell, metric: str) -> str:
    name = " × ".join(axis_value_text(value) for value in cell.place)
    if cell.state == "missing":
        # The tooltip stays open while a click on the cell starts its training: it may hold nothing that changes.
        return name
    if cell.state == "failed":
        return f"{name}: failed, click to see why"
    parts = seed_texts(cell, metric)
    if cell.n_hidden:
        parts.append(f"{cell.n_hidden} excluded by the filter expression")
    if cell.state == "partly":
        parts.append(f"{len(cell.missing_seeds())} of {cell.wanted} seeds missing")
    if cell.n_diverged:
        parts.append(f"{cell.n_diverged} diverged")
    if cell.active:
        parts.append(f"{len(cell.active)} in progress")
    return f"{name}: {'; '.join(parts)}"


_CELLS = pa.schema(
    [(name, pa.string()) for name in ("x", "y", "config_id", "state", "first", "second", "tooltip")]
    + [("metric", pa.float64())]
    + [(name, pa.bool_()) for name in ("bright", "filled", "selected")]
)


# ---- drawing


def grid_figure(
    table: pa.Table,
    titles: tuple[str, str],
    orders: tuple[Sequence[str], Sequence[str]],
    metric: str,
    domain: tuple[float, float],
    theme: str = "light",
    size: float = 1.0,
) -> Figure:
    """Draw a grid table.

    Selections: ``cell`` holds the clicked ``config_id``, ``toggled`` the shift-clicked ones, ``box`` the labels inside
    a dragged box. ``titles`` and ``orders`` are those of x and y; ``size`` scales fonts and cells.
    """
    longest = (_longest(table, "first"), _longest(table, "second"))
    spec = _spec(titles, (tuple(orders[0]), tuple(orders[1])), metric, domain, theme, size, longest)
    alt_text = f"Grid of {titles[0]} (x) and {titles[1]} (y), coloured by {metric.replace('_', ' ')}"
    return Figure(spec, {TABLE: table}, alt_text, width=max(320, 90 * len(orders[0])))


@lru_cache(maxsize=256)
def _spec(
    titles: tuple[str, str],
    orders: tuple[tuple[str, ...], tuple[str, ...]],
    metric: str,
    domain: tuple[float, float],
    theme: str,
    size: float,
    longest: tuple[int, int],
) -> dict[str, Any]:
    x = alt.X("x:N", sort=list(orders[0]), title=titles[0], axis=alt.Axis(labelAngle=0, ticks=False, domain=False))
    # Values grow upwards.
    y = alt.Y("y:N", sort=list(reversed(orders[1])), title=titles[1], axis=alt.Axis(ticks=False, domain=False))
    base = chart_from(TABLE).encode(x=x, y=y)
    # Bright is good in every grid: the colours of losses and times are reversed.
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=list(domain), clamp=True, reverse=not is_percentage(metric))
    click = alt.selection_point(name=SELECTION, fields=["config_id"], toggle=False, on="click[!event.shiftKey]")
    shift = alt.selection_point(name=TOGGLED, fields=["config_id"], toggle="true", on="click[event.shiftKey]")
    box = alt.selection_interval(name=BOX, encodings=["x", "y"], mark=alt.BrushConfig(fill=INK[theme], fillOpacity=0.1))
    colour = alt.condition("datum.filled", alt.Color("metric:Q", scale=scale, legend=None), alt.value("transparent"))
    selected = alt.datum.selected
    cells = base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=colour,
        stroke=alt.condition(selected, alt.value(INK[theme]), alt.value(FAINT[theme])),
        strokeWidth=alt.condition(selected, alt.value(3), alt.value(1)),
        strokeDash=alt.condition("datum.state == 'partly'", alt.value([5, 3]), alt.value([1, 0])),
        tooltip=[alt.Tooltip("tooltip:N", title=" ")],
    )
    ink = (
        alt.when("!datum.filled").then(alt.value(MUTED[theme])).when("datum.bright").then(alt.value(DARK_TEXT))
        .otherwise(alt.value(BRIGHT_TEXT))
    )  # fmt: skip
    # A single line of text is centred.
    first, second = (
        base.mark_text(dy=dy, fontSize=_fitting(points * size, count), cursor="pointer", aria=False, **weight).encode(
            text=f"{column}:N", color=ink
        )
        for column, dy, points, count, weight in (
            ("first", alt.ExprRef(f"datum.second ? {-7 * size:g} : 0"), 14, longest[0], _BOLD),
            ("second", 11 * size, 11, longest[1], {}),
        )
    )
    height = (CELL_HEIGHT * max(1, len(orders[1])) + AXIS_HEIGHT) * size
    chart = alt.layer(cells.add_params(click, shift, box), first, second)
    return build_spec(chart.properties(height=height, usermeta=SVG_RENDERER)) | {"config": font_config(size)}


def _fitting(points: float, count: int) -> alt.ExprRef:
    """Return a font size that shrinks where cells are too narrow for ``count`` letters."""
    return alt.ExprRef(f"max(6, min({points:g}, bandwidth('x') / {0.56 * count:g}))")


def _longest(table: pa.Table, column: str) -> int:
    """Return the length of the longest text of a column, at least that of a typical one."""
    longest = pc.max(pc.utf8_length(table[column])).as_py() or 0
    return max(longest, len(_TYPICAL_TEXT[column]))
