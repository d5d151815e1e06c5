"""Learning curves: the median over seeds with its band, the seeds as faint lines, a mark for silent classes.

Names stand at the ends of the lines; a crosshair lists all values at one place.
"""

from __future__ import annotations

import itertools
import math
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
from jsc_explore.charts.crosshair import crosshair_layers, crosshair_param, listening_layer
from jsc_explore.charts.curve_labels import LABELS, LINE_HEIGHT, fits_labels, label_layers, label_table
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import (
    BAND_OPACITY,
    BAND_OPACITY_CROWDED,
    CURVE_METRICS,
    FAINT,
    INK,
    METRIC_PAIRS,
    MUTED,
    SVG_RENDERER,
    X_AXES,
    colours,
    is_percentage,
    number_axis,
    prediction_text,
    silent_text,
)

# With its controls it ends above the lower edge of a screen of 720 pixels.
HEIGHT = 290
# The range of accuracies on charts that are not fitted to their data.
ACCURACY_RANGE = (0.0, 0.8)
ZOOM, LEGEND = "zoom", "groups"
MEDIANS, CONTEXT, SEEDS, MARKS, PREDICTIONS = "medians", "context", "seeds", "marks", "predictions"
_DASHES = ([1, 0], [7, 4], [2, 2], [10, 3, 2, 3], [4, 4], [12, 4])
# Stands for every range in the cached spec; ``_spec`` replaces it.
_PLACEHOLDER_RANGE = (0.25, 0.75)
# Marks nearer to each other than this share of the y axis are merged or moved apart.
MIN_MARK_DISTANCE = 0.05
# The accuracy of a guess among the five classes.
CHANCE = 0.2
SILENT = "seeds with a silent class"
# Right of the end of a line there is room for a sign, but not for a word, which stands above the line.
_MARK_PLACE: dict[str, Any] = {
    "align": alt.expr("datum.mark === 'cancelled' ? 'right' : 'left'"),
    "dy": alt.expr("datum.mark === 'cancelled' ? -10 : 0"),
    "dx": 4,
}
_MARK_PLACE_BESIDE_NAMES: dict[str, Any] = {"align": "right", "dx": -3, "dy": -9}
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

    ``metric``: a key of ``CURVE_METRICS``; ``band``: a key of ``BAND_KINDS``; ``y_range`` None: nothing is drawn yet;
    ``size`` scales fonts and lines; ``ordered``: colours stand for an order; ``titles``: of colours and dashes;
    ``show_predictions``, ``show_context``: predictions and grey curves are drawn, too; ``width_fraction``: of the full
    width of the page.
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
    show_context: bool = True
    width_fraction: float = 1.0


def height_of(size: float) -> float:
    """Return the height of the chart with fonts ``size`` times the default: also large ones leave it on the screen."""
    return HEIGHT * (1 + (size - 1) / 4)


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
    alone; ``marks`` the last point of each of these seeds that was cancelled or has a silent class. On a logarithmic
    axis values that are not positive are left out.
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
    seeds = seeds if options.seed_lines else seeds.filter(pc.equal(seeds["status"], "cancelled"))
    # The letters of many marks would overlap: then only the tooltip names the classes.
    marks = end_marks(seeds, brief=len({line.group for line in lines.values() if line.highlighted}) > 3)
    seeds = seeds.append_column("cancelled", pc.equal(seeds["status"], "cancelled"))
    seeds = seeds.select(["run_id", "seed", "cancelled", "x", "value", "group", "dash"])
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


