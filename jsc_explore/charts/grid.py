"""The grid of cells: colour is the metric, text its value, number of seeds or state."""

from __future__ import annotations

import json
import math
import textwrap
import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import proportion_interval
from jsc_explore.charts.colour_scale import BRIGHT_TEXT, DARK_TEXT, scale_colour, takes_dark_text
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import (
    BACKGROUND,
    FAINT,
    INK,
    MUTED,
    PREDICTED_SIGN,
    SEQUENTIAL_SCHEME,
    SVG_RENDERER,
    format_median,
    format_metric,
    is_percentage,
    is_time,
    prediction_text,
)
from jsc_explore.config import FIELDS, display_value
from jsc_explore.network import parse
from jsc_explore.store.schema import METRICS

CELL_HEIGHT = 50
AXIS_HEIGHT, LEGEND_HEIGHT = 48, 50
# A click selects one cell, a shift-click adds or removes one, a dragged box selects the cells that it touches.
SELECTION, TOGGLED, BOX = "cell", "toggled", "box"
# Fixed, so that the same colour always means the same accuracy. 0.2 is guessing among five classes.
ACCURACY_DOMAIN = (0.2, 0.8)
# The fill of cells over several configs, which have no one figure that a colour could stand for.
SEVERAL_FILL = {"light": "#E8E9ED", "dark": "#2F3139"}
TABLE = "cells"
# Sets the font size where no text is longer.
_TYPICAL_TEXT = {"first": "≈71.3%", "second": "n=3 †2"}
_SMALLEST_TEXT = 11
# Mean width of a letter in font sizes, and the longest line of an axis label in letters.
_LETTER, _LABEL_LETTERS = 0.55, 16
_BOLD: dict[str, Any] = {"fontWeight": "bold"}


