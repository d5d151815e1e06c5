"""The features of the jets: an overview of all sixteen, the histogram of one, and their correlations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pyarrow as pa

from jsc_explore.charts.style import CATEGORIES, FAINT, INK, MUTED, POWER_LABEL, SVG_RENDERER, Chart
from jsc_explore.data.glossary import CLASS_NAMES, NOTES
from jsc_explore.data.jets import CLASSES, FEATURES

# Two blues for gluon and light quark; W and Z, whose curves nearly coincide, in colours far apart.
CLASS_COLOURS = dict(zip(CLASSES, (CATEGORIES[i] for i in (0, 4, 2, 3, 1)), strict=True))
SELECTION = "feature"
COLUMNS = 4
CELL_HEIGHT = 135
HISTOGRAM_HEIGHT = 330
CORRELATION_HEIGHT = 560
# The share of a cell that its curves fill; the rest is gap and title.
_FILL_X, _FILL_Y = 0.9, 0.66


def overview_table(histograms: pa.Table) -> pa.Table:
    """Return the table of ``overview_chart`` from ``JetFile.histograms``: one row a feature, class and bin.

    Each feature fills one cell of a grid: ``x`` and ``y`` are coordinates of that grid, with y upwards. Cells have no
    axes: the overview compares shapes.
    """
    rows = histograms.to_pylist()
    span: dict[str, tuple[float, float, float]] = {}
    for row in rows:
        low, high, top = span.get(row["feature"], (row["low"], row["high"], 0.0))
        span[row["feature"]] = min(low, row["low"]), max(high, row["high"]), max(top, row["share"])
    drawn = []
    for row in rows:
        low, high, top = span[row["feature"]]
        column, row_index = _grid_position(row["feature"])
        middle = (row["low"] + row["high"]) / 2
        drawn.append(
            {
                "feature": row["feature"],
                "class": CLASS_NAMES[row["label"]],
                "x": column + _FILL_X * (middle - low) / (high - low),
                "y": -row_index - 1 + _FILL_Y * row["share"] / top if top else -row_index - 1.0,
            }
        )
    return pa.Table.from_pylist(drawn)


def histogram_table(histogram: pa.Table, *, log_y: bool) -> pa.Table:
    """Return the table of ``histogram_chart``: one row a class and bin, with edges, ``n``, ``share`` and ``height``.

    A last row of zero width ends the line of each class. The height is the share, but null for an empty bin on a
    logarithmic axis: there the line is interrupted.
    """
    end = max(histogram["high"].to_pylist())
    rows = []
    for row in histogram.to_pylist():
        height = None if log_y and not row["n"] else row["share"]
        drawn = {"class": CLASS_NAMES[row["label"]], "low": row["low"], "high": row["high"], "n": row["n"]}
        rows.append({**drawn, "share": row["share"], "height": height})
        if row["high"] == end:  # a step ends where the next one starts
            rows.append({**drawn, "low": end, "n": 0, "share": 0.0, "height": height})
    return pa.Table.from_pylist(rows, schema=_HISTOGRAM)


_HISTOGRAM = pa.schema(
    [
        ("class", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("share", pa.float64()),
        ("height", pa.float64()),
    ]
)


def _grid_position(feature: str) -> tuple[int, int]:
    row_index, column = divmod(FEATURES.index(feature), COLUMNS)
    return column, row_index


def _cell(feature: str, selected: bool) -> dict[str, object]:
    column, row_index = _grid_position(feature)
    return {
        "feature": feature,
        # All but two names end in this; without it they fit a narrow screen.
        "name": feature.removesuffix("_mmdt"),
        "text": f"{feature}: {NOTES[feature].text}",
        "selected": selected,
        "x": column - 0.03,
        "x2": column + _FILL_X + 0.03,
        "y": -row_index - 1.03,
        "y2": -row_index - 0.08,
    }


# ---- drawing


def overview_chart(table: pa.Table, selected: str, theme: str = "light") -> Chart:
    """Draw the table of ``overview_table``; a click selects a ``feature``, ``selected`` is outlined."""
    grid_rows = -(-len(FEATURES) // COLUMNS)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.05, COLUMNS - 0.05], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-grid_rows - 0.06, 0], nice=False))
    curves = (
        alt.Chart(table)
        .mark_line(interpolate="step", strokeWidth=1.3)
        .encode(x=x, y=y, color=_colour(), detail="feature:N")
    )
    cells = alt.Chart(pa.Table.from_pylist([_cell(feature, feature == selected) for feature in FEATURES]))
    click = alt.selection_point(name=SELECTION, fields=["feature"], toggle=False, on="click")
    frame = cells.mark_rect(cornerRadius=4, fillOpacity=0, cursor="pointer").encode(
        x=alt.X("x:Q", axis=None),
        x2="x2:Q",
        y=alt.Y("y:Q", axis=None),
        y2="y2:Q",
        fill=alt.value(FAINT[theme]),
        stroke=alt.when("datum.selected").then(alt.value(INK[theme])).otherwise(alt.value(FAINT[theme])),
        strokeWidth=alt.when("datum.selected").then(alt.value(2)).otherwise(alt.value(0.6)),
        tooltip=[alt.Tooltip("text:N", title=" ")],
    )
    names = cells.mark_text(align="left", baseline="top", fontSize=10.5, dx=2, dy=5, cursor="pointer").encode(
        x=alt.X("x:Q", axis=None),
        y=alt.Y("y2:Q", axis=None),
        text="name:N",
        color=alt.when("datum.selected").then(alt.value(INK[theme])).otherwise(alt.value(MUTED[theme])),
    )
    # The frames last: the topmost mark takes the click.
    chart = alt.layer(curves, names, frame.add_params(click))
    return chart.properties(height=CELL_HEIGHT * grid_rows, usermeta=SVG_RENDERER)


def histogram_chart(
    table: pa.Table, feature: str, *, log_x: bool = False, log_y: bool = False, theme: str = "light"
) -> Chart:
    """Draw the table of ``histogram_table``: one step line a class; a click in the legend highlights one."""
    note = NOTES[feature]
    low, high = (min(table["low"].to_pylist()), max(table["high"].to_pylist()))
    x_scale = alt.Scale(type="log" if log_x else "linear", domain=[low, high], nice=False)
    axis = alt.Axis(grid=False, labelExpr=POWER_LABEL, tickCount=6, labelOverlap=True)
    x = alt.X("low:Q", title=f"{feature} ({note.unit})" if note.unit else feature, scale=x_scale, axis=axis)
    ticks: dict[str, Any] = {"values": [10.0**power for power in range(-8, 1)]} if log_y else {"tickCount": 5}
    y = alt.Y(
        "height:Q",
        title="share of the class's jets in each bin",
        scale=alt.Scale(type="log" if log_y else "linear", nice=not log_y),
        # Not ".0%": it would round 0.05%.
        axis=alt.Axis(format="~%", **ticks),
    )
    present = set(table["class"].to_pylist())
    legend = alt.selection_point(name="legend", fields=["class"], bind="legend")
    base = alt.Chart(table)
    lines = base.mark_line(interpolate="step-after", strokeWidth=2).encode(
        x=x, y=y, color=_colour(), opacity=alt.when(legend).then(alt.value(1)).otherwise(alt.value(0.12))
    )
    near = alt.selection_point(
        name="near", fields=["low"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    # One invisible rule a bin: the nearest one to the pointer shows the shares of all classes.
    bins = (
        base.transform_filter("datum.high > datum.low")
        .transform_pivot("class", value="share", groupby=["low", "high"])
        .mark_rule(color=MUTED[theme])
        .encode(
            x=alt.X("low:Q", scale=x_scale),
            opacity=alt.when(near).then(alt.value(0.7)).otherwise(alt.value(0)),
            tooltip=[
                alt.Tooltip("low:Q", title="from", format=".4~g"),
                alt.Tooltip("high:Q", title="to", format=".4~g"),
            ]
            + [alt.Tooltip(f"{name}:Q", format=".2~%") for name in CLASS_NAMES.values() if name in present],
        )
    )
    chart = alt.layer(lines.add_params(legend), bins.add_params(near))
    return chart.properties(height=HISTOGRAM_HEIGHT, usermeta=SVG_RENDERER)


def correlation_chart(table: pa.Table, theme: str = "light") -> Chart:
    """Draw ``JetFile.correlations`` as a heat map: blue is positive, orange negative; the value is in the tooltip."""
    # Zero has nearly the colour of the background.
    middle = {"light": "#F7F7F7", "dark": "#262A33"}[theme]
    short: dict[str, Any] = {
        "ticks": False,
        "domain": False,
        "labelOverlap": False,
        "labelExpr": "replace(datum.label, '_mmdt', '')",
    }
    x, y = (
        alt.X("x:N", sort=list(FEATURES), title=None, axis=alt.Axis(labelAngle=-60, **short)),
        alt.Y("y:N", sort=list(FEATURES), title=None, axis=alt.Axis(**short)),
    )
    colour = alt.Color(
        "r:Q",
        scale=alt.Scale(domain=[-1, 0, 1], range=["#D55E00", middle, "#0072B2"], interpolate="rgb"),
        legend=alt.Legend(
            title=None, orient="top", gradientLength=220, gradientThickness=10, values=[-1, -0.5, 0, 0.5, 1]
        ),
    )
    base = alt.Chart(table).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=2).encode(
        color=colour,
        tooltip=[
            alt.Tooltip("x:N", title=" "),
            alt.Tooltip("y:N", title="with"),
            alt.Tooltip("r:Q", title="r", format="+.3f"),
        ],
    )
    return alt.layer(cells).properties(height=CORRELATION_HEIGHT, usermeta=SVG_RENDERER)


def _colour() -> alt.Color:
    names: Sequence[str] = list(CLASS_NAMES.values())
    return alt.Color(
        "class:N",
        scale=alt.Scale(domain=names, range=list(CLASS_COLOURS.values())),
        legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1),
    )