def value_range(
    tables: Sequence[Mapping[str, pa.Table]], options: PlotOptions, others: Sequence[pa.ChunkedArray] = ()
) -> tuple[float, float] | None:
    """Return the y range that shows all ``tables`` of several panels and ``others``, columns of values; None: no data.

    Its ends are round numbers: while a run trains the axis moves seldom. Of accuracies it begins at that of a guess
    where this is near.
    """
    columns = [table[MEDIANS][name] for table in tables for name in ("low", "high", "median")]
    columns += [table[SEEDS]["value"] for table in tables] + [table[CONTEXT]["median"] for table in tables]
    columns += [table[PREDICTIONS][name] for table in tables if PREDICTIONS in table for name in ("low", "high")]
    values = np.concatenate([np.asarray(column.to_numpy(), float) for column in (*columns, *others)] or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0 if options.log_y else True)]
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    if options.log_y:
        return _round_log(low, down=True), _round_log(high, down=False)
    if is_percentage(options.metric):
        step = min(0.05, _step(max(high - low, 0.01) / 3))
    else:
        step = _step(max(high - low, 1e-3 * max(abs(high), 1e-6)) / 8)
    ends = [round(step * math.floor(low / step), 10), round(step * math.ceil(high / step), 10)]
    if ends[0] == ends[1]:
        ends = [round(ends[0] - step, 10), round(ends[1] + step, 10)]
    if _has_chance(options.metric) and CHANCE < ends[0] <= CHANCE + 2.01 * step:
        ends[0] = CHANCE
    if is_percentage(options.metric) and low >= 0 and high <= 1:
        ends = [max(0.0, ends[0]), min(1.0, ends[1])]
    return ends[0], ends[1]


def _has_chance(metric: str) -> bool:
    return is_percentage(metric) and not metric.startswith("recall_")