def grid_table(
    cells: Sequence[Cell],
    axes: Sequence[str],
    metric: str,
    selected: Collection[str] = (),
    domain: tuple[float, float] | None = None,
    predicted: Mapping[str, Prediction] | None = None,
    shown: Collection[str] = (),
) -> pa.Table:
    """Return one row a cell: axis labels, metric, texts, tooltip, whether it is ``selected`` or ``shown``.

    ``axes`` are the fields of a cell's place. ``selected``, ``shown`` (drawn as curves although nothing is selected)
    and ``predicted``, the predictions for missing cells, are by config id. ``brief`` stands for the second line where
    that does not fit. ``selection_id`` is that of the whole selection: so a second click on a cell is a new report.
    """
    low, high = domain or metric_domain(cells, metric)
    selection_id = zlib.crc32(" ".join(sorted(selected)).encode())
    rows = []
    for cell in cells:
        share = (cell.value - low) / (high - low) if cell.value is not None and high > low else 0.0
        prediction = (predicted or {}).get(cell.config_id) if cell.state == "missing" else None
        first, second, brief = _texts(cell, metric, prediction)
        rows.append(
            {
                "x": display_value(axes[0], cell.x),
                "y": display_value(axes[1], cell.y),
                "config_id": cell.config_id,
                "state": cell.state,
                # Vega leaves out marks without a number, but an empty cell must be drawn and clickable, too.
                "metric": low if cell.value is None else cell.value,
                "first": first,
                "second": second,
                "brief": brief,
                "bright": takes_dark_text(scale_colour(share if is_percentage(metric) else 1 - share)),
                "filled": cell.value is not None,
                "several": _holds_several(cell),
                "selected": cell.config_id in selected,
                "shown": cell.config_id in shown,
                "selection_id": selection_id,
                "tooltip": _tooltip(cell, axes, metric)
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


def _holds_several(cell: Cell) -> bool:
    return cell.n_configs > 1 and cell.n > 0


def _texts(cell: Cell, metric: str, prediction: Prediction | None) -> tuple[str, str, str]:
    """Return the two lines of a cell, and what stands for the second where that is too long."""
    if prediction:
        return (
            f"{PREDICTED_SIGN}{format_metric(metric, prediction.value)}",
            _range(metric, prediction.low, prediction.high),
            "",
        )
    if cell.state == "running":
        # Not a percentage: among accuracies it would pass for one.
        epoch = f"{cell.epoch}/{cell.config.max_epochs}"
        return "▶", f"epoch {epoch}", epoch
    if cell.state in _SIGNS:
        return *_SIGNS[cell.state], ""
    if not cell.n:
        return f"‡{cell.n_diverged}", "diverged", ""
    signs = [f"†{cell.n_silent}" + ("" if cell.n_median else f" of {cell.n}")] if cell.n_silent else []
    signs += [f"‡{cell.n_diverged}"] if cell.n_diverged else []
    if _holds_several(cell):
        count = f"×{cell.n_configs}"
        second = " ".join([count, *signs]) if signs else f"{count} configs"
        return _range(metric, cell.lowest, cell.highest), second, count
    seeds = [f"n={cell.n_median}"] if cell.n_median else []
    brief = " ".join(sign.partition(" of ")[0] for sign in signs)
    return format_metric(metric, cell.value), " ".join([*seeds, *signs]), brief


def _range(metric: str, low: float | None, high: float | None) -> str:
    """Format a range as short as a cell needs it: 61–72%, rounded outwards; 0.85–1.60; 3–12 s."""
    if low is None or high is None:
        return ""
    if is_percentage(metric):
        # Rounded first: 100 * 0.57 is a little less than 57.
        ends = math.floor(round(100 * low, 6)), math.ceil(round(100 * high, 6))
        return f"{ends[0]}–{ends[1]}%"
    return f"{low:.2g}–{high:.2g} s" if is_time(metric) else f"{low:.2f}–{high:.2f}"


def cell_median(cell: Cell, metric: str) -> str:
    """Format the median of the runs without a silent class, with its spread.

    Empty without such runs and over several configs, of which a median would be that of a mixture.
    """
    if cell.n_configs > 1 or cell.median is None or cell.low is None or cell.high is None:
        return ""
    return format_median(metric, cell.median, cell.low, cell.high, cell.n_median)


def seed_texts(cell: Cell, metric: str) -> list[str]:
    """Describe the runs of a cell: the median; where some have a silent class, their rate and the median of all.

    Of several configs only the range of their runs.
    """
    if not cell.n:
        return []
    low, high = format_metric(metric, cell.lowest), format_metric(metric, cell.highest)
    if cell.n_configs > 1:
        silent = [f"a class is silent in {cell.n_silent} of {cell.n} runs"] if cell.n_silent else []
        return [*silent, f"{cell.n} runs of {cell.n_configs} configs: {low} to {high}"]
    middle = cell_median(cell, metric)
    if cell.n_silent:
        ends = proportion_interval(cell.n_silent, cell.n)
        rate = f"95% interval {100 * ends[0]:.0f}% to {100 * ends[1]:.0f}%, Clopper–Pearson"
        parts = [f"a class is silent in {cell.n_silent} of {cell.n} seeds ({rate})"]
        parts += [f"median of the other {cell.n_median}: {middle}"] if middle else []
        return [*parts, f"all {cell.n}: median {format_metric(metric, cell.median_all)}, range {low} to {high}"]
    return [f"median of {cell.n} seeds: {middle}" if cell.n > 1 else f"one seed: {middle}"]


def _tooltip(cell: Cell, axes: Sequence[str], metric: str) -> str:
    name = " × ".join(display_value(axis, value) for axis, value in zip(axes, cell.place, strict=True))
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


_SIGNS = {"queued": ("…", "queued"), "failed": ("✕", "failed"), "missing": ("+", ""), "hidden": ("–", "filtered")}
_CELLS = pa.schema(
    [(name, pa.string()) for name in ("x", "y", "config_id", "state", "first", "second", "brief", "tooltip")]
    + [("metric", pa.float64()), ("selection_id", pa.int64())]
    + [(name, pa.bool_()) for name in ("bright", "filled", "several", "selected", "shown")]
)


# ---- drawing


def grid_figure(
    table: pa.Table,
    axes: tuple[str, str],
    orders: tuple[Sequence[str], Sequence[str]],
    metric: str,
    domain: tuple[float, float],
    theme: str = "light",
    size: float = 1.0,
    legend: bool = True,
) -> Figure:
    """Draw a grid table.

    Selections: ``cell`` holds the clicked ``config_id``, ``toggled`` the shift-clicked ones, ``box`` the labels inside
    a dragged box. ``axes`` are the fields of x and y, ``orders`` their values as the table has them; ``size`` scales
    fonts and cells; with ``legend`` a bar of the colours stands below.
    """
    longest = (_longest(table, "first"), _longest(table, "second"))
    spec = _spec(axes, (tuple(orders[0]), tuple(orders[1])), metric, domain, theme, size, longest, legend)
    titles = [FIELDS[name].label for name in axes]
    alt_text = f"Grid of {titles[0]} (x) and {titles[1]} (y), coloured by {metric.replace('_', ' ')}"
    return Figure(spec, {TABLE: table}, alt_text, width=max(320, 90 * len(orders[0])))


@lru_cache(maxsize=256)
def _spec(
    axes: tuple[str, str],
    orders: tuple[tuple[str, ...], tuple[str, ...]],
    metric: str,
    domain: tuple[float, float],
    theme: str,
    size: float,
    longest: tuple[int, int],
    legend: bool,
) -> dict[str, Any]:
    x_axis, axis_height = _x_axis(axes[0], orders[0], size)
    # Values grow upwards.
    base = chart_from(TABLE).encode(
        x=alt.X("x:N", sort=list(orders[0]), title=_title(axes[0]), axis=x_axis),
        y=alt.Y("y:N", sort=list(reversed(orders[1])), title=_title(axes[1]), axis=_y_axis(axes[1], orders[1])),
        tooltip=[alt.Tooltip("tooltip:N", title=" ")],
        # For screen readers; else Vega would read a number out for empty cells, too.
        description="tooltip:N",
    )
    # A second click on a cell, in another selection, is another tuple: else Vega would not report it.
    click = alt.selection_point(
        name=SELECTION, fields=["config_id", "selection_id"], toggle=False, on="click[!event.shiftKey]", clear=False
    )
    shift = alt.selection_point(
        name=TOGGLED, fields=["config_id"], toggle="true", on="click[event.shiftKey]", clear=False
    )
    # A click into the box ends it; to move it would hide the cells below from clicks.
    box = alt.selection_interval(
        name=BOX, encodings=["x", "y"], translate=False, zoom=False,
        mark=alt.BrushConfig(fill=INK[theme], fillOpacity=0.1, cursor="pointer"),
    )  # fmt: skip
    cells = base.mark_rect(cornerRadius=4, cursor="pointer", stroke=FAINT[theme], strokeWidth=1).encode(
        color=_colour(metric, domain, theme, size, legend),
        strokeDash=alt.condition("datum.state == 'partly'", alt.value([5, 3]), alt.value([1, 0])),
    )
    chart = alt.layer(
        cells.add_params(click, shift, box), *_outlines(base, theme), *_text_layers(base, longest, theme, size)
    )
    # Cells grow less than their texts, for which there is room: a grid of six rows stays on a screen of 720 pixels.
    cells_height = CELL_HEIGHT * max(1, len(orders[1])) * (0.8 + 0.2 * size)
    height = cells_height + (axis_height + LEGEND_HEIGHT * legend) * size
    config = font_config(size, theme)
    for part in config.values():
        part |= {"labelColor": INK[theme], "titleColor": INK[theme]}
    # The page's theme has more space here than cells.
    config["axis"] |= {"labelPadding": 6 * size, "titlePadding": 8 * size}
    config["legend"] |= {"offset": 8 * size, "padding": 0, "titlePadding": 4 * size}
    return build_spec(chart.properties(height=height, usermeta=SVG_RENDERER)) | {"config": config}


def _colour(metric: str, domain: tuple[float, float], theme: str, size: float, legend: bool) -> alt.Color:
    # Bright is good in every grid: the colours of losses and times are reversed.
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=list(domain), clamp=True, reverse=not is_percentage(metric))
    ticks: dict[str, Any] = {"values": [0.2, 0.4, 0.6, 0.8], "format": ".0%"} if is_percentage(metric) else {}
    bar = alt.Legend(
        title=_metric_title(metric), orient="bottom", direction="horizontal", titleLimit=0, titleFontWeight="normal",
        gradientLength=180 * size, gradientThickness=8 * size, tickCount=4, **ticks,
    )  # fmt: skip
    fills = {"datum.several": SEVERAL_FILL[theme], "!datum.filled": "transparent"}
    conditions = [{"test": test, "value": fill} for test, fill in fills.items()]
    return alt.Color("metric:Q", scale=scale, legend=bar if legend else None, condition=conditions)


def _metric_title(metric: str) -> str:
    """Return the title of the colours: the metric with its unit; accuracies have theirs at the numbers."""
    if is_time(metric):
        return "Training time (s)"
    return METRICS[metric].capitalize() + ("" if is_percentage(metric) else " (nats)")


def _outlines(base: alt.Chart, theme: str) -> list[alt.Chart]:
    """Return the outlines of selected and shown cells, above all cells, on a halo that parts them from any colour."""
    outlined = base.transform_filter("datum.selected || datum.shown")
    return [
        outlined.mark_rect(
            filled=False, aria=False, cornerRadius=4, cursor="pointer", stroke=colour,
            strokeWidth=alt.ExprRef(f"datum.selected ? {thick} : {thin}"),
        )
        for colour, thick, thin in ((BACKGROUND[theme], 7, 4.5), (INK[theme], 3, 1.5))
    ]  # fmt: skip


def _text_layers(base: alt.Chart, longest: tuple[int, int], theme: str, size: float) -> list[alt.Chart]:
    """Return the two lines of text. What does not fit in a cell at the smallest size is left to its tooltip."""
    letters = f"bandwidth('x') / {_LETTER * _SMALLEST_TEXT * size:g}"
    first = f"(length(datum.first) <= {letters} ? datum.first : '')"
    second = f"(length(datum.second) <= {letters} ? datum.second : length(datum.brief) <= {letters} ? datum.brief : '')"
    ink = (
        alt.when("datum.several").then(alt.value(INK[theme])).when("!datum.filled").then(alt.value(MUTED[theme]))
        .when("datum.bright").then(alt.value(DARK_TEXT)).otherwise(alt.value(BRIGHT_TEXT))
    )  # fmt: skip
    # A single line of text is centred.
    places: tuple[tuple[str, str, int, int, dict[str, Any]], ...] = (
        (first, f"{second} ? {-8 * size:g} : 0", 14, longest[0], _BOLD),
        (second, f"{10 * size:g}", 12, longest[1], {}),
    )
    return [
        base.mark_text(
            text=alt.ExprRef(text), dy=alt.ExprRef(dy), fontSize=_fitting(points, count, size), cursor="pointer",
            aria=False, **weight,
        ).encode(color=ink)
        for text, dy, points, count, weight in places
    ]  # fmt: skip


def _fitting(points: float, count: int, size: float) -> alt.ExprRef:
    """Return a font size that shrinks where cells are too narrow for ``count`` letters."""
    return alt.ExprRef(f"max({_SMALLEST_TEXT * size:g}, min({points * size:g}, bandwidth('x') / {_LETTER * count:g}))")


def _longest(table: pa.Table, column: str) -> int:
    """Return the length of the longest text of a column, at least that of a typical one."""
    longest = pc.max(pc.utf8_length(table[column])).as_py() or 0
    return max(longest, len(_TYPICAL_TEXT[column]))


# ---- axes


def _title(name: str) -> str:
    return f"{FIELDS[name].label} · parameters" if FIELDS[name].kind == "model" else FIELDS[name].label


def _label_lines(name: str, text: str) -> list[str]:
    """Return the lines of an axis label; a network has a short name and its number of parameters."""
    if FIELDS[name].kind == "model":
        half = _LABEL_LETTERS // 2
        short = text if len(text) <= _LABEL_LETTERS else f"{text[: half - 1]}…{text[-half:]}"
        return [short, f"{parse(text).parameters:,}"]
    return textwrap.wrap(text, _LABEL_LETTERS)


def _y_axis(name: str, order: Sequence[str]) -> alt.Axis:
    lines = {text: _label_lines(name, text) for text in order}
    return alt.Axis(ticks=False, domain=False, labelLimit=0, labelOverlap=False, **_labels(json.dumps(lines), lines))


def _x_axis(name: str, order: Sequence[str], size: float) -> tuple[alt.Axis, float]:
    """Return the axis, whose labels turn where columns are too narrow for them, and the height it may take."""
    lines = {text: _label_lines(name, text) for text in order}
    separator = " · " if FIELDS[name].kind == "model" else " "
    joined = {text: separator.join(parts) for text, parts in lines.items()}
    letter = 0.5 * 12
    width = letter * max((len(line) for parts in lines.values() for line in parts), default=1)
    turned = letter * max(map(len, joined.values()), default=1) * math.sin(math.radians(40))
    fits = f"bandwidth('x') >= {width * size:g}"
    axis = alt.Axis(
        ticks=False, domain=False, labelLimit=0, labelOverlap=False, labelAngle=alt.ExprRef(f"{fits} ? 0 : -40"),
        labelAlign=alt.ExprRef(f"{fits} ? 'center' : 'right'"),
        labelBaseline=alt.ExprRef(f"{fits} ? 'top' : 'middle'"),
        **_labels(f"({fits} ? {json.dumps(lines)} : {json.dumps(joined)})", lines),
    )  # fmt: skip
    # Half of the narrowest page: how wide the chart becomes is only known to the browser.
    is_turned = width * len(order) > 400
    two_lines = max((len(parts) for parts in lines.values()), default=1) - 1
    return axis, AXIS_HEIGHT + (turned if is_turned else 15 * two_lines)


def _labels(lookup: str, lines: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the label expression, if any label differs from its value."""
    return {"labelExpr": f"{lookup}[datum.value]"} if any([text] != parts for text, parts in lines.items()) else {}
