"""The charts of the Compare page: two configs, A and B, in the same two colours everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jsc_explore.analysis.statistics import summarize
from jsc_explore.charts.curves import ACCURACY_RANGE
from jsc_explore.charts.style import (
    ACCENT,
    BAND_OPACITY_COMPARISON,
    INK,
    MUTED,
    QUANTITIES,
    SVG_RENDERER,
    WARNING,
    X_AXES,
    Chart,
    difference_scale,
    format_metric,
    is_percentage,
    number_axis,
)
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import CLASSES
from jsc_explore.store.schema import METRICS

SIDES = ("A", "B")
# Confusion matrix: colours of shares 0 and 1; the colour of no difference.
_SHARE_COLOURS = {"light": ("#F3F5F8", "#0B4F7D"), "dark": ("#1A1F29", "#7CC4F5")}
_NO_DIFFERENCE = {"light": "#FFFFFF", "dark": "#22262E"}


def learning_curve_tables(
    groups: pa.Table, points: pa.Table, sides: Mapping[str, str], quantity: str
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of ``learning_curve_chart``: medians with bands, and the curves of the seeds.

    ``groups`` is from ``Store.grouped_curves``, ``points`` from ``Store.curves``. ``sides`` maps A and B to config ids.
    The median of the seeds with a silent class (``silent``) has no band.
    """
    figures = summarize(groups["values"])
    bands = [
        {
            "side": side,
            "x": row["epoch"],
            "median": middle,
            "low": middle if row["is_silent"] else low,
            "high": middle if row["is_silent"] else high,
            "n": len(row["values"]),
            "silent": row["is_silent"],
        }
        for row, middle, low, high in zip(
            groups.to_pylist(), *(column.tolist() for column in figures.values()), strict=True
        )
        for side in _sides_of(row["config_id"], sides)
    ]
    seeds = [
        {"side": side, "run_id": row["run_id"], "x": row["epoch"], "value": row[quantity], "silent": row["silent"]}
        for row in points.to_pylist()
        if row[quantity] is not None
        for side in _sides_of(row["config_id"], sides)
    ]
    return pa.Table.from_pylist(bands, schema=_BANDS), pa.Table.from_pylist(seeds, schema=_SEED_CURVES)


def _seed_points(seeds: pa.Table, metric: str) -> pa.Table:
    rows = [
        {**row, "text": format_metric(metric, row["metric"]),
         "classes": row["silent"] or "none is silent"}
        for row in seeds.to_pylist()
        if row["metric"] is not None
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_SEED_POINTS)


