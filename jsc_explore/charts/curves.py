"""Learning curves: the mean over seeds with its band, every seed faint behind it, a mark where a class is silent."""

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
from jsc_explore.analysis.statistics import half_width, smooth
from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import (
    CURVE_METRICS,
    FAINT,
    INK,
    METRIC_PAIRS,
    X_AXES,
    colours,
    is_percentage,
    number_axis,
    prediction_text,
)

HEIGHT = 420
# Accuracies are drawn on one range, so that a growing curve does not move the axis under the reader.
SHARE_RANGE = (0.0, 0.8)
ZOOM, LEGEND = "zoom", "groups"
MEANS, CONTEXT, SEEDS, MARKS, PREDICTIONS = "means", "behind", "seeds", "marks", "expected"
_DASHES = ([1, 0], [7, 4], [2, 2], [10, 3, 2, 3], [4, 4], [12, 4])
_ANY_RANGE = (0.25, 0.75)
_PARTS = {"val": "validation", "train": "training"}


@dataclass(frozen=True)
class CurveStyle:
    """What a config's curve is called: in full, by its colour and by its dash; faint context if not ``chosen``."""

    name: str
    group: str = ""
    dash: str = ""
    chosen: bool = True


@dataclass(frozen=True)
class PlotOptions:
    """How curves are drawn; everything that changes the drawing and not the data.

    ``y_range`` None: fixed by kind; ``ordered``: colours stand for a number; ``titles`` are those of the legends;
    ``expected``: predictions are drawn, too; ``share`` of the usual width is there.
    """

    x: str = "epoch"
    shown: str = "val_acc"
    band: str = "interval"
    log_x: bool = False
    log_y: bool = False
    each: bool = True
    smoothing: float = 0.0
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    theme: str = "light"
    size: float = 1.0
    ordered: bool = False
    titles: tuple[str, str] = ("", "")
    expected: bool = False
    share: float = 1.0


def quantities_of(shown: str) -> tuple[str, ...]:
    """Return the recorded quantities behind a choice: one, or those of validation and training."""
    return METRIC_PAIRS.get(shown, (shown,))


def curve_tables(
    means: pa.Table, seeds: pa.Table, lines: Mapping[str, CurveStyle], look: PlotOptions
) -> dict[str, pa.Table]:
    """Return the tables that ``curve_figure`` draws, from ``store.points.curve_points``.

    ``means`` has a row a point of a chosen config: mean, smoothed mean, ends of the band; ``behind`` one of the others:
    the mean alone; ``seeds`` a row a point of every seed of the chosen configs; ``marks`` the last point of each seed
    with a silent class. On a logarithmic axis what is not above zero is left out.
    """
    chosen = {config_id: line for config_id, line in lines.items() if line.chosen}
    named_means = _with_lines(means, chosen, look)
    low, high = _band(named_means, look)
    smoothed = _smoothed(named_means, look.smoothing)
    table = named_means.select(["config_id", "x", "mean", "n", "name", "group", "dash"])
    for name, values in (("smooth", smoothed), ("low", low), ("high", high)):
        table = table.append_column(name, pa.array(values, pa.float64()))
    others = {config_id: line for config_id, line in lines.items() if not line.chosen}
    behind = _with_lines(means, others, look).select(["line", "x", "mean", "name"])
    each = _with_lines(seeds, chosen, look)
    # Many marks at the end of their lines hide each other's letters: there the tooltip names the classes.
    marks = silent_marks(each, brief=len({line.group for line in lines.values() if line.chosen}) > 3)
    each = each.select(["run_id", "seed", "x", "value", "group", "dash"]) if look.each else each.slice(0, 0)
    return {MEANS: table, CONTEXT: behind, SEEDS: each, MARKS: marks}


