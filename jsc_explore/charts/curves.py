"""Learning curves: the median over seeds with its band, the seeds as faint lines, a mark for silent classes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import altair as alt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import smooth, summarize
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import (
    BAND_OPACITY,
    BAND_OPACITY_CROWDED,
    CURVE_METRICS,
    FAINT,
    INK,
    METRIC_PAIRS,
    SVG_RENDERER,
    X_AXES,
    colours,
    is_percentage,
    number_axis,
    prediction_text,
    silent_text,
)

HEIGHT = 420
# Accuracies have a fixed range, so that the axis stays where it is while a run is training.
ACCURACY_RANGE = (0.0, 0.8)
ZOOM, LEGEND = "zoom", "groups"
MEDIANS, CONTEXT, SEEDS, MARKS, PREDICTIONS = "medians", "context", "seeds", "marks", "predictions"
_DASHES = ([1, 0], [7, 4], [2, 2], [10, 3, 2, 3], [4, 4], [12, 4])
# Stands for every range in the cached spec; ``_spec`` replaces it.
_PLACEHOLDER_RANGE = (0.25, 0.75)
# Marks nearer to each other than this share of the y axis are merged or moved apart.
MIN_MARK_DISTANCE = 0.05
SILENT = "seeds with a silent class"
# Right of the end of a line there is room for a sign, but not for a word, which stands above the line.
_MARK_PLACE: dict[str, Any] = {
    "align": alt.expr("datum.mark === 'cancelled' ? 'right' : 'left'"),
    "dy": alt.expr("datum.mark === 'cancelled' ? -10 : 0"),
}
# The legend of a pair of quantities, both in evaluation mode.
_PARTS = {"val": "validation jets", "train": "training jets"}
_PARTS_TITLE = "In evaluation mode"


@dataclass(frozen=True)
class CurveStyle:
    """How the curve of a config is named and drawn: full name, legend entries of its colour (``group``) and its dash.

    Curves that are not ``highlighted`` are drawn grey, as context.
    """

    name: str
    group: str = ""
    dash: str = ""
    highlighted: bool = True


@dataclass(frozen=True)
class PlotOptions:
    """How curves are drawn.

    ``metric``: a key of ``CURVE_METRICS``; ``y_range`` None: fixed by the kind of metric; ``size`` scales fonts and
    lines; ``ordered``: colours stand for a number; ``titles``: of the legends of colours and dashes;
    ``show_predictions``: predictions are drawn, too; ``width_fraction``: of the full width of the page.
    """

    x: str = "epoch"
    metric: str = "val_acc"
    band: str = "interval"
    log_x: bool = False
    log_y: bool = False
    seed_lines: bool = True
    smoothing: float = 0.0
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    theme: str = "light"
    size: float = 1.0
    ordered: bool = False
    titles: tuple[str, str] = ("", "")
    show_predictions: bool = False
    width_fraction: float = 1.0


def quantities_of(metric: str) -> tuple[str, ...]:
    """Return the recorded quantities of a metric: one, or those of validation and training."""
    return METRIC_PAIRS.get(metric, (metric,))


def curve_tables(
    groups: pa.Table, seeds: pa.Table, lines: Mapping[str, CurveStyle], options: PlotOptions
) -> dict[str, pa.Table]:
    """Return the tables that ``curve_figure`` draws, from the two tables of ``store.query.curves.curve_points``.

    ``medians`` has one row a point of a group of a highlighted config (``is_silent``: its seeds with a silent class,
    which have no band): median, smoothed median, ends of the band; ``context`` one row a point of the others: the
    median; ``seeds`` one row a point of each seed of the highlighted configs, without ``seed_lines`` of cancelled ones
    alone; ``marks`` the last point of each seed that was cancelled or has a silent class. On a logarithmic axis values
    that are not positive are left out.
    """
    highlighted = {config_id: line for config_id, line in lines.items() if line.highlighted}
    medians = _with_medians(groups, options)
    named = _with_lines(medians, highlighted, options)
    smoothed = pa.array(_smoothed(named, options.smoothing), pa.float64())
    table = named.select(["config_id", "is_silent", "x", "median", "low", "high", "n", "name", "group", "dash"])
    full_names = pc.if_else(table["is_silent"], pc.binary_join_element_wise(table["name"], SILENT, ", "), table["name"])
    table = table.set_column(table.column_names.index("name"), "name", full_names)
    table = table.append_column("smooth", smoothed)
    others = {config_id: line for config_id, line in lines.items() if not line.highlighted}
    context = _with_lines(medians, others, options).select(["line", "is_silent", "x", "median", "name"])
    seeds = _with_lines(seeds, highlighted, options)
    # The letters of many marks would overlap: then only the tooltip names the classes.
    marks = end_marks(seeds, brief=len({line.group for line in lines.values() if line.highlighted}) > 3)
    seeds = seeds.append_column("cancelled", pc.equal(seeds["status"], "cancelled"))
    seeds = seeds.select(["run_id", "seed", "cancelled", "x", "value", "group", "dash"])
    seeds = seeds if options.seed_lines else seeds.filter(seeds["cancelled"])
    return {MEDIANS: table, CONTEXT: context, SEEDS: seeds, MARKS: marks}


def prediction_table(
    medians: pa.Table,
    lines: Mapping[str, CurveStyle],
    predicted: Mapping[str, Prediction],
    metric: str,
    ends: Mapping[str, float],
) -> pa.Table:
    """Return the predictions for the highlighted configs, drawn at the ends of their curves.

    ``predicted`` and ``ends`` are by config id. A config without an entry in ``ends`` takes the x of its last point in
    ``medians``, a table of ``curve_tables``. Columns: ``x``, ``median``, ``low``, ``high``, ``group``, ``text``.
    """
    last = dict(zip(medians["config_id"].to_pylist(), medians["x"].to_pylist(), strict=True))
    rows = [
        {"x": ends.get(key, last.get(key)), "median": prediction.value, "low": prediction.low, "high": prediction.high,
         "group": line.group, "text": f"{line.name}: {prediction_text(metric, prediction)}"}
        for key, line in lines.items()
        if line.highlighted and (key in last or key in ends) and (prediction := predicted.get(key))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_PREDICTIONS)


def end_marks(seeds: pa.Table, brief: bool) -> pa.Table:
    """Return one row a mark of a cancelled run or a silent class: ``x``, ``value``, ``group``, ``mark``, ``name``.

    ``seeds`` has one row a point of each seed; ``silent`` names the silent classes, which a ``brief`` mark leaves out,
    and ``zero_output_share`` is of its run. ``name`` is the text of the tooltip. Marks of one group and kind that would
    overlap are merged.
    """
    marked = seeds.filter(pc.or_(pc.not_equal(seeds["silent"], ""), pc.equal(seeds["status"], "cancelled")))
    last: dict[str, dict[str, Any]] = {}
    rows = marked.select(
        ["run_id", "x", "value", "group", "dash", "silent", "status", "name", "seed", "zero_output_share"]
    ).to_pylist()
    for row in rows:
        last[row["run_id"]] = row
    values = [row["value"] for row in rows]
    distance = MIN_MARK_DISTANCE * (max(values) - min(values)) if values else 0.0
    marks: list[dict[str, Any]] = []
    for row in sorted(last.values(), key=lambda row: (row["group"], row["silent"] == "", row["value"])):
        silent = row["silent"].split()
        found = silent_text(silent, row["zero_output_share"]) if silent else "cancelled, in no median"
        text = f"{row['name']}, seed {row['seed']}: {found}"
        before = marks[-1] if marks else {}
        same = before.get("group") == row["group"] and before["mark"].startswith("†") == bool(silent)
        if same and row["value"] - before["value"] < distance:
            before["mark"] += "" if brief else "".join(c for c in silent if c not in before["mark"])
            before["name"] += f"; {text}"
            continue
        mark = "†" + ("" if brief else "".join(silent)) if silent else "cancelled"
        marks.append({"x": row["x"], "value": row["value"], "group": row["group"], "mark": mark, "name": text})
    if not brief:
        # Marks of different groups: the lowest stays at the end of its line, the others move up.
        marks.sort(key=lambda mark: mark["value"])
        for below, above in itertools.pairwise(marks):
            above["value"] = max(above["value"], below["value"] + distance)
    return pa.Table.from_pylist(marks, schema=_MARKS)


_MARKS = pa.schema(
    [("x", pa.float64()), ("value", pa.float64())] + [(name, pa.string()) for name in ("group", "mark", "name")]
)


def count_nonpositive(points: pa.Table, options: PlotOptions) -> int:
    """Return how many points a logarithmic axis leaves out."""
    if not options.log_y or not points.num_rows:
        return 0
    return int(pc.sum(pc.less_equal(points["value" if "value" in points.column_names else "median"], 0)).as_py() or 0)


def value_range(tables: Sequence[Mapping[str, pa.Table]], options: PlotOptions) -> tuple[float, float] | None:
    """Return the common y range of several panels; None if the metric has a fixed one or there are no data."""
    if is_percentage(options.metric) and not options.log_y:
        return None
    columns = [table[MEDIANS][name] for table in tables for name in ("low", "high", "median")]
    columns += [table[SEEDS]["value"] for table in tables if table[SEEDS].num_rows]
    values = np.concatenate([np.asarray(column.to_numpy(), float) for column in columns] or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0 if options.log_y else True)]
    if not values.size or values.min() == values.max():
        return None
    low, high = float(values.min()), float(values.max())
    margin = 0.0 if options.log_y else 0.04 * (high - low)
    return low - margin, high + margin


def _with_lines(points: pa.Table, lines: Mapping[str, CurveStyle], options: PlotOptions) -> pa.Table:
    """Keep the points of these configs that the axes can show; add columns ``line`` (an index), name, group, dash."""
    ids = pa.array(list(lines), pa.string())
    index = pc.index_in(points["config_id"], value_set=ids)
    keep = pc.is_valid(index)
    value = "value" if "value" in points.column_names else "median"
    keep = pc.and_(keep, pc.is_finite(points[value]))
    for name, log in (("x", options.log_x), (value, options.log_y)):
        if log:
            keep = pc.and_(keep, pc.greater(points[name], 0))
    points, index = points.filter(keep), index.filter(keep)
    points = points.append_column("line", index)
    for column in ("name", "group", "dash"):
        values = pa.array([getattr(line, column) for line in lines.values()], pa.string())
        points = points.append_column(column, values.take(index))
    if options.metric in METRIC_PAIRS:
        parts = pc.if_else(pc.starts_with(points["quantity"], "val"), _PARTS["val"], _PARTS["train"])
        points = points.set_column(points.column_names.index("dash"), "dash", parts)
    return points


def _with_medians(groups: pa.Table, options: PlotOptions) -> pa.Table:
    """Replace the values of each group by ``n``, ``median``, and the ends of its band, ``low`` and ``high``."""
    found = summarize(groups["values"], interval=options.band == "interval")
    middle = found["median"]
    without = np.asarray(groups["is_silent"].to_numpy(), bool) | (options.band == "none")
    low, high = (np.where(without, middle, found[end]) for end in ("low", "high"))
    if options.log_y:
        # A logarithmic axis cannot show values that are not positive: there the band ends a decade below the median.
        low = np.where(low > 0, low, middle / 10)
    table = groups.drop_columns(["values"]).append_column("n", pc.list_value_length(groups["values"]))
    for name, values in (("median", middle), ("low", low), ("high", high)):
        table = table.append_column(name, pa.array(values))
    return table


def _smoothed(medians: pa.Table, weight: float) -> list[float]:
    """Smooth the median of each group along its points; rows are ordered by config, group, quantity and step."""
    values: list[float] = medians["median"].to_pylist()
    if not weight:
        return values
    curves = list(zip(*(medians[name].to_pylist() for name in ("config_id", "is_silent", "quantity")), strict=True))
    smoothed: list[float] = []
    begin = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or curves[end] != curves[begin]:
            smoothed += smooth(values[begin:end], weight)
            begin = end
    return smoothed


_PREDICTIONS = pa.schema(
    [(name, pa.float64()) for name in ("x", "median", "low", "high")] + [("group", pa.string()), ("text", pa.string())]
)


# ---- drawing


def curve_figure(
    tables: Mapping[str, pa.Table], groups: Sequence[str], dashes: Sequence[str], options: PlotOptions
) -> Figure:
    """Draw the tables of ``curve_tables``; ``groups`` are the legend entries of colours, ``dashes`` those of dashes."""
    spec = _spec(groups, dashes, options)
    text = f"{CURVE_METRICS[options.metric]} against {X_AXES[options.x]}: {', '.join(groups)}"
    return Figure(spec, dict(tables), text[0].upper() + text[1:], width=720)


def _spec(groups: Sequence[str], dashes: Sequence[str], options: PlotOptions) -> dict[str, Any]:
    """Complete the cached spec with names, colours, titles and range, which change with each click."""
    # As many legend entries in a row as fit over the chart.
    columns = max(1, min(6, int(60 * options.width_fraction / options.size) // (4 + max(map(len, groups), default=40))))
    cached = replace(
        options, titles=("", options.titles[1]), ordered=False, y_range=options.y_range and _PLACEHOLDER_RANGE
    )
    spec = _general_spec(columns, len(groups) > 3, tuple(dashes), cached)
    scale = {"domain": list(groups), "range": colours(len(groups), options.ordered, options.theme)}

    def complete(channel: str, encoding: dict[str, Any]) -> dict[str, Any]:
        if channel == "color" and "scale" in encoding:
            return {**encoding, "scale": scale, "legend": {**encoding["legend"], "title": options.titles[0] or None}}
        if channel == "y" and options.y_range and "scale" in encoding:
            return {**encoding, "scale": {**encoding["scale"], "domain": list(options.y_range)}}
        return encoding

    layers = [
        {**layer, "encoding": {channel: complete(channel, one) for channel, one in layer["encoding"].items()}}
        for layer in spec["layer"]
    ]
    return {**spec, "layer": layers}


@lru_cache(maxsize=256)
def _general_spec(columns: int, crowded: bool, dashes: tuple[str, ...], options: PlotOptions) -> dict[str, Any]:
    x, y = _axes(options)
    picked = alt.selection_point(name=LEGEND, fields=["group"], bind="legend")
    zoom = alt.selection_interval(
        name=ZOOM, encodings=["x"], mark=alt.BrushConfig(fill=INK[options.theme], fillOpacity=0.1)
    )
    colour = _legend_colours(columns)
    dash = _dash(dashes, options)

    def visible(opacity: float) -> Any:
        return alt.condition(picked, alt.value(opacity), alt.value(0.0))

    # Screen readers get the median alone (aria=False elsewhere): a description of every other point would be noise, and
    # would take as long as drawing it.
    highlighted, others = chart_from(MEDIANS), chart_from(CONTEXT).encode(x=x, y=y, detail=["line:N", "is_silent:N"])
    context = others.mark_line(color=FAINT[options.theme], strokeWidth=options.size, opacity=0.8, clip=True, aria=False)
    # A line of one pixel is hard to hover: a wide invisible one lies over it. Points would be hundreds.
    context_hover = others.mark_line(strokeWidth=8 * options.size, opacity=0, clip=True, aria=False).encode(
        tooltip=alt.Tooltip("name:N", title=" ")
    )
    band = highlighted.mark_area(clip=True, aria=False).encode(
        x=x,
        y="low:Q",
        y2="high:Q",
        color=colour,
        detail=["config_id:N", "is_silent:N", *(["dash:N"] if dash else [])],
        opacity=visible(BAND_OPACITY_CROWDED if crowded else BAND_OPACITY),
    )
    seed_encoding = {"x": x, "y": "value:Q", "detail": "run_id:N", "color": colour, **dash}
    # The median of the seeds with a silent class is thin and dotted, whatever the dash of its config.
    median = highlighted.mark_line(clip=True).encode(
        x=x, y="smooth:Q", color=colour, detail=["config_id:N", "is_silent:N"], opacity=visible(1.0),
        strokeDash=alt.condition("datum.is_silent", alt.value([2, 3]), dash.get("strokeDash", alt.value([1, 0]))),
        strokeWidth=alt.condition("datum.is_silent", alt.value(1.5 * options.size), alt.value(2.5 * options.size)),
    )  # fmt: skip
    marks = (
        chart_from(MARKS).mark_text(**_MARK_PLACE, dx=4, fontSize=11 * options.size, fontWeight=600)
        .encode(x=x, y="value:Q", text="mark:N", color=colour, opacity=visible(1.0),
                tooltip=alt.Tooltip("name:N", title=" "))
    )  # fmt: skip
    # The raw median, thin, where the bold line is smoothed.
    raw_median = highlighted.mark_line(strokeWidth=options.size, clip=True, aria=False).encode(
        x=x, y="median:Q", color=colour, **dash, detail=["config_id:N", "is_silent:N"], opacity=visible(0.5)
    )
    layers = [
        context,
        context_hover,
        *(_prediction_layers(x, y, colour, visible, options) if options.show_predictions else []),
        band,
        *_seed_layers(seed_encoding, visible, crowded, options),
        *([raw_median] if options.smoothing else []),
        median.add_params(picked, zoom),
        marks,
        _hover_points(x, y, options),
    ]
    chart = alt.layer(*layers).properties(height=HEIGHT * options.size, usermeta=SVG_RENDERER)
    return build_spec(chart) | {"config": font_config(options.size)}


def _seed_layers(
    encoding: Mapping[str, Any], visible: Callable[[float], Any], crowded: bool, options: PlotOptions
) -> list[alt.Chart]:
    """Return the faint lines of the seeds, and over them the cancelled ones, which have no median to show them."""
    seeds = chart_from(SEEDS).encode(**encoding)
    cancelled = seeds.transform_filter("datum.cancelled").encode(opacity=visible(1.0))
    return [
        seeds.mark_line(strokeWidth=options.size, clip=True, aria=False).encode(
            opacity=visible(0.25 if crowded else 0.45)
        ),
        cancelled.mark_line(strokeWidth=1.5 * options.size, clip=True, aria=False),
    ]


def _prediction_layers(
    x: alt.X, y: alt.Y, colour: alt.Color, visible: Callable[[float], Any], options: PlotOptions
) -> list[alt.Chart]:
    """Return the bands of the predictions and the predicted values, to be drawn under the curves."""
    base = chart_from(PREDICTIONS).encode(x=x, color=colour, tooltip=[alt.Tooltip("text:N", title=" ")])
    band = base.mark_rule(strokeWidth=10 * options.size).encode(y="low:Q", y2="high:Q", opacity=visible(0.3))
    middle = base.mark_point(shape="diamond", filled=True, size=70 * options.size)
    return [band, middle.encode(y=y, opacity=visible(0.7))]


def _hover_points(x: alt.X, y: alt.Y, options: PlotOptions) -> alt.Chart:
    """Return invisible points that carry the tooltips: Vega lines have no tooltip for the nearest point."""
    form = ".2%" if is_percentage(options.metric) else ".4~g"
    band = [alt.Tooltip("low:Q", title="band from", format=form), alt.Tooltip("high:Q", title="to", format=form)]
    figures = [
        alt.Tooltip("name:N", title="config"),
        alt.Tooltip("x:Q", title=X_AXES[options.x], format=".4~g"),
        alt.Tooltip("median:Q", title="median", format=form),
        *(band if options.band != "none" else []),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    chart: alt.Chart = (
        chart_from(MEDIANS)
        .mark_point(size=80, filled=True, opacity=0, clip=True, aria=False)
        .encode(x=x, y=y, tooltip=figures)
    )
    return chart


def _axes(options: PlotOptions) -> tuple[alt.X, alt.Y]:
    if options.x_range:
        x_scale = alt.Scale(type="log" if options.log_x else "linear", domain=list(options.x_range), nice=False)
    else:
        x_scale = alt.Scale(type="log", nice=False) if options.log_x else alt.Scale(nice=False, zero=True)
    domain = options.y_range or (
        _fixed_range(options.metric) if is_percentage(options.metric) and not options.log_y else None
    )
    y_scale = alt.Scale(
        type="log" if options.log_y else "linear",
        domain=list(domain) if domain else alt.Undefined,
        nice=False,
        zero=alt.Undefined if options.log_y else False,
    )
    return (
        alt.X("x:Q", title=X_AXES[options.x], scale=x_scale, axis=_x_axis(options)),
        alt.Y(
            "median:Q",
            title=CURVE_METRICS[options.metric],
            scale=y_scale,
            axis=number_axis(options.metric, tickCount=8),
        ),
    )


def _fixed_range(metric: str) -> tuple[float, float]:
    # The recall of a silent class is zero, that of others may be near one.
    return (0.0, 1.0) if metric.startswith("recall_") else ACCURACY_RANGE


def _x_axis(options: PlotOptions) -> alt.Axis:
    if options.log_x and options.x_range is None:
        return number_axis(options.x, grid=False, values=[10.0**power for power in range(-6, 10)])
    whole = options.x == "epoch" and options.x_range is None
    return number_axis(options.x, grid=False, tickCount=8, **({"tickMinStep": 1} if whole else {}))


def _legend_colours(columns: int) -> alt.Color:
    return alt.Color(
        "group:N",
        scale=alt.Scale(domain=["each group"]),
        legend=alt.Legend(
            title=None,
            titleOrient="left" if columns > 3 else "top",
            orient="top",
            columns=columns,
            labelLimit=420,
            titleLimit=420,
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
        ),
    )


def _dash(dashes: tuple[str, ...], options: PlotOptions) -> dict[str, alt.StrokeDash]:
    """Return the encoding of dashes; none for a single dash, as Vega would evaluate it at every point."""
    values = [*_PARTS.values()] if options.metric in METRIC_PAIRS else list(dashes)
    if len(values) < 2:
        return {}
    title = _PARTS_TITLE if options.metric in METRIC_PAIRS else options.titles[1] or None
    return {
        "strokeDash": alt.StrokeDash(
            "dash:N",
            scale=alt.Scale(domain=values, range=[list(_DASHES[i % len(_DASHES)]) for i in range(len(values))]),
            legend=alt.Legend(title=title, orient="bottom", symbolType="stroke", symbolSize=300),
        )
    }
