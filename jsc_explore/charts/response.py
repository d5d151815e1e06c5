"""A metric against one hyperparameter: a point with its spread for each value, a line for each value of a second."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
from altair.utils.schemapi import debug_mode

from jsc_explore.analysis.cells import in_order
from jsc_explore.charts.curve_labels import LABELS, LINE_HEIGHT, move_apart
from jsc_explore.charts.curves import CHANCE
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.parallel import thin_evenly
from jsc_explore.charts.style import (
    BACKGROUND,
    INK,
    MUTED,
    SVG_RENDERER,
    colours,
    format_median,
    format_metric,
    is_percentage,
    is_time,
    number_axis,
    readable,
    spread_name,
)
from jsc_explore.config import FIELDS, display_value
from jsc_explore.network import parse
from jsc_explore.store.schema import METRICS

HEIGHT = 340
POINTS, SEEDS = "points", "seeds"
# More lines cannot be told apart; more dots would slow the page down.
MAX_LINES, MAX_DOTS = 12, 1500
# Up to so many points there is room for the rate of silent seeds beside each; else a sign stands for it.
MAX_RATES = 14
# Of runs of several configs, whose spread is not that of seeds.
MIDDLE_HALF = "middle half"
_LETTER = 6.8
# Of an x axis with long labels: its least width in pixels, and how many rows of labels stand below it.
_NARROW, _MAX_ROWS = 260, 4
# Of marks without a text of their own: the page's theme would give them one of their columns.
_QUIET: dict[str, Any] = {"aria": False, "tooltip": None}


def height_of(size: float) -> float:
    """Return the height of the chart with fonts ``size`` times the default: also large ones leave it on the screen."""
    return HEIGHT * (1 + (size - 1) / 4)


@dataclass(frozen=True)
class ResponseOptions:
    """What is drawn: ``metric`` against a hyperparameter, a line for each value of ``lines``; ``size`` scales fonts."""

    metric: str
    against: str
    lines: str | None = None
    theme: str = "light"
    size: float = 1.0


@dataclass(frozen=True)
class ResponseAxes:
    """The axes of a chart, or of several that are to be compared: ticks of x with their labels, lines, range of y."""

    log_x: bool
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    places: tuple[tuple[Any, float], ...]
    lines: tuple[Any, ...]
    y_range: tuple[float, float]
    log_y: bool


def spread_of(row: Mapping[str, Any], metric: str) -> tuple[float, float, str] | None:
    """Return the ends of what is drawn around a median and its name; None for one run and for times.

    Of one config it is the spread of its seeds, of several the middle half of their runs.
    """
    metrics = row["metrics"] or []
    if len(metrics) < 2 or is_time(metric):
        return None
    if row["n_configs"] > 1:
        low, high = np.quantile(metrics, (0.25, 0.75))
        return float(low), float(high), MIDDLE_HALF
    return row["low"], row["high"], spread_name(len(metrics))


def response_axes(rows: Sequence[Mapping[str, Any]], options: ResponseOptions) -> ResponseAxes:
    """Return the axes on which all of these rows, at least one, can be drawn.

    Numbers of a logarithmic kind are placed by their value, networks by their number of parameters, other values evenly
    in their order. The range of y is that of points, spreads and seeds, and includes the level of chance if it is near.
    """
    values = in_order(options.against, {row[options.against] for row in rows})
    places = dict(zip(values, map(float, range(len(values))), strict=True))
    log_x = True
    if options.against == "model":
        places = {value: float(parse(value).parameters) for value in values}
    elif FIELDS[options.against].log:
        places = {value: float(value) for value in values}
    else:
        log_x = False
    names: dict[float, list[str]] = {}
    for value, place in sorted(places.items(), key=lambda item: item[1]):
        names.setdefault(place, []).append(display_value(options.against, value))
    lines = in_order(options.lines, {row[options.lines] for row in rows}) if options.lines else [None]
    y_range, log_y = _y_range(rows, options.metric)
    labels = tuple(", ".join(texts) for texts in names.values())
    return ResponseAxes(
        log_x, tuple(names), labels, tuple(places.items()), tuple(thin_evenly(lines, MAX_LINES)), y_range, log_y
    )


def _y_range(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[tuple[float, float], bool]:
    values = [value for row in rows for value in (_figure(row), *(row["metrics"] or []))]
    low, high = min(values), max(values)
    if not is_percentage(metric) and low > 0 and high / low > 10:
        return (low / 1.1, high * 1.1), True
    span = high - low or 0.1 * abs(high) or 1.0
    if is_percentage(metric) and low - 0.25 * span < CHANCE < low:
        low = CHANCE
    return (low - 0.05 * span, high + 0.05 * span), False


def _figure(row: Mapping[str, Any]) -> float:
    """Return the figure of a row by the rule of the grid: the median, or that of all where each has a silent class."""
    return float(row["median"] if row["metrics"] else row["median_all"])


def response_tables(
    rows: Sequence[Mapping[str, Any]], options: ResponseOptions, axes: ResponseAxes
) -> dict[str, pa.Table]:
    """Return the tables that ``response_figure`` draws, from the rows of ``Repository.response``.

    ``points`` has one row for each value on each line, ``seeds`` one for each run without a silent class, ``labels``
    one for each line, at its end. ``shift`` moves the points of several lines apart.
    """
    places, shown = dict(axes.places), [row for row in rows if row["n"]]
    brief = len(axes.lines) * len(axes.ticks) > MAX_RATES
    points, seeds, ends = [], [], []
    for i, value in enumerate(axes.lines):
        line = display_value(options.lines, value) if options.lines else ""
        shift = i - (len(axes.lines) - 1) / 2
        own = [row for row in shown if options.lines is None or row[options.lines] == value]
        own.sort(key=lambda row: places[row[options.against]])
        for row in own:
            at = {"x": places[row[options.against]], "line": line, "shift": shift}
            points.append(at | _point(row, options, brief))
            seeds += [at | {"value": metric} for metric in row["metrics"] or []]
        if own and options.lines:
            last = points[-1]
            ends.append({name: last[name] for name in ("x", "value", "line", "shift")})
    return {
        POINTS: pa.Table.from_pylist(points, _POINTS),
        SEEDS: pa.Table.from_pylist(thin_evenly(seeds, MAX_DOTS), _SEEDS),
        LABELS: pa.Table.from_pylist(_labels_of(ends, options, axes), _LABELS),
    }


def _point(row: Mapping[str, Any], options: ResponseOptions, brief: bool) -> dict[str, Any]:
    value, n, silent, metric = _figure(row), row["n"] - row["n_silent"], row["n_silent"], options.metric
    low, high, kind = spread_of(row, metric) or (value, value, "")
    names = [name for name in (options.against, options.lines) if name]
    kinds = "runs" if row["n_configs"] > 1 else "seeds"
    if kind == MIDDLE_HALF:
        text = f"{format_metric(metric, value)} (middle half {format_metric(metric, low)} to "
        text += f"{format_metric(metric, high)})"
    else:
        text = format_median(metric, value, low, high, n if kind else 1)
    counts = f"{n or row['n']}" + (f", of {row['n_configs']} configs" if row["n_configs"] > 1 else "")
    return {
        "value": value, "low": low, "high": high, "kind": kind, "open": not n,
        "mark": ("†" if brief else f"† {silent} of {row['n']}") if silent else "",
        "place": ", ".join(f"{FIELDS[name].inline_label} {_value_text(name, row[name])}" for name in names),
        "text": text, "counts": counts,
        "classes": f"{silent} of {row['n']} {kinds}" if silent else "none",
    }  # fmt: skip


def _value_text(field: str, value: Any) -> str:
    text = display_value(field, value)
    return f"{text} ({parse(value).parameters:,} parameters)" if field == "model" else text


def _labels_of(ends: Sequence[Mapping[str, Any]], options: ResponseOptions, axes: ResponseAxes) -> list[dict[str, Any]]:
    """Add to the ends of lines ``at``, where their names stand one above the other, and the colours of the names."""
    low, high = (math.log(end) if axes.log_y else end for end in axes.y_range)
    # On a page the x axis takes a part of the height. The upper end is kept for the name of the hyperparameter.
    gap = LINE_HEIGHT * options.size / (height_of(options.size) - 70 * options.size)
    room = 1 - 1.6 * gap
    values = [math.log(end["value"]) if axes.log_y else end["value"] for end in ends]
    shares = move_apart([min(1.0, (value - low) / (high - low) / room) for value in values], gap / room)
    found = []
    for end, share in zip(ends, shares, strict=True):
        at, place = low + share * room * (high - low), _names(options, axes).index(end["line"])
        shades = {
            theme: readable(colours(len(axes.lines), _is_ordered(options), theme)[place], theme) for theme in BACKGROUND
        }
        found.append({**end, "at": math.exp(at) if axes.log_y else at, **shades})
    return found


def _is_ordered(options: ResponseOptions) -> bool:
    return options.lines is not None and (options.lines == "model" or FIELDS[options.lines].kind in ("int", "float"))


_SEEDS = pa.schema(
    [("x", pa.float64()), ("value", pa.float64()), ("shift", pa.float64()), ("line", pa.string())]
)  # fmt: skip
_LABELS = pa.schema([*_SEEDS, ("at", pa.float64()), *((theme, pa.string()) for theme in BACKGROUND)])
_POINTS = pa.schema(
    [*_SEEDS, ("low", pa.float64()), ("high", pa.float64()), ("open", pa.bool_())]
    + [(name, pa.string()) for name in ("kind", "mark", "place", "text", "counts", "classes")]
)


# ---- drawing


def response_figure(tables: Mapping[str, pa.Table], options: ResponseOptions, axes: ResponseAxes) -> Figure:
    """Draw the tables of ``response_tables``."""
    text = f"{_title(options.metric)} against {FIELDS[options.against].inline_label}"
    text += f", a line for each {FIELDS[options.lines].inline_label}" if options.lines else ""
    return Figure(_spec(options, axes), dict(tables), text, width=640)


def _title(metric: str) -> str:
    text = METRICS[metric].split(",")[0]
    return text[0].upper() + text[1:]


@lru_cache(maxsize=256)
def _spec(options: ResponseOptions, axes: ResponseAxes) -> dict[str, Any]:
    size, theme, count = options.size, options.theme, len(axes.lines)
    names = _names(options, axes)
    colour = alt.Color(
        "line:N", scale=alt.Scale(domain=names, range=colours(count, _is_ordered(options), theme)), legend=None
    )  # fmt: skip
    x, y = _x(options, axes), _y(options, axes)
    shift = alt.ExprRef(f"datum.shift * {_shift_step(options, axes):g}")
    points = chart_from(POINTS).encode(x=x, y=y, color=colour)
    many = "datum.kind === 'middle half'"
    bars = points.mark_rule(xOffset=shift, **_QUIET, strokeCap="butt").encode(
        y=alt.Y("low:Q"), y2="high:Q",
        strokeWidth=alt.condition(many, alt.value(9 * size), alt.value(1.5 * size)),
        opacity=alt.condition(many, alt.value(0.25), alt.value(0.75)),
    )  # fmt: skip
    lines = points.mark_line(xOffset=shift, strokeWidth=1.5 * size, opacity=0.7, **_QUIET)
    seeds = chart_from(SEEDS).mark_point(xOffset=shift, filled=True, size=12 * size**2, opacity=0.35, **_QUIET)
    tooltip = [
        alt.Tooltip("place:N", title=" "),
        alt.Tooltip("text:N", title="median"),
        alt.Tooltip("counts:N", title="seeds"),
        alt.Tooltip("classes:N", title="with a silent class"),
    ]
    dots = points.mark_point(xOffset=shift, filled=True, size=48 * size**2, strokeWidth=1.5 * size, opacity=1).encode(
        stroke=colour, tooltip=tooltip, fill=alt.condition("datum.open", alt.value(BACKGROUND[theme]), colour),
    )  # fmt: skip
    marks = points.mark_text(xOffset=shift, baseline="top", dy=6 * size, fontSize=12 * size, **_QUIET).encode(
        y="low:Q", text="mark:N", color=alt.value(MUTED[theme])
    )
    layers = [*_chance(options, axes), bars, seeds.encode(x=x, y=y, color=colour), lines, dots, marks]
    if options.lines:
        layers += _labels(x, y, shift, options, axes)
    chart = alt.layer(*layers).properties(height=height_of(size), usermeta=SVG_RENDERER)
    # Validation takes most of the time; the tests validate the chart.
    with debug_mode(False):
        return build_spec(chart, validate=False) | {"config": font_config(size, theme)}


def _x(options: ResponseOptions, axes: ResponseAxes) -> alt.X:
    spec = FIELDS[options.against]
    title = "Network, by its number of parameters" if options.against == "model" else spec.label
    low, high = axes.ticks[0], axes.ticks[-1]
    # From the first value to the last; the left one keeps clear of the y axis.
    margin = 0.06 if options.lines else 0.12
    if axes.log_x:
        domain = [low * (low / high) ** margin, high] if low < high else [low / 2, high * 2]
    else:
        domain = [low - margin * (high - low), high] if low < high else [low - 1, high + 1]
    scale = alt.Scale(
        type="log" if axes.log_x else "linear",
        domain=domain,
        nice=False,
        zero=False,
        range=[0, alt.ExprRef(_right_end(options, axes))],
    )
    names = options.against == "model"
    labels = _in_rows(axes.ticks, axes.labels) if names else axes.labels
    axis = alt.Axis(
        values=list(axes.ticks), labelExpr=f"{json.dumps(labels)}[indexof({json.dumps(axes.ticks)}, datum.value)]",
        labelOverlap=False if names else "greedy", labelSeparation=6, labelAngle=0, labelFlush=False, grid=False,
    )  # fmt: skip
    return alt.X("x:Q", title=title, scale=scale, axis=axis)


def _in_rows(ticks: Sequence[float], labels: Sequence[str]) -> list[list[str]]:
    """Return labels of a logarithmic axis as lines of text, lower where they would overlap on a narrow chart."""
    span = math.log(ticks[-1] / ticks[0]) or 1.0
    ends, found = [-math.inf] * _MAX_ROWS, []
    for tick, label in zip(ticks, labels, strict=True):
        middle, half = _NARROW * math.log(tick / ticks[0]) / span, _LETTER * len(label) / 2
        row = next((row for row, end in enumerate(ends) if end < middle - half), ends.index(min(ends)))
        ends[row] = middle + half + _LETTER
        # Dots lead from the tick to a lower label: an empty line would take no room.
        found.append(["·"] * row + [label])
    return found


def _y(options: ResponseOptions, axes: ResponseAxes) -> alt.Y:
    scale = alt.Scale(type="log" if axes.log_y else "linear", domain=list(axes.y_range), nice=False, zero=False)
    axis = number_axis(options.metric, tickCount=6)
    if is_percentage(options.metric) and axes.y_range[1] - axes.y_range[0] < 0.06:
        axis = alt.Axis(format=".1%", tickCount=6)
    return alt.Y("value:Q", title=_title(options.metric), scale=scale, axis=axis)


# Draws a mark once: rows of a chart would be replaced by the tables of the figure.
_ONCE = alt.Chart(alt.sequence(0, 1))


def _chance(options: ResponseOptions, axes: ResponseAxes) -> list[alt.Chart]:
    low, high = axes.y_range
    if not is_percentage(options.metric) or not low < CHANCE < high:
        return []
    level = _ONCE.encode(y=alt.YDatum(CHANCE))
    rule = level.mark_rule(strokeDash=[4, 4], strokeWidth=1, color=MUTED[options.theme], **_QUIET).encode(
        x=alt.value(0), x2=alt.value(alt.ExprRef(_right_end(options, axes)))
    )
    text = level.mark_text(
        align="right", baseline="bottom", dy=-2, fontSize=12 * options.size, color=MUTED[options.theme], **_QUIET
    ).encode(x=alt.value(alt.ExprRef(_right_end(options, axes))), text=alt.value("chance"))
    return [rule, text]


def _labels(x: alt.X, y: alt.Y, shift: alt.ExprRef, options: ResponseOptions, axes: ResponseAxes) -> list[alt.Chart]:
    """Return the names of the lines right of all points, thin lines that lead to them, and what they are values of."""
    size, at_end = options.size, alt.value(alt.ExprRef(_right_end(options, axes)))
    left = _outermost(options, axes) + 14 * size
    at = y.copy()
    at.shorthand = "at:Q"
    colour = alt.Color(f"{options.theme}:N", scale=None, legend=None)
    ends = chart_from(LABELS).encode(color=colour)
    # Dotted: a thin solid line to the name of a line that ends early would look measured.
    leaders = ends.mark_rule(
        xOffset=shift, x2Offset=left - 4 * size, strokeWidth=size, strokeDash=[1, 4], opacity=0.6, **_QUIET
    )
    text: dict[str, Any] = {"align": "left", "fontSize": 12 * size, "xOffset": left, **_QUIET}
    head = _ONCE.mark_text(baseline="top", dy=2 * size, color=INK[options.theme], **text)
    name = FIELDS[options.lines].label if options.lines else ""
    return [
        leaders.encode(x=x, x2=at_end, y=y, y2="at:Q"),
        ends.mark_text(fontWeight=600, **text).encode(x=at_end, y=at, text="line:N"),
        head.encode(x=at_end, y=alt.value(0), text=alt.value(name)),
    ]


def _shift_step(options: ResponseOptions, axes: ResponseAxes) -> float:
    """Return the pixels between two points at one value; less where there are many points."""
    return min(5 * options.size, 240 / (len(axes.lines) * len(axes.ticks)))


def _outermost(options: ResponseOptions, axes: ResponseAxes) -> float:
    return (len(axes.lines) - 1) / 2 * _shift_step(options, axes)


def _right_end(options: ResponseOptions, axes: ResponseAxes) -> str:
    """Return where the x axis ends, as a Vega expression: right of it stand the names of the lines."""
    if options.lines is None:
        return "width - 12"
    letters = max(*map(len, _names(options, axes)), len(FIELDS[options.lines].label))
    return f"width - {_outermost(options, axes) + (letters * _LETTER + 16) * options.size:g}"


def _names(options: ResponseOptions, axes: ResponseAxes) -> list[str]:
    return [display_value(options.lines, value) for value in axes.lines] if options.lines else [""]