def prediction_table(
    means: pa.Table,
    lines: Mapping[str, CurveStyle],
    predicted: Mapping[str, Prediction],
    metric: str,
    ends: Mapping[str, float],
) -> pa.Table:
    """Return what chosen configs were expected to metric, by config id, at the ``ends`` of their curves.

    Without one that is their last point of ``means``, the table that ``curve_figure`` draws, if there is any. A row
    holds ``x``, ``mean``, ``low``, ``high``, ``group`` and ``words``.
    """
    last = dict(zip(means["config_id"].to_pylist(), means["x"].to_pylist(), strict=True))
    rows = [
        {"x": ends.get(key, last.get(key)), "mean": guess.mean, "low": guess.low, "high": guess.high,
         "group": line.group, "words": f"{line.name}: {prediction_text(metric, guess)}"}
        for key, line in lines.items()
        if line.chosen and (key in last or key in ends) and (guess := predicted.get(key))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_EXPECTED)


def count_nonpositive(points: pa.Table, look: PlotOptions) -> int:
    """Return how many points a logarithmic axis leaves out, the one before the first step aside."""
    if not look.log_y or not points.num_rows:
        return 0
    return int(pc.sum(pc.less_equal(points["value" if "value" in points.column_names else "mean"], 0)).as_py() or 0)


def value_range(tables: Sequence[Mapping[str, pa.Table]], look: PlotOptions) -> tuple[float, float] | None:
    """Return one range for the y axis of several panels; None where its kind fixes it or nothing is there."""
    if is_percentage(look.shown) and not look.log_y:
        return None
    columns = [table[MEANS][name] for table in tables for name in ("low", "high", "mean")]
    columns += [table[SEEDS]["value"] for table in tables if table[SEEDS].num_rows]
    values = np.concatenate([np.asarray(column.to_numpy(), float) for column in columns] or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0 if look.log_y else True)]
    if not values.size or values.min() == values.max():
        return None
    low, high = float(values.min()), float(values.max())
    margin = 0.0 if look.log_y else 0.04 * (high - low)
    return low - margin, high + margin


def curve_figure(
    tables: Mapping[str, pa.Table], groups: Sequence[str], dashes: Sequence[str], look: PlotOptions
) -> Figure:
    """Draw the tables of ``curve_tables``; ``groups`` are in the order of their colours, ``dashes`` of their dashes."""
    spec = _spec(groups, dashes, look)
    words = f"{CURVE_METRICS[look.shown]} along {X_AXES[look.x]}: {', '.join(groups)}"
    return Figure(spec, dict(tables), words[0].upper() + words[1:], width=720)


def _with_lines(points: pa.Table, lines: Mapping[str, CurveStyle], look: PlotOptions) -> pa.Table:
    """Keep the points of these configs that the axes can show; add the line's number, name, group and dash."""
    ids = pa.array(list(lines), pa.string())
    place = pc.index_in(points["config_id"], value_set=ids)
    keep = pc.is_valid(place)
    value = "value" if "value" in points.column_names else "mean"
    keep = pc.and_(keep, pc.is_finite(points[value]))
    for name, log in (("x", look.log_x), (value, look.log_y)):
        if log:
            keep = pc.and_(keep, pc.greater(points[name], 0))
    points, place = points.filter(keep), place.filter(keep)
    points = points.append_column("line", place)
    for column in ("name", "group", "dash"):
        values = pa.array([getattr(line, column) for line in lines.values()], pa.string())
        points = points.append_column(column, values.take(place))
    if look.shown in METRIC_PAIRS:
        parts = pc.if_else(pc.starts_with(points["quantity"], "val"), _PARTS["val"], _PARTS["train"])
        points = points.set_column(points.column_names.index("dash"), "dash", parts)
    return points


