"""Parallel coordinates above learning curves: a vertical drag along an axis filters both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.analysis.statistics import summarize
from jsc_explore.charts.style import (
    ACCENT,
    BACKGROUND,
    FAINT,
    INK,
    MUTED,
    QUANTITIES,
    SEQUENTIAL_SCHEME,
    SVG_RENDERER,
    Chart,
    format_metric,
    is_percentage,
    number_axis,
)
from jsc_explore.config import FIELDS, display_value
from jsc_explore.store.schema import METRICS

# Both halves are layers of one view, because only a single view can take the width of its container.
HEIGHT = 640
_COORDINATES_BOTTOM, _CURVES_TOP = "height * 0.5", "height * 0.56"
# More lines hide each other, and their data would slow the page down.
MAX_LINES = 200
_FLOAT = pa.float32()
# Half the width of the strip along an axis that accepts a drag, in distances between axes.
_STRIP = 0.16
# Half the width of the drawn brush.
_BAND = 0.05
# From this ratio of the longest curve to the shortest on, short ones would vanish on a linear axis.
_LOG_FROM = 8.0
METRIC = "metric"


def varying_fields(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the hyperparameters that vary among these configs, in the order of RunConfig."""
    return [name for name in FIELDS if name != "seed" and len({row[name] for row in rows}) > 1]


def thin_evenly(rows: Sequence[Any], limit: int = MAX_LINES) -> list[Any]:
    """Return at most ``limit`` of the rows, evenly spaced from the first to the last."""
    count = min(len(rows), limit)
    return [rows[round(i * (len(rows) - 1) / max(1, count - 1))] for i in range(count)]


