"""Parallel coordinates above learning curves: a drag along an axis filters both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.analysis.statistics import summarize
from jsc_explore.charts.curves import ACCURACY_RANGE
from jsc_explore.charts.style import (
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

# Both halves are layers of one view, because only a single view can take the width of its container.
HEIGHT = 640
_COORDINATES_BOTTOM, _CURVES_TOP = "height * 0.5", "height * 0.56"
# More lines hide each other, and their data would slow the page down.
MAX_LINES = 200
_FLOAT = pa.float32()
# Half the width of the strip along an axis that accepts a drag, in distances between axes.
_STRIP = 0.16


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
    """Return the two tables of ``parallel_chart``: one row a config, and one row a tick of an axis.

    ``rows`` are those of ``store.query.aggregates.cell_table``. The first holds ``config`` (its index in rows),
    ``metric``, ``label``, ``text``, ``n``, ``n_silent`` and the positions ``a0``, ``a1``, … in [0, 1] on the axes,
    that of the metric last; the second ``axis``, ``y``, ``text``.
    """
    names = varying_fields(rows)
    positions = {name: _axis_positions(name, {row[name] for row in rows}) for name in names}
    metrics = [row["metric"] for row in rows]
    low, high = min(metrics), max(metrics)
    span = (high - low) or 1.0
    lines = [
        {
            "config": index,
            "metric": row["metric"],
            "label": ", ".join(f"{FIELDS[name].inline_label} {display_value(name, row[name])}" for name in names),
            "text": format_metric(metric, row["metric"]),
            "n_silent": row["n_silent"],
            "n": row["n"],
            **{f"a{axis}": positions[name][row[name]] for axis, name in enumerate(names)},
            f"a{len(names)}": (row["metric"] - low) / span,
        }
        for index, row in enumerate(rows)
    ]
    ticks = [
        {"axis": axis, "y": place, "text": display_value(name, value)}
        for axis, name in enumerate(names)
        for value, place in _thinned(positions[name])
    ]
    ticks += [
        {"axis": len(names), "y": step / 4, "text": format_metric(metric, low + span * step / 4)} for step in range(5)
    ]
    return pa.Table.from_pylist(lines), pa.Table.from_pylist(ticks)


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
    """Draw parallel coordinates above the curves of their configs (those of ``curve_rows``).

    A drag along an axis keeps the configs that pass through it, on several axes at once; a double click removes the
    filter. Filtering happens in the browser.
    """
    axes = range(len(titles))
    brushes = [_brush(axis) for axis in axes]
    passes = " && ".join(
        f"(!isValid({b.name}.y) || inrange(datum.a{axis}, {b.name}.y))" for axis, b in enumerate(brushes)
    )
    colour = alt.Color("metric:Q", scale=_shades(metric, theme), legend=None)
    top = _coordinates(lines, ticks, titles, brushes, passes, colour, theme)
    end = pa.compute.max(curves["x"]).as_py() or 1
    carried = [name for name in lines.column_names if name != "config"]
    below = (
        alt.Chart(curves)
        .transform_lookup(lookup="config", from_=alt.LookupData(lines, "config", carried))
        .transform_filter(passes)
        .mark_line(strokeWidth=1.3, opacity=0.6)
        .encode(
            x=alt.X("x:Q", title="epoch", scale=alt.Scale(domain=[0, end], nice=False),
                    axis=alt.Axis(grid=False, tickMinStep=1, orient="bottom")),
            y=alt.Y("median:Q", title=QUANTITIES[quantity], scale=_fixed(curves, quantity),
                    axis=number_axis(quantity, tickCount=5)),
            color=colour,
            detail="config:N",
            tooltip=_tooltip(),
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
    y = alt.Y(
        "y:Q", scale=alt.Scale(domain=[-0.06, 1.06], range=[alt.ExprRef(_COORDINATES_BOTTOM), 0], nice=False), axis=None
    )
    folded = (
        alt.Chart(lines)
        .transform_calculate(passes=passes)
        .transform_fold([f"a{axis}" for axis in range(last + 1)], as_=["name", "y"])
        .transform_calculate(axis="toNumber(slice(datum.name, 1))")
    )
    faint = folded.transform_filter("!datum.passes").mark_line(color=FAINT[theme], strokeWidth=0.7, opacity=0.5)
    bright = folded.transform_filter("datum.passes").mark_line(strokeWidth=1.3, opacity=0.65, interpolate="monotone")
    faint = faint.encode(x=x, y=y, detail="config:N")
    bright = bright.encode(x=x, y=y, detail="config:N", color=colour, tooltip=_tooltip())
    axis_lines = alt.Chart(ticks).mark_line(color=MUTED[theme], strokeWidth=1).encode(x=x, y=y, detail="axis:Q")
    # A halo in the background colour keeps the numbers readable over the lines.
    halo: dict[str, Any] = {"stroke": BACKGROUND[theme], "strokeWidth": 4, "strokeJoin": "round"}
    # The numbers of the last axis are on its right, where there are no lines.
    left = alt.Chart(ticks).transform_filter(f"datum.axis < {last}").encode(x=x, y=y, text="text:N")
    right = alt.Chart(ticks).transform_filter(f"datum.axis == {last}").encode(x=x, y=y, text="text:N")
    numbers = [
        text
        for paint in (halo, {"color": INK[theme]})
        for text in (left.mark_text(align="right", dx=-7, **paint), right.mark_text(align="left", dx=7, **paint))
    ]
    strips = pa.Table.from_pylist(
        [{"axis": a, "left": a - _STRIP, "right": a + _STRIP, "y": -0.06, "top": 1.06} for a in range(last + 1)]
    )
    strip = alt.Chart(strips).mark_rect(fill="transparent", cursor="crosshair", aria=False)
    strip = strip.encode(x=alt.X("left:Q", scale=x_scale), x2="right:Q", y=y, y2="top:Q").add_params(*brushes)
    return alt.layer(faint, bright, axis_lines, *numbers, strip)


def _brush(axis: int) -> alt.Parameter:
    """Return the brush of one axis, which reacts only to drags that start on the strip of that axis."""
    drags = "event.item && event.item.datum && isDefined(event.item.datum.left)"
    return alt.selection_interval(
        name=f"brush{axis}",
        encodings=["x", "y"],
        on=f"[pointerdown[{drags} && event.item.datum.axis === {axis}], window:pointerup] > window:pointermove!",
        clear="dblclick",
        zoom=False,
        mark=alt.BrushConfig(fill="#888", fillOpacity=0.25, stroke="#888"),
    )


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="config"),
        alt.Tooltip("text:N", title="metric"),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("n_silent:Q", title="seeds with a silent class"),
    ]


def _shades(metric: str, theme: str) -> alt.Scale:
    """Return the sequential colour scheme without the end that is invisible on this theme."""
    extent = [0.0, 0.9] if theme == "light" else [0.2, 1.0]
    return alt.Scale(scheme=alt.SchemeParams(name=SEQUENTIAL_SCHEME, extent=extent), reverse=not is_percentage(metric))


def _fixed(curves: pa.Table, quantity: str) -> alt.Scale:
    # A filter must not move the axis.
    placing: dict[str, Any] = {"range": [alt.ExprRef("height"), alt.ExprRef(_CURVES_TOP)], "nice": False}
    if is_percentage(quantity):
        return alt.Scale(domain=list(ACCURACY_RANGE), **placing)
    ends = pa.compute.min_max(curves["median"]).as_py()
    return alt.Scale(domain=[ends["min"] or 0.0, ends["max"] or 1.0], **placing)