def _band(means: pa.Table, look: PlotOptions) -> tuple[np.ndarray, np.ndarray]:
    middle, n = means["mean"].to_numpy(), means["n"].to_numpy()
    sd = np.asarray(means["sd"].to_numpy(), float)
    if look.band == "range":
        return means["low"].to_numpy(), means["high"].to_numpy()
    if look.band == "none":
        return middle, middle
    if look.band == "sd":
        half = sd
    else:
        factor = {int(count): half_width(1.0, int(count)) or np.nan for count in np.unique(n)}
        half = sd * np.array([factor[int(count)] for count in n], float)
    half = np.where(np.isfinite(half), half, 0.0)
    low, high = middle - half, middle + half
    if is_percentage(look.shown):
        low, high = np.maximum(low, 0.0), np.minimum(high, 1.0)
    # A logarithmic axis has no place for what is not above zero: the band ends a little below its mean's decade.
    return (np.where(low > 0, low, middle / 10) if look.log_y else low), high


def _smoothed(means: pa.Table, weight: float) -> list[float]:
    """Smooth each config's mean along its points; rows come ordered by config, quantity and step."""
    values: list[float] = means["mean"].to_pylist()
    if not weight:
        return values
    owners = list(zip(means["config_id"].to_pylist(), means["quantity"].to_pylist(), strict=True))
    smoothed: list[float] = []
    begin = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or owners[end] != owners[begin]:
            smoothed += smooth(values[begin:end], weight)
            begin = end
    return smoothed


_EXPECTED = pa.schema(
    [(name, pa.float64()) for name in ("x", "mean", "low", "high")] + [("group", pa.string()), ("words", pa.string())]
)