def curve_table(groups: pa.Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the curves of ``parallel_chart`` from ``Store.grouped_curves``: ``config`` (its index in rows), x, median.

    They are of the seeds that the figure of the config is over: those without a silent class, or all if each has one.
    """
    all_silent = {row["config_id"] for row in rows if row["n_silent"] + row["n_diverged"] == row["n_runs"]}
    kept = pc.is_in(groups["config_id"], value_set=pa.array(all_silent, pa.string()))
    groups = groups.filter(pc.equal(groups["is_silent"], kept))
    index_of = {row["config_id"]: index for index, row in enumerate(rows)}
    # Ids repeat at every point: each is looked up once.
    ids = groups["config_id"].combine_chunks().dictionary_encode()
    indices = pa.array([index_of.get(config_id) for config_id in ids.dictionary.to_pylist()], pa.int32())
    found = indices.take(ids.indices)
    # Four bytes a row for the index; the id would be thirty-two.
    medians = pa.array(summarize(groups["values"])["median"], _FLOAT)
    table = pa.table({"config": found, "x": groups["epoch"].cast(_FLOAT), "median": medians})
    return table.filter(table["config"].is_valid())


def parallel_tables(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[pa.Table, pa.Table]:
    """Return the two tables of ``parallel_chart``: one row a drawn config, and one row a tick of an axis.

    ``rows`` are those of ``store.query.aggregates.cell_table``; ``thin_evenly`` selects those that are drawn. The first
    table holds ``config`` (its index among the drawn rows), ``metric``, ``label``, ``text``, ``n``, ``n_silent`` and
    the positions ``a0``, ``a1``, … in [0, 1] on the axes, that of the metric last; the second ``axis``, ``y``,
    ``text``.
    """
    positions = _positions(rows)
    names = list(positions)
    lines = [
        {
            "config": index,
            "metric": row["metric"],
            "label": ", ".join(f"{FIELDS[name].inline_label} {display_value(name, row[name])}" for name in names[:-1]),
            "text": format_metric(metric, row["metric"]),
            "n_silent": row["n_silent"],
            "n": row["n"],
            **{f"a{axis}": positions[name][row[name]] for axis, name in enumerate(names)},
        }
        for index, row in enumerate(thin_evenly(rows))
    ]
    ticks = [
        {"axis": axis, "y": place, "text": display_value(name, value)}
        for axis, name in enumerate(names[:-1])
        for value, place in _thinned(positions[name])
    ]
    low, span = _extent(rows)
    ticks += [
        {"axis": len(names) - 1, "y": step / 4, "text": format_metric(metric, low + span * step / 4)}
        for step in range(5)
    ]
    return pa.Table.from_pylist(lines), pa.Table.from_pylist(ticks)


def brush_names(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the axes from left to right, by the name of their brush: hyperparameters that vary, then ``METRIC``."""
    return {f"brush{axis}": name for axis, name in enumerate([*varying_fields(rows), METRIC])}


def brushed(
    rows: Sequence[Mapping[str, Any]], selection: Mapping[str, Any]
) -> tuple[list[Mapping[str, Any]], tuple[str, ...]]:
    """Return the rows that a selection of ``parallel_chart`` keeps, drawn or not, and the axes that are brushed.

    ``selection`` comes from a browser: what is not a range on a known axis is ignored.
    """
    positions, kept, axes = _positions(rows), list(rows), []
    for brush, name in brush_names(rows).items():
        if (ends := _range(selection.get(brush))) is not None:
            axes.append(name)
            kept = [row for row in kept if ends[0] <= positions[name][row[name]] <= ends[1]]
    return kept, tuple(axes)


def _range(brush: Any) -> tuple[float, float] | None:
    ends = brush.get("y") if isinstance(brush, Mapping) else None
    if not isinstance(ends, (list, tuple)) or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        return None
    return min(ends), max(ends)


def _positions(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[Any, float]]:
    """Return the place in [0, 1] of each value on its axis, by axis from left to right."""
    low, span = _extent(rows)
    found = {name: _axis_positions(name, {row[name] for row in rows}) for name in varying_fields(rows)}
    return found | {METRIC: {row[METRIC]: (row[METRIC] - low) / span for row in rows}}


def _extent(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    metrics = [row[METRIC] for row in rows]
    return min(metrics), (max(metrics) - min(metrics)) or 1.0


def _axis_positions(name: str, values: set[Any]) -> dict[Any, float]:
    spec = FIELDS[name]
    if spec.kind in ("int", "float") and spec.log:
        ordered = sorted(values)
        low, high = math.log(ordered[0]), math.log(ordered[-1])
        return {value: (math.log(value) - low) / (high - low) for value in ordered}
    ordered = sorted(values) if spec.kind in ("int", "float", "bool") else sorted(values, key=str)
    return {value: place / (len(ordered) - 1) for place, value in enumerate(ordered)}


def _thinned(places: Mapping[Any, float], distance: float = 0.055) -> list[tuple[Any, float]]:
    """Leave out ticks whose labels would overlap."""
    kept: list[tuple[Any, float]] = []
    for value, place in places.items():
        if not kept or place - kept[-1][1] >= distance:
            kept.append((value, place))
    return kept


# ---- drawing


def parallel_chart(
    lines: pa.Table,
    ticks: pa.Table,
    curves: pa.Table,
    titles: Sequence[str],
    metric: str,
    quantity: str,
    theme: str = "light",
) -> Chart:
    """Draw parallel coordinates above the curves of their configs (those of ``curve_table``).

    A vertical drag along an axis keeps the configs that pass there, on several axes at once; a double click shows all
    again. Filtering happens in the browser, and changes neither colours nor the y axis.
    """
    axes = range(len(titles))
    brushes = [_brush(axis) for axis in axes]
    passes = " && ".join(
        f"(!isValid({b.name}.y) || inrange(datum.a{axis}, {b.name}.y))" for axis, b in enumerate(brushes)
    )
    colour = alt.Color("metric:Q", scale=_shades(lines, metric, theme), legend=None)
    top = _coordinates(lines, ticks, titles, brushes, passes, colour, metric, theme)
    carried = [name for name in lines.column_names if name != "config"]
    x_scale, is_drawn = _epochs(curves)
    below = (
        alt.Chart(curves)
        .transform_lookup(lookup="config", from_=alt.LookupData(lines, "config", carried))
        .transform_filter(f"{is_drawn} && {passes}")
        .mark_line(strokeWidth=1.3, opacity=0.6)
        .encode(
            x=alt.X("x:Q", title="epoch", scale=x_scale,
                    axis=alt.Axis(grid=False, tickMinStep=1, orient="bottom")),
            y=alt.Y("median:Q", title=QUANTITIES[quantity], scale=_fitted(curves),
                    axis=number_axis(quantity, tickCount=5)),
            color=colour,
            detail="config:N",
            tooltip=_tooltip(metric),
        )
    )  # fmt: skip
    both: Chart = alt.layer(top, below)
    chart: Chart = both.resolve_scale(x="independent", y="independent", color="shared")
    return chart.properties(height=HEIGHT, usermeta=SVG_RENDERER)


def _coordinates(
    lines: pa.Table,
    ticks: pa.Table,
    titles: Sequence[str],
    brushes: Sequence[alt.Parameter],
    passes: str,
    colour: alt.Color,
    metric: str,
    theme: str,
) -> Chart:
    last = len(titles) - 1
    x_scale = alt.Scale(domain=[-0.35, last + 0.35], nice=False)
    # One word a line, so that the titles fit a phone, too.
    names = json.dumps([title.split() for title in titles])
    x_axis = alt.Axis(
        orient="top", values=list(range(last + 1)), labelExpr=f"{names}[datum.value]", grid=False, domain=False,
        ticks=False, labelFontSize=13, labelColor=INK[theme], labelLimit=160, labelPadding=8, labelOverlap=False,
    )  # fmt: skip
    x = alt.X("axis:Q", scale=x_scale, axis=x_axis, title=None)
    y_scale = alt.Scale(domain=[-0.06, 1.06], range=[alt.ExprRef(_COORDINATES_BOTTOM), 0], nice=False)
    y = alt.Y("y:Q", scale=y_scale, axis=None)
    folded = (
        alt.Chart(lines)
        .transform_calculate(passes=passes)
        .transform_fold([f"a{axis}" for axis in range(last + 1)], as_=["name", "y"])
        .transform_calculate(axis="toNumber(slice(datum.name, 1))")
    )
    # Only the lines of configs have a tooltip: what stands in the rows of axes and brushes are no figures.
    faint = folded.transform_filter("!datum.passes").mark_line(
        color=FAINT[theme], strokeWidth=0.7, opacity=0.5, interpolate="monotone", tooltip=None
    )
    bright = folded.transform_filter("datum.passes").mark_line(strokeWidth=1.3, opacity=0.65, interpolate="monotone")
    faint = faint.encode(x=x, y=y, detail="config:N")
    bright = bright.encode(x=x, y=y, detail="config:N", color=colour, tooltip=_tooltip(metric))
    axis_lines = (
        alt.Chart(ticks).mark_line(color=MUTED[theme], strokeWidth=1, tooltip=None).encode(x=x, y=y, detail="axis:Q")
    )
    # A halo in the background colour keeps the numbers readable over the lines.
    halo: dict[str, Any] = {"stroke": BACKGROUND[theme], "strokeWidth": 4, "strokeJoin": "round"}
    # The numbers of the last axis are on its right, where there are no lines.
    left = alt.Chart(ticks).transform_filter(f"datum.axis < {last}").encode(x=x, y=y, text="text:N")
    right = alt.Chart(ticks).transform_filter(f"datum.axis == {last}").encode(x=x, y=y, text="text:N")
    numbers = [
        text
        for paint in (halo, {"color": INK[theme]})
        for text in (
            left.mark_text(align="right", dx=-7, tooltip=None, **paint),
            right.mark_text(align="left", dx=7, tooltip=None, **paint),
        )
    ]
    strips = pa.Table.from_pylist(
        [{"axis": a, "left": a - _STRIP, "right": a + _STRIP, "y": -0.06, "top": 1.06} for a in range(last + 1)]
    )
    band = _drawn_brushes(strips, brushes, x_scale, y_scale, theme)
    strip = alt.Chart(strips).mark_rect(fill="transparent", cursor="ns-resize", aria=False, tooltip=None)
    strip = strip.encode(x=alt.X("left:Q", scale=x_scale), x2="right:Q", y=y, y2="top:Q").add_params(*brushes)
    return alt.layer(faint, bright, axis_lines, *numbers, band, strip)


def _brush(axis: int) -> alt.Parameter:
    """Return the brush of one axis, which reacts only to drags that start on the strip of that axis.

    It is a range of y alone, so that its own rectangle is as wide as the chart: that is invisible and lets the pointer
    through (``web/style.css``); ``_drawn_brushes`` draws the one that is seen.
    """
    drags = "event.item && event.item.datum && isDefined(event.item.datum.left)"
    return alt.selection_interval(
        name=f"brush{axis}",
        encodings=["y"],
        on=f"[pointerdown[{drags} && event.item.datum.axis === {axis}], window:pointerup] > window:pointermove!",
        clear="dblclick",
        translate=False,
        zoom=False,
        mark=alt.BrushConfig(fillOpacity=0, strokeOpacity=0),
    )


def _drawn_brushes(
    strips: pa.Table, brushes: Sequence[alt.Parameter], x_scale: alt.Scale, y_scale: alt.Scale, theme: str
) -> Any:
    ranges = ", ".join(f"{brush.name}.y" for brush in brushes)
    return (
        alt.Chart(strips)
        .transform_calculate(range=f"[{ranges}][datum.axis]")
        .transform_filter("isValid(datum.range)")
        .transform_calculate(low="datum.range[0]", high="datum.range[1]", start=f"datum.axis - {_BAND}",
                             end=f"datum.axis + {_BAND}")
        .mark_rect(fill=ACCENT[theme], fillOpacity=0.25, stroke=ACCENT[theme], aria=False, tooltip=None)
        .encode(x=alt.X("start:Q", scale=x_scale), x2="end:Q", y=alt.Y("low:Q", scale=y_scale, axis=None), y2="high:Q")
    )  # fmt: skip


def _tooltip(metric: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="configuration"),
        alt.Tooltip("text:N", title=METRICS[metric].split(",")[0]),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("n_silent:Q", title="seeds with a silent class"),
    ]


def _shades(lines: pa.Table, metric: str, theme: str) -> alt.Scale:
    """Return the sequential colour scheme over all configs, without the end that is invisible on this theme."""
    extent = [0.0, 0.9] if theme == "light" else [0.2, 1.0]
    ends = pc.min_max(lines["metric"]).as_py()
    scheme = alt.SchemeParams(name=SEQUENTIAL_SCHEME, extent=extent)
    return alt.Scale(scheme=scheme, domain=[ends["min"], ends["max"]], reverse=not is_percentage(metric))


def _epochs(curves: pa.Table) -> tuple[alt.Scale, str]:
    """Return the scale of the epochs, fitted to the curves that are drawn, and the test of the points that it takes."""
    lengths = curves.group_by("config").aggregate([("x", "max")])["x_max"]
    ends = pc.min_max(lengths).as_py()
    if ends["min"] and ends["max"] / ends["min"] >= _LOG_FROM:
        return alt.Scale(type="log", nice=False), "datum.x > 0"
    return alt.Scale(zero=True, nice=False), "true"


def _fitted(curves: pa.Table) -> alt.Scale:
    # Fitted to all curves: a brush must not move the axis.
    ends = pc.min_max(curves["median"]).as_py()
    low, high = ends["min"] or 0.0, ends["max"] or 1.0
    margin = 0.03 * (high - low)
    return alt.Scale(domain=[low - margin, high + margin], range=[alt.ExprRef("height"), alt.ExprRef(_CURVES_TOP)],
                     nice=False)  # fmt: skip