def _confusion_table(shares: npt.NDArray[np.float64], difference: bool) -> pa.Table:
    rows = [
        {"true": CLASS_NAMES[true], "predicted": CLASS_NAMES[predicted], "share": float(shares[i, j]),
         "text": _share_text(float(shares[i, j]), difference),
         "strong": abs(shares[i, j]) > (0.3 if difference else 0.55)}
        for i, true in enumerate(CLASSES)
        for j, predicted in enumerate(CLASSES)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def _share_text(value: float, difference: bool) -> str:
    if not difference:
        return f"{100 * value:.0f}%"
    factor, _ = difference_scale("val_acc")
    return "0" if abs(value) < 0.005 else f"{factor * value:+.0f}".replace("-", "−")


def _sides_of(config_id: str, sides: Mapping[str, str]) -> list[str]:
    return [side for side in SIDES if sides.get(side) == config_id]


_SEED_POINTS = pa.schema([("side", pa.string()), ("seed", pa.int64()), ("metric", pa.float64()),
                          ("silent", pa.string()), ("text", pa.string()), ("classes", pa.string())])  # fmt: skip
_BANDS = pa.schema([("side", pa.string()), ("x", pa.float64()), ("median", pa.float64()), ("low", pa.float64()),
                    ("high", pa.float64()), ("n", pa.int64()), ("silent", pa.bool_())])  # fmt: skip
_SEED_CURVES = pa.schema([("side", pa.string()), ("run_id", pa.string()), ("x", pa.float64()), ("value", pa.float64()),
                          ("silent", pa.bool_())])  # fmt: skip
_CLASSES = pa.schema([("side", pa.string()), ("class", pa.string()), ("median", pa.float64()), ("low", pa.float64()),
                      ("high", pa.float64()), ("n", pa.int64())])  # fmt: skip


# ---- drawing


def seed_chart(seeds: pa.Table, metric: str, theme: str = "light") -> Chart:
    """Draw the metric of each seed under A and under B, joined by a line.

    ``seeds`` holds ``side``, ``seed``, ``metric`` and ``silent``. A seed is drawn as a triangle where
    ``silent`` names silent classes.
    """
    table = _seed_points(seeds, metric)
    x = alt.X("side:N", sort=list(SIDES), title=None, scale=alt.Scale(domain=list(SIDES), padding=0.6),
              axis=alt.Axis(labelAngle=0, labelFontSize=14, ticks=False, domain=False))  # fmt: skip
    y = alt.Y(
        "metric:Q",
        title=METRICS[metric].split(",")[0],
        scale=alt.Scale(zero=False),
        axis=number_axis(metric, tickCount=6),
    )
    joined = (
        alt.Chart(table).mark_line(color=MUTED[theme], strokeWidth=1.2, opacity=0.7).encode(x=x, y=y, detail="seed:N")
    )
    dots = (
        alt.Chart(table)
        .mark_point(size=110, filled=True, opacity=0.9)
        .encode(
            x=x,
            y=y,
            color=side_colour(theme),
            shape=alt.condition("datum.silent != null", alt.value("triangle-down"), alt.value("circle")),
            tooltip=[
                "side:N",
                "seed:Q",
                alt.Tooltip("text:N", title="metric"),
                alt.Tooltip("classes:N", title="classes"),
            ],
        )
    )
    return alt.layer(joined, dots).properties(height=320, usermeta=SVG_RENDERER)


def learning_curve_chart(
    bands: pa.Table,
    seeds: pa.Table,
    quantity: str,
    theme: str = "light",
    *,
    title: str | None = None,
    height: int = 320,
) -> Chart:
    """Draw a quantity of A and B over the epochs, from the tables of ``learning_curve_tables``.

    The median of the seeds without a silent class has its spread (``median_spread``) as a band; that of the others is
    thin and dashed. Seeds are faint, dashed with a silent class. With a ``title`` it is a small chart, one of several.
    """
    x = "epoch"
    scale = alt.Scale(domain=[0, 1] if quantity.startswith("recall_") else list(ACCURACY_RANGE))
    y_scale = scale if is_percentage(quantity) else alt.Scale(zero=False)
    small = title is not None
    x_axis = alt.X(
        "x:Q", title=None if small else X_AXES[x], axis=number_axis(x, grid=False, tickCount=4 if small else 8)
    )
    y_axis = number_axis(quantity, tickCount=3 if small else 6)
    y = alt.Y("median:Q", title=None if small else QUANTITIES[quantity], scale=y_scale, axis=y_axis)
    tooltip = [
        alt.Tooltip("side:N", title="config"),
        alt.Tooltip("x:Q", title=X_AXES[x], format=".4~g"),
        alt.Tooltip("median:Q", title=QUANTITIES[quantity], format=".1%" if is_percentage(quantity) else ".4f"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    dash = alt.condition("datum.silent", alt.value([4, 3]), alt.value([1, 0]))
    band = (
        alt.Chart(bands)
        .mark_area(opacity=BAND_OPACITY_COMPARISON)
        .encode(x=x_axis, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=side_colour(theme), detail="silent:N")
    )
    faint = alt.Chart(seeds).mark_line(strokeWidth=1, opacity=0.4)
    faint = faint.encode(
        x=x_axis, y=alt.Y("value:Q", scale=y_scale), color=side_colour(theme), detail="run_id:N", strokeDash=dash
    )
    line = alt.Chart(bands).mark_line().encode(
        x=x_axis, y=y, color=side_colour(theme), detail="silent:N", strokeDash=dash,
        strokeWidth=alt.condition("datum.silent", alt.value(1.5), alt.value(2.5)),
    )  # fmt: skip
    hover = alt.Chart(bands).mark_point(size=60, filled=True, opacity=0).encode(x=x_axis, y=y, tooltip=tooltip)
    chart = alt.layer(band, faint, line, hover).properties(height=height, usermeta=SVG_RENDERER)
    return chart.properties(title=alt.TitleParams(title, anchor="start", fontSize=13)) if title else chart


def confusion_chart(
    shares: npt.NDArray[np.float64], title: str, theme: str = "light", *, difference: bool = False
) -> Chart:
    """Draw ``(5, 5)`` shares: row, the true class; column, the predicted one. A difference is in percentage points."""
    table = _confusion_table(shares, difference)
    order = [CLASS_NAMES[name] for name in CLASSES]
    # Short labels: the chart is a third of the page wide.
    bare: dict[str, Any] = {"ticks": False, "domain": False, "labelExpr": "replace(datum.label, 'light ', '')"}
    x = alt.X(
        "predicted:N", sort=order, title="predicted class", axis=alt.Axis(labelAngle=0, labelOverlap=False, **bare)
    )
    y = alt.Y("true:N", sort=order, title="true class", axis=alt.Axis(**bare))
    scale = alt.Scale(domain=[0, 1], range=list(_SHARE_COLOURS[theme]), interpolate="lab")
    if difference:
        scale = alt.Scale(
            domain=[-0.5, 0, 0.5],
            range=[ACCENT[theme], _NO_DIFFERENCE[theme], WARNING[theme]],
            clamp=True,
            interpolate="lab",
        )
    strong = "#101418" if theme == "dark" and not difference else "#FFFFFF"
    base = alt.Chart(table).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("share:Q", scale=scale, legend=None),
        tooltip=[
            alt.Tooltip("true:N", title="true class"),
            alt.Tooltip("predicted:N", title="predicted class"),
            alt.Tooltip("text:N", title="share"),
        ],
    )
    text = base.mark_text(fontSize=12).encode(
        text="text:N", color=alt.condition("datum.strong", alt.value(strong), alt.value(INK[theme]))
    )
    chart = alt.layer(cells, text).properties(height=290, usermeta=SVG_RENDERER)
    return chart.properties(title=alt.TitleParams(title, anchor="start", fontSize=13))


def auc_chart(rows: Sequence[Mapping[str, Any]], theme: str = "light") -> Chart:
    """Draw the area under the ROC curve of each class for A and B: median over seeds with its spread.

    ``rows`` are those of ``analysis.classes.per_class`` with a ``side``.
    """
    table = pa.Table.from_pylist(
        [{**row, "class": CLASS_NAMES[row["class"]]} for row in rows if row["median"] is not None], schema=_CLASSES
    )
    classes = list(CLASS_NAMES.values())
    y = alt.Y("class:N", sort=classes, title=None, scale=alt.Scale(domain=classes), axis=alt.Axis(ticks=False))
    offset = alt.YOffset("side:N", sort=list(SIDES), scale=alt.Scale(domain=list(SIDES), paddingOuter=0.8))
    scale = alt.Scale(zero=False)
    x = alt.X("median:Q", title="area under the ROC curve", scale=scale, axis=alt.Axis(tickCount=5, format=".2f"))
    tooltip = [alt.Tooltip("side:N", title="config"), alt.Tooltip("class:N"),
               alt.Tooltip("median:Q", format=".4f"), alt.Tooltip("low:Q", format=".4f", title="from"),
               alt.Tooltip("high:Q", format=".4f", title="to"), alt.Tooltip("n:Q", title="seeds")]  # fmt: skip
    base = alt.Chart(table).encode(y=y, yOffset=offset, color=side_colour(theme), tooltip=tooltip)
    spans = base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    return alt.layer(spans, base.mark_point(filled=True, size=110, opacity=1).encode(x=x)).properties(
        height=220, usermeta=SVG_RENDERER
    )


def side_colour(theme: str) -> alt.Color:
    """Return the colour encoding of A and B, the same in all charts."""
    return alt.Color("side:N", scale=alt.Scale(domain=list(SIDES), range=[ACCENT[theme], WARNING[theme]]), legend=None)