def _spec(groups: Sequence[str], dashes: Sequence[str], look: PlotOptions) -> dict[str, Any]:
    """Put names, colours, title and range into the spec: they change with each click, and all else seldom does."""
    # Labels beside each other as far as they fit over the chart.
    columns = max(1, min(6, int(60 * look.share / look.size) // (4 + max(map(len, groups), default=40))))
    general = replace(look, titles=("", look.titles[1]), ordered=False, y_range=look.y_range and _ANY_RANGE)
    spec = _general_spec(columns, len(groups) > 3, tuple(dashes), general)
    scale = {"domain": list(groups), "range": colours(len(groups), look.ordered, look.theme)}

    def own(channel: str, drawn: dict[str, Any]) -> dict[str, Any]:
        if channel == "color" and "scale" in drawn:
            return {**drawn, "scale": scale, "legend": {**drawn["legend"], "title": look.titles[0] or None}}
        if channel == "y" and look.y_range and "scale" in drawn:
            return {**drawn, "scale": {**drawn["scale"], "domain": list(look.y_range)}}
        return drawn

    layers = [
        {**layer, "encoding": {channel: own(channel, drawn) for channel, drawn in layer["encoding"].items()}}
        for layer in spec["layer"]
    ]
    return {**spec, "layer": layers}


@lru_cache(maxsize=256)
def _general_spec(columns: int, crowded: bool, dashes: tuple[str, ...], look: PlotOptions) -> dict[str, Any]:
    x, y = _axes(look)
    # Only what has colours of its own may be picked in the legend; all else takes part in it.
    picked = alt.selection_point(name=LEGEND, fields=["group"], bind="legend")
    zoom = alt.selection_interval(
        name=ZOOM, encodings=["x"], mark=alt.BrushConfig(fill=INK[look.theme], fillOpacity=0.1)
    )
    colour = _colours(columns)
    dash = _dash(dashes, look)

    def seen(opacity: float) -> Any:
        return alt.condition(picked, alt.value(opacity), alt.value(0.0))

    # The mean says by itself what it is, to whom reads by ear (aria); words for every point of all that goes with it
    # would be noise, and cost as much as drawing it.
    chosen, others = chart_from(MEANS), chart_from(CONTEXT).encode(x=x, y=y, detail="line:N")
    behind = others.mark_line(color=FAINT[look.theme], strokeWidth=look.size, opacity=0.8, clip=True, aria=False)
    # A line of one pixel is hard to hit; of points as the chosen ones have there would be hundreds.
    named_behind = others.mark_line(strokeWidth=8 * look.size, opacity=0, clip=True, aria=False).encode(
        tooltip=alt.Tooltip("name:N", title=" ")
    )
    # Many bands over each other would be mud.
    band = chosen.mark_area(clip=True, aria=False).encode(
        x=x,
        y="low:Q",
        y2="high:Q",
        color=colour,
        detail=["config_id:N", "dash:N"] if dash else "config_id:N",
        opacity=seen(0.06 if crowded else 0.18),
    )
    each = (
        chart_from(SEEDS).mark_line(strokeWidth=look.size, clip=True, aria=False)
        .encode(x=x, y="value:Q", detail="run_id:N", color=colour, **dash,
                opacity=seen(0.25 if crowded else 0.45))
    )  # fmt: skip
    mean = chosen.mark_line(strokeWidth=2.5 * look.size, clip=True).encode(
        x=x, y="smooth:Q", color=colour, **dash, detail="config_id:N", opacity=seen(1.0)
    )
    silent = (
        chart_from(MARKS).mark_text(align="left", dx=4, fontSize=11 * look.size, fontWeight=600)
        .encode(x=x, y="value:Q", text="mark:N", color=colour, opacity=seen(1.0),
                tooltip=alt.Tooltip("name:N", title=" "))
    )  # fmt: skip
    # The raw mean as a ghost, where the one drawn bold is smoothed.
    ghost = chosen.mark_line(strokeWidth=look.size, clip=True, aria=False).encode(
        x=x, y="mean:Q", color=colour, **dash, detail="config_id:N", opacity=seen(0.5)
    )
    layers = [
        behind,
        named_behind,
        *(_predicted(x, y, colour, seen, look) if look.expected else []),
        band,
        each,
        *([ghost] if look.smoothing else []),
        mean.add_params(picked, zoom),
        silent,
        _hover(x, y, look),
    ]
    chart = alt.layer(*layers).properties(height=HEIGHT * look.size, usermeta={"embedOptions": {"renderer": "svg"}})
    return build_spec(chart) | {"config": font_config(look.size)}


def _predicted(
    x: alt.X, y: alt.Y, colour: alt.Color, seen: Callable[[float], Any], look: PlotOptions
) -> list[alt.Chart]:
    """Return the bands of what was expected, at the end of the curves and under them, and their middles."""
    base = chart_from(PREDICTIONS).encode(x=x, color=colour, tooltip=[alt.Tooltip("words:N", title=" ")])
    band = base.mark_rule(strokeWidth=10 * look.size).encode(y="low:Q", y2="high:Q", opacity=seen(0.3))
    middle = base.mark_point(shape="diamond", filled=True, size=70 * look.size)
    return [band, middle.encode(y=y, opacity=seen(0.7))]


def _hover(x: alt.X, y: alt.Y, look: PlotOptions) -> alt.Chart:
    """Return points to hover: lines have no nearest point of their own."""
    form = ".2%" if is_percentage(look.shown) else ".4~g"
    band = [alt.Tooltip("low:Q", title="band from", format=form), alt.Tooltip("high:Q", title="to", format=form)]
    figures = [
        alt.Tooltip("name:N", title="config"),
        alt.Tooltip("x:Q", title=X_AXES[look.x], format=".4~g"),
        alt.Tooltip("mean:Q", title="mean", format=form),
        *(band if look.band != "none" else []),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    chart: alt.Chart = (
        chart_from(MEANS)
        .mark_point(size=80, filled=True, opacity=0, clip=True, aria=False)
        .encode(x=x, y=y, tooltip=figures)
    )
    return chart


def _axes(look: PlotOptions) -> tuple[alt.X, alt.Y]:
    if look.x_range:
        x_scale = alt.Scale(type="log" if look.log_x else "linear", domain=list(look.x_range), nice=False)
    else:
        x_scale = alt.Scale(type="log", nice=False) if look.log_x else alt.Scale(nice=False, zero=True)
    domain = look.y_range or (_share_range(look.shown) if is_percentage(look.shown) and not look.log_y else None)
    y_scale = alt.Scale(
        type="log" if look.log_y else "linear",
        domain=list(domain) if domain else alt.Undefined,
        nice=False,
        zero=alt.Undefined if look.log_y else False,
    )
    return (
        alt.X("x:Q", title=X_AXES[look.x], scale=x_scale, axis=_progress_axis(look)),
        alt.Y("mean:Q", title=CURVE_METRICS[look.shown], scale=y_scale, axis=number_axis(look.shown, tickCount=8)),
    )


def _share_range(shown: str) -> tuple[float, float]:
    # A recall reaches from a silent class's zero to one.
    return (0.0, 1.0) if shown.startswith("recall_") else SHARE_RANGE


def _progress_axis(look: PlotOptions) -> alt.Axis:
    if look.log_x and look.x_range is None:
        return number_axis(look.x, grid=False, values=[10.0**power for power in range(-6, 10)])
    whole = look.x == "epoch" and look.x_range is None
    return number_axis(look.x, grid=False, tickCount=8, **({"tickMinStep": 1} if whole else {}))


def _colours(columns: int) -> alt.Color:
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


def _dash(dashes: tuple[str, ...], look: PlotOptions) -> dict[str, alt.StrokeDash]:
    """Return the encoding of dashes, nothing where there is but one: it would be asked for at every point."""
    values = [*_PARTS.values()] if look.shown in METRIC_PAIRS else list(dashes)
    if len(values) < 2:
        return {}
    title = None if look.shown in METRIC_PAIRS else look.titles[1] or None
    return {
        "strokeDash": alt.StrokeDash(
            "dash:N",
            scale=alt.Scale(domain=values, range=[list(_DASHES[i % len(_DASHES)]) for i in range(len(values))]),
            legend=alt.Legend(title=title, orient="bottom", symbolType="stroke", symbolSize=300),
        )
    }


# Marks nearer than this share of the axis are one.
APART = 0.05


def silent_marks(each: pa.Table, brief: bool) -> pa.Table:
    """Return a row a mark: its place, ``group``, the ``mark`` and, for a tooltip, ``name``.

    ``each`` has a row a point of every seed, ``silent`` naming its silent classes, which a ``brief`` mark leaves out.
    Marks of one group that would lie over each other are one.
    """
    silent = each.filter(pc.not_equal(each["silent"], ""))
    last: dict[str, dict[str, Any]] = {}
    rows = silent.select(["run_id", "x", "value", "group", "dash", "silent", "name", "seed"]).to_pylist()
    for row in rows:
        last[row["run_id"]] = row
    values = [row["value"] for row in rows]
    apart = APART * (max(values) - min(values)) if values else 0.0
    marks: list[dict[str, Any]] = []
    for row in sorted(last.values(), key=lambda row: (row["group"], row["value"])):
        words = f"{row['name']}, seed {row['seed']}: never predicts {', '.join(row['silent'].split())}"
        before = marks[-1] if marks else {}
        if before.get("group") == row["group"] and row["value"] - before["value"] < apart:
            # Letters over each other cannot be read: one mark stands for both.
            before["mark"] += "" if brief else "".join(c for c in row["silent"].split() if c not in before["mark"])
            before["name"] += f"; {words}"
            continue
        mark = "†" + ("" if brief else row["silent"].replace(" ", ""))
        marks.append({"x": row["x"], "value": row["value"], "group": row["group"], "mark": mark, "name": words})
    if not brief:
        # Of several groups the lower one stays where its line ends, the others make room for its letters.
        marks.sort(key=lambda mark: mark["value"])
        for below, above in itertools.pairwise(marks):
            above["value"] = max(above["value"], below["value"] + apart)
    return pa.Table.from_pylist(marks, schema=_MARKS)


_MARKS = pa.schema(
    [("x", pa.float64()), ("value", pa.float64())] + [(name, pa.string()) for name in ("group", "mark", "name")]
)
