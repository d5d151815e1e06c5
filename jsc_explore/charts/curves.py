"""Learning curves: the mean over seeds with its 95% interval, every seed faint behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import pyarrow as pa

from jsc_explore.analysis.intervals import half_width
from jsc_explore.charts.style import CATEGORIES, FAINT, PROGRESS, QUANTITIES, Drawing, is_share, number_axis

HEIGHT = 420
# Accuracies are drawn on one range, so that a growing curve does not move the axis under the reader.
SHARE_RANGE = (0.0, 0.8)


@dataclass(frozen=True)
class Line:
    """What a config's curve is called and how it is drawn: in colour if it is ``chosen``, as faint context if not."""

    label: str
    chosen: bool
    live: bool = False


def curve_tables(
    means: pa.Table, seeds: pa.Table, lines: Mapping[str, Line], x: str, quantity: str, *, log_x: bool
) -> tuple[pa.Table, pa.Table]:
    """Return the two tables that ``curve_chart`` draws, from ``Store.mean_curves`` and ``Store.curves``.

    The first has a row a step and config: x, mean, interval low and high, n, label, chosen; the second a row a point
    of every seed of the chosen configs. On a logarithmic axis the point at zero is left out.
    """
    rows = []
    for row in means.to_pylist():
        line = lines.get(row["config_id"])
        if line is None or (log_x and not row[x]):
            continue
        half = half_width(row["sd"], row["n"])
        low, high = (row["mean"] - half, row["mean"] + half) if half is not None else (row["mean"], row["mean"])
        if is_share(quantity):
            low, high = max(0.0, low), min(1.0, high)
        rows.append(
            {
                "config_id": row["config_id"],
                "x": row[x],
                "mean": row["mean"],
                "low": low,
                "high": high,
                "n": row["n"],
                "label": line.label,
                "chosen": line.chosen,
            }
        )
    seed_rows = [
        {"run_id": row["run_id"], "x": row[x], "value": row[quantity], "label": lines[row["config_id"]].label,
         "seed": row["seed"], "dead": bool(row["dead"])}
        for row in seeds.to_pylist()
        if row["config_id"] in lines and row[quantity] is not None and not (log_x and not row[x])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_MEANS), pa.Table.from_pylist(seed_rows, schema=_SEEDS)


def curve_chart(
    means: pa.Table,
    seeds: pa.Table,
    labels: Sequence[str],
    x: str,
    quantity: str,
    *,
    log_x: bool = False,
    x_end: float | None = None,
    ground: str = "light",
) -> Drawing:
    """Draw the tables of ``curve_tables``; ``labels`` are the chosen configs in the order of their colours.

    ``x_end`` fixes the end of a linear axis, for curves that are still growing.
    """
    axis_x, axis_y = _axes(x, quantity, log_x, x_end)
    colour = _colours(labels)
    chosen = alt.Chart(means).transform_filter("datum.chosen")
    context = alt.Chart(means).transform_filter("!datum.chosen")
    figures = [
        alt.Tooltip("label:N", title="config"),
        alt.Tooltip("x:Q", title=PROGRESS[x], format=".4~g"),
        alt.Tooltip("mean:Q", title=QUANTITIES[quantity], format=".2%" if is_share(quantity) else ".4f"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    behind = context.mark_line(color=FAINT[ground], strokeWidth=1, opacity=0.8).encode(
        x=axis_x, y=axis_y, detail="config_id:N"
    )
    # Many bands over each other would be mud.
    crowded = len(labels) > 3
    band = chosen.mark_area(opacity=0.06 if crowded else 0.18).encode(
        x=axis_x, y=alt.Y("low:Q"), y2="high:Q", color=colour
    )
    each = (
        alt.Chart(seeds)
        .mark_line(strokeWidth=1, opacity=0.25 if crowded else 0.45)
        .encode(
            x=axis_x,
            y="value:Q",
            detail="run_id:N",
            color=colour,
            strokeDash=alt.condition("datum.dead", alt.value([4, 3]), alt.value([1, 0])),
        )
    )
    line = chosen.mark_line(strokeWidth=2.5).encode(x=axis_x, y=axis_y, color=colour)
    # Points to hover: lines have no nearest point of their own.
    hover = alt.Chart(means).mark_point(size=60, filled=True, opacity=0).encode(x=axis_x, y=axis_y, tooltip=figures)
    chart = alt.layer(behind, band, each, line, hover)
    # SVG also for many points: a screen reader finds axes and legend in it, on a canvas it finds nothing.
    return chart.properties(height=HEIGHT, usermeta={"embedOptions": {"renderer": "svg"}})


_MEANS = pa.schema(
    [
        ("config_id", pa.string()),
        ("x", pa.float64()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("label", pa.string()),
        ("chosen", pa.bool_()),
    ]
)
_SEEDS = pa.schema(
    [
        ("run_id", pa.string()),
        ("x", pa.float64()),
        ("value", pa.float64()),
        ("label", pa.string()),
        ("seed", pa.int64()),
        ("dead", pa.bool_()),
    ]
)


def _axes(x: str, quantity: str, log_x: bool, x_end: float | None) -> tuple[alt.X, alt.Y]:
    x_scale = alt.Scale(type="log", nice=False) if log_x else alt.Scale(domain=[0, x_end] if x_end else alt.Undefined)
    y_scale = alt.Scale(domain=list(_share_range(quantity))) if is_share(quantity) else alt.Scale(zero=False)
    return (
        alt.X("x:Q", title=PROGRESS[x], scale=x_scale, axis=_progress_axis(x, log_x)),
        alt.Y("mean:Q", title=QUANTITIES[quantity], scale=y_scale, axis=number_axis(quantity, tickCount=8)),
    )


def _share_range(quantity: str) -> tuple[float, float]:
    # A recall reaches from a dead class's zero to one.
    return (0.0, 1.0) if quantity.startswith("recall_") else SHARE_RANGE


def _progress_axis(x: str, log_x: bool) -> alt.Axis:
    if log_x:
        return number_axis(x, grid=False, values=[10.0**power for power in range(-4, 10)])
    return number_axis(x, grid=False, tickCount=8, **({"tickMinStep": 1} if x == "epoch" else {}))


def _colours(labels: Sequence[str]) -> alt.Color:
    # Labels beside each other as far as they fit over the chart.
    columns = max(1, min(4, 40 // max(map(len, labels), default=40)))
    return alt.Color(
        "label:N",
        scale=alt.Scale(domain=list(labels), range=[CATEGORIES[i % len(CATEGORIES)] for i in range(len(labels))]),
        legend=alt.Legend(
            title=None,
            orient="top",
            columns=columns,
            labelLimit=420,
            symbolType="stroke",
            symbolStrokeWidth=3,
            symbolOpacity=1,
        ),
    )