def _step(limit: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten up to a limit."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= limit * (1 + 1e-9))


def _round_log(value: float, down: bool) -> float:
    """Return the next number below or above of the form 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    near = [float(f"{factor * power:.6g}") for factor in (0.5, 1, 2, 5, 10, 20)]
    return max(one for one in near if one < value) if down else min(one for one in near if one > value)


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
    tables: Mapping[str, pa.Table],
    groups: Sequence[str],
    dashes: Sequence[str],
    options: PlotOptions,
    drawn: Sequence[str] | None = None,
) -> Figure:
    """Draw the tables of ``curve_tables``; ``groups`` are the names of the colours, ``dashes`` those of the dashes.

    ``drawn`` are the groups of this chart, where others have colours in other panels.
    """
    shown = [group for group in groups if drawn is None or group in drawn]
    # Panels side by side are too narrow for names beside the lines.
    labelled = options.y_range is not None and options.width_fraction == 1 and fits_labels(shown, options.size)
    spec = _spec(groups, shown, dashes, options, labelled)
    tables = dict(tables)
    if labelled and options.y_range is not None:
        # On a page the axis and its title take some of the height.
        gap = LINE_HEIGHT * options.size / (height_of(options.size) - 80 * options.size)
        tables[LABELS] = label_table(
            tables[MEDIANS], tables[SEEDS], groups, options.ordered, options.y_range, options.log_y, gap
        )
    text = f"{CURVE_METRICS[options.metric]} against {X_AXES[options.x]}: {', '.join(shown)}"
    return Figure(spec, tables, text[0].upper() + text[1:], width=720)


def _spec(
    groups: Sequence[str], shown: Sequence[str], dashes: Sequence[str], options: PlotOptions, labelled: bool
) -> dict[str, Any]:
    """Complete the cached spec with names, colours, titles and range, which change with each click."""
    # As many legend entries in a row as fit over the chart.
    columns = max(1, min(6, int(60 * options.width_fraction / options.size) // (4 + max(map(len, shown), default=40))))
    y_range = options.y_range
    has_chance = bool(y_range and _has_chance(options.metric) and y_range[0] <= CHANCE <= y_range[1])
    cached = replace(options, titles=("", options.titles[1]), ordered=False, y_range=y_range and _PLACEHOLDER_RANGE)
    spec = _general_spec(0 if labelled else columns, len(groups) > 3, tuple(dashes), has_chance, cached)
    scale = {"domain": list(groups), "range": colours(len(groups), options.ordered, options.theme)}
    title = options.titles[0]

    def complete(channel: str, encoding: dict[str, Any]) -> dict[str, Any]:
        if channel == "color" and encoding.get("field") == "group":
            legend = encoding["legend"] and {**encoding["legend"], "title": title or None, "values": list(shown)}
            return {**encoding, "scale": scale, "legend": legend}
        if channel == "y" and y_range and "scale" in encoding:
            return {**encoding, "scale": {**encoding["scale"], "domain": list(y_range)}}
        return encoding

    layers = [
        {**layer, "encoding": {channel: complete(channel, one) for channel, one in layer["encoding"].items()}}
        for layer in spec["layer"]
    ]
    heading = {
        "title": {"text": title, "anchor": "end", "fontSize": 12 * options.size, "fontWeight": "normal",
                  "color": MUTED[options.theme], "offset": 6}
    } if labelled and title else {}  # fmt: skip
    return {**spec, **heading, "layer": layers}


@lru_cache(maxsize=256)
def _general_spec(
    columns: int, crowded: bool, dashes: tuple[str, ...], has_chance: bool, options: PlotOptions
) -> dict[str, Any]:
    """Return the spec for any names, colours and range; without ``columns`` of a legend names stand at the lines."""
    x, y = _axes(options)
    picked = (
        alt.selection_point(name=LEGEND, fields=["group"], bind="legend") if columns
        else alt.selection_point(name=LEGEND, fields=["group"], on=f"@{LABELS}_marks:click", toggle="true")
    )  # fmt: skip
    zoom = alt.selection_interval(
        name=ZOOM, encodings=["x"], mark=alt.BrushConfig(fill=INK[options.theme], fillOpacity=0.1)
    )
    colour = _legend_colours(columns)
    dash = _dash(dashes, options)

    def visible(opacity: float, otherwise: float = 0.0) -> Any:
        return alt.condition(picked, alt.value(opacity), alt.value(otherwise))

    # Screen readers get the median alone (aria=False elsewhere): a description of every other point would be noise, and
    # would take as long as drawing it.
    highlighted = chart_from(MEDIANS)
    band = highlighted.mark_area(clip=True, aria=False).encode(
        x=x,
        y="low:Q",
        y2="high:Q",
        color=colour,
        detail=["config_id:N", "is_silent:N", *(["dash:N"] if dash else [])],
        opacity=visible(BAND_OPACITY_CROWDED if crowded else BAND_OPACITY),
    )
    seed_encoding = {"x": x, "y": "value:Q", "detail": "run_id:N", "color": colour, **dash}
    marks = (
        chart_from(MARKS)
        .mark_text(**(_MARK_PLACE if columns else _MARK_PLACE_BESIDE_NAMES), fontSize=11 * options.size, fontWeight=600)
        .encode(x=x, y="value:Q", text="mark:N", color=colour, opacity=visible(1.0),
                tooltip=alt.Tooltip("name:N", title=" "))
    )  # fmt: skip
    layers = [
        *([_legend_layer(colour).add_params(picked)] if columns else []),
        listening_layer(MEDIANS, x, zoom, crosshair_param()),
        *(_chance_layers(y, options) if has_chance else []),
        *(_context_layers(x, y, options) if options.show_context else []),
        *(_prediction_layers(x, y, colour, visible, options) if options.show_predictions else []),
        *([band] if options.band != "none" else []),
        *_seed_layers(seed_encoding, visible, crowded, options),
        *_median_layers(x, colour, dash, visible, options),
        *([] if columns else label_layers(x, y, visible, picked, options.theme, options.size)),
        marks,
        *crosshair_layers(
            MEDIANS, x, y, colour, picked, x_title=_sentence(X_AXES[options.x]), with_band=options.band != "none",
            form=".2%" if is_percentage(options.metric) else ".4~g", at_bottom=is_percentage(options.metric),
            theme=options.theme, size=options.size,
        ),
    ]  # fmt: skip
    chart = alt.layer(*layers).properties(height=height_of(options.size), usermeta=SVG_RENDERER)
    return build_spec(chart) | {"config": font_config(options.size, options.theme)}


def _legend_layer(colour: alt.Color) -> alt.Chart:
    """Return one invisible point a group, for the clicks in the legend: Vega binds them to marks with its colours."""
    base = chart_from(MEDIANS).transform_aggregate(count="count()", groupby=["group"])
    chart: alt.Chart = base.mark_point(size=1, opacity=0, aria=False, tooltip=None).encode(color=colour)
    return chart


def _context_layers(x: alt.X, y: alt.Y, options: PlotOptions) -> list[alt.Chart]:
    """Return the grey lines, and over them invisible ones with their names, narrow: the crosshair halts on them."""
    lines = chart_from(CONTEXT).encode(x=x, y=y, detail=["line:N", "is_silent:N"])
    return [
        lines.mark_line(color=FAINT[options.theme], strokeWidth=options.size, opacity=0.8, clip=True, aria=False),
        lines.mark_line(strokeWidth=1.5 * options.size, opacity=0, clip=True, aria=False).encode(
            tooltip=alt.Tooltip("name:N", title=" ")
        ),
    ]


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


def _median_layers(
    x: alt.X, colour: alt.Color, dash: Mapping[str, alt.StrokeDash], visible: Callable[[float], Any],
    options: PlotOptions,
) -> list[alt.Chart]:  # fmt: skip
    """Return the bold lines; under smoothed ones the raw median is a thin line."""
    lines = chart_from(MEDIANS).encode(x=x, color=colour, detail=["config_id:N", "is_silent:N"])
    raw = lines.mark_line(strokeWidth=options.size, clip=True, aria=False).encode(
        y="median:Q", **dash, opacity=visible(0.5)
    )
    # The median of the seeds with a silent class is thin and dotted, whatever the dash of its config.
    bold = lines.mark_line(clip=True).encode(
        y="smooth:Q", opacity=visible(1.0),
        strokeDash=alt.condition("datum.is_silent", alt.value([2, 3]), dash.get("strokeDash", alt.value([1, 0]))),
        strokeWidth=alt.condition("datum.is_silent", alt.value(1.5 * options.size), alt.value(2.5 * options.size)),
    )  # fmt: skip
    return [raw, bold] if options.smoothing else [bold]


def _prediction_layers(
    x: alt.X, y: alt.Y, colour: alt.Color, visible: Callable[[float], Any], options: PlotOptions
) -> list[alt.Chart]:
    """Return the bands of the predictions and the predicted values, to be drawn under the curves."""
    base = chart_from(PREDICTIONS).encode(x=x, color=colour, tooltip=[alt.Tooltip("text:N", title=" ")])
    band = base.mark_rule(strokeWidth=10 * options.size).encode(y="low:Q", y2="high:Q", opacity=visible(0.3))
    middle = base.mark_point(shape="diamond", filled=True, size=70 * options.size)
    return [band, middle.encode(y=y, opacity=visible(0.7))]


def _chance_layers(y: alt.Y, options: PlotOptions) -> list[alt.Chart]:
    """Return a thin dashed line at the accuracy of a guess, and its name."""
    base = alt.Chart(alt.sequence(0, 1)).encode(y=alt.datum(CHANCE))
    line = base.mark_rule(
        color=MUTED[options.theme], strokeDash=[3, 4], strokeWidth=options.size, opacity=0.8, aria=False
    )
    name = base.mark_text(text="chance", align="right", baseline="bottom", dx=-4, dy=-2, fontSize=11 * options.size,
                          color=MUTED[options.theme])  # fmt: skip
    return [line, name.encode(x=alt.value("width"))]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _axes(options: PlotOptions) -> tuple[alt.X, alt.Y]:
    if options.x_range:
        x_scale = alt.Scale(type="log" if options.log_x else "linear", domain=list(options.x_range), nice=False)
    else:
        x_scale = alt.Scale(type="log", nice=False) if options.log_x else alt.Scale(nice=False, zero=True)
    domain = options.y_range or (ACCURACY_RANGE if is_percentage(options.metric) and not options.log_y else None)
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


def _x_axis(options: PlotOptions) -> alt.Axis:
    if options.log_x and options.x_range is None:
        return number_axis(options.x, grid=False, values=[10.0**power for power in range(-6, 10)])
    whole = options.x == "epoch" and options.x_range is None
    return number_axis(options.x, grid=False, tickCount=8, **({"tickMinStep": 1} if whole else {}))


def _legend_colours(columns: int) -> alt.Color:
    """Return the encoding of colours; without ``columns`` it has no legend."""
    if not columns:
        return alt.Color("group:N", scale=alt.Scale(domain=["each group"]), legend=None)
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
