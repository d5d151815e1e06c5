"""The Compare page's charts: two configs, A and B, always in the same two colours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jsc_explore.analysis.statistics import half_width
from jsc_explore.charts.curves import SHARE_RANGE
from jsc_explore.charts.style import (
    ACCENT,
    INK,
    MUTED,
    QUANTITIES,
    WARNING,
    X_AXES,
    AltairChart,
    difference_scale,
    format_metric,
    is_percentage,
    number_axis,
)
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import CLASSES
from jsc_explore.store.schema import METRICS

SIDES = ("A", "B")
# From nothing to everything; the middle of a difference.
_SHADES = {"light": ("#F3F5F8", "#0B4F7D"), "dark": ("#1A1F29", "#7CC4F5")}
_MIDDLE = {"light": "#FFFFFF", "dark": "#22262E"}
_SVG = {"embedOptions": {"renderer": "svg"}}


def seed_chart(seeds: pa.Table, metric: str, theme: str = "light") -> AltairChart:
    """Draw every seed's metric under A and B, the two joined; ``seeds`` holds ``side``, ``seed``, ``metric``, ``lost``.

    A seed that never predicts some class, which ``lost`` names, is drawn as a triangle.
    """
    rows = [
        {**row, "figure": format_metric(metric, row["metric"]), "life": row["lost"] or "every class is predicted"}
        for row in seeds.to_pylist()
        if row["metric"] is not None
    ]
    table = pa.Table.from_pylist(rows, schema=_PAIRED)
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
            color=colour_of(theme),
            shape=alt.condition("datum.lost != null", alt.value("triangle-down"), alt.value("circle")),
            tooltip=[
                "side:N",
                "seed:Q",
                alt.Tooltip("figure:N", title="metric"),
                alt.Tooltip("life:N", title="classes"),
            ],
        )
    )
    return alt.layer(joined, dots).properties(height=320, usermeta=_SVG)


def learning_curve_tables(
    means: pa.Table, points: pa.Table, sides: Mapping[str, str], lost: Collection[str], quantity: str
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of ``growth_chart`` from ``Store.mean_curves`` and ``Store.curves``; ``sides`` gives the ids of
    A and B, ``lost`` the runs that never predict some class.
    """
    bands = []
    for row in means.to_pylist():
        half = half_width(row["sd"], row["n"]) or 0.0
        low, high = row["mean"] - half, row["mean"] + half
        if is_percentage(quantity):
            low, high = max(0.0, low), min(1.0, high)
        bands += [
            {"side": side, "x": row["epoch"], "mean": row["mean"], "low": low, "high": high, "n": row["n"]}
            for side in _sides_of(row["config_id"], sides)
        ]
    each = [
        {
            "side": side,
            "run_id": row["run_id"],
            "x": row["epoch"],
            "value": row[quantity],
            "lost": row["run_id"] in lost,
        }
        for row in points.to_pylist()
        if row[quantity] is not None
        for side in _sides_of(row["config_id"], sides)
    ]
    return pa.Table.from_pylist(bands, schema=_BANDS), pa.Table.from_pylist(each, schema=_EACH)


def learning_curve_chart(
    bands: pa.Table,
    each: pa.Table,
    quantity: str,
    theme: str = "light",
    *,
    title: str | None = None,
    height: int = 320,
) -> AltairChart:
    """Draw a quantity of A and B over the epochs: mean with its 95% interval, each seed faint, dashed where it never
    predicts some class. With a ``title`` it is one of several small ones.
    """
    x = "epoch"
    scale = alt.Scale(domain=[0, 1] if quantity.startswith("recall_") else list(SHARE_RANGE))
    y_scale = scale if is_percentage(quantity) else alt.Scale(zero=False)
    small = title is not None
    x_axis = alt.X(
        "x:Q", title=None if small else X_AXES[x], axis=number_axis(x, grid=False, tickCount=4 if small else 8)
    )
    y_axis = number_axis(quantity, tickCount=3 if small else 6)
    y = alt.Y("mean:Q", title=None if small else QUANTITIES[quantity], scale=y_scale, axis=y_axis)
    tooltip = [
        alt.Tooltip("side:N", title="config"),
        alt.Tooltip("x:Q", title=X_AXES[x], format=".4~g"),
        alt.Tooltip("mean:Q", title=QUANTITIES[quantity], format=".1%" if is_percentage(quantity) else ".4f"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    dash = alt.condition("datum.lost", alt.value([4, 3]), alt.value([1, 0]))
    band = (
        alt.Chart(bands)
        .mark_area(opacity=0.15)
        .encode(x=x_axis, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=colour_of(theme))
    )
    faint = alt.Chart(each).mark_line(strokeWidth=1, opacity=0.4)
    faint = faint.encode(
        x=x_axis, y=alt.Y("value:Q", scale=y_scale), color=colour_of(theme), detail="run_id:N", strokeDash=dash
    )
    line = alt.Chart(bands).mark_line(strokeWidth=2.5).encode(x=x_axis, y=y, color=colour_of(theme))
    hover = alt.Chart(bands).mark_point(size=60, filled=True, opacity=0).encode(x=x_axis, y=y, tooltip=tooltip)
    chart = alt.layer(band, faint, line, hover).properties(height=height, usermeta=_SVG)
    return chart.properties(title=alt.TitleParams(title, anchor="start", fontSize=13)) if title else chart


def confusion_chart(
    shares: npt.NDArray[np.float64], title: str, theme: str = "light", *, difference: bool = False
) -> AltairChart:
    """Draw ``(5, 5)`` shares: row, the true class; column, what it is taken for. A difference is drawn in points."""
    rows = [
        {
            "true": CLASS_NAMES[true],
            "taken": CLASS_NAMES[taken],
            "share": float(shares[i, j]),
            "text": _share_text(float(shares[i, j]), difference),
            "strong": abs(shares[i, j]) > (0.3 if difference else 0.55),
        }
        for i, true in enumerate(CLASSES)
        for j, taken in enumerate(CLASSES)
    ]
    order = [CLASS_NAMES[name] for name in CLASSES]
    # Short and flat, so that they fit a third of a page.
    bare: dict[str, Any] = {"ticks": False, "domain": False, "labelExpr": "replace(datum.label, 'light ', '')"}
    x = alt.X("taken:N", sort=order, title="taken for", axis=alt.Axis(labelAngle=0, labelOverlap=False, **bare))
    y = alt.Y("true:N", sort=order, title="true class", axis=alt.Axis(**bare))
    scale = alt.Scale(domain=[0, 1], range=list(_SHADES[theme]), interpolate="lab")
    if difference:
        scale = alt.Scale(
            domain=[-0.5, 0, 0.5],
            range=[ACCENT[theme], _MIDDLE[theme], WARNING[theme]],
            clamp=True,
            interpolate="lab",
        )
    strong = "#101418" if theme == "dark" and not difference else "#FFFFFF"
    base = alt.Chart(pa.Table.from_pylist(rows)).encode(x=x, y=y)
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color("share:Q", scale=scale, legend=None),
        tooltip=[
            alt.Tooltip("true:N", title="true"),
            alt.Tooltip("taken:N", title="taken for"),
            alt.Tooltip("text:N", title="share"),
        ],
    )
    text = base.mark_text(fontSize=12).encode(
        text="text:N", color=alt.condition("datum.strong", alt.value(strong), alt.value(INK[theme]))
    )
    chart = alt.layer(cells, text).properties(height=290, usermeta=_SVG)
    return chart.properties(title=alt.TitleParams(title, anchor="start", fontSize=13))


def auc_chart(rows: Sequence[Mapping[str, Any]], theme: str = "light") -> AltairChart:
    """Draw the area under the ROC curve per class for A and B: mean over seeds with its 95% interval.

    ``rows`` are those of ``analysis.classes.per_class`` with their ``side``.
    """
    table = pa.Table.from_pylist(
        [{**row, "class": CLASS_NAMES[row["class"]]} for row in rows if row["mean"] is not None], schema=_CLASSES
    )
    classes = list(CLASS_NAMES.values())
    y = alt.Y("class:N", sort=classes, title=None, scale=alt.Scale(domain=classes), axis=alt.Axis(ticks=False))
    apart = alt.YOffset("side:N", sort=list(SIDES), scale=alt.Scale(domain=list(SIDES), paddingOuter=0.8))
    scale = alt.Scale(zero=False)
    x = alt.X("mean:Q", title="area under the ROC curve", scale=scale, axis=alt.Axis(tickCount=5, format=".2f"))
    tooltip = [alt.Tooltip("side:N", title="config"), alt.Tooltip("class:N"),
               alt.Tooltip("mean:Q", title="mean", format=".4f"), alt.Tooltip("low:Q", format=".4f", title="95% from"),
               alt.Tooltip("high:Q", format=".4f", title="to"), alt.Tooltip("n:Q", title="seeds")]  # fmt: skip
    base = alt.Chart(table).encode(y=y, yOffset=apart, color=colour_of(theme), tooltip=tooltip)
    spans = base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    return alt.layer(spans, base.mark_point(filled=True, size=110, opacity=1).encode(x=x)).properties(
        height=220, usermeta=_SVG
    )


def _share_text(value: float, difference: bool) -> str:
    if not difference:
        return f"{100 * value:.0f}%"
    factor, _ = difference_scale("val_acc")
    return "0" if abs(value) < 0.005 else f"{factor * value:+.0f}".replace("-", "−")


def colour_of(theme: str) -> alt.Color:
    """Return the colours of A and B, the same in all charts."""
    return alt.Color("side:N", scale=alt.Scale(domain=list(SIDES), range=[ACCENT[theme], WARNING[theme]]), legend=None)


def _sides_of(config_id: str, sides: Mapping[str, str]) -> list[str]:
    return [side for side in SIDES if sides.get(side) == config_id]


_PAIRED = pa.schema([("side", pa.string()), ("seed", pa.int64()), ("metric", pa.float64()), ("lost", pa.string()),
                     ("figure", pa.string()), ("life", pa.string())])  # fmt: skip
_BANDS = pa.schema([("side", pa.string()), ("x", pa.float64()), ("mean", pa.float64()), ("low", pa.float64()),
                    ("high", pa.float64()), ("n", pa.int64())])  # fmt: skip
_EACH = pa.schema([("side", pa.string()), ("run_id", pa.string()), ("x", pa.float64()), ("value", pa.float64()),
                   ("lost", pa.bool_())])  # fmt: skip
_CLASSES = pa.schema([("side", pa.string()), ("class", pa.string()), ("mean", pa.float64()), ("low", pa.float64()),
                      ("high", pa.float64()), ("n", pa.int64())])  # fmt: skip
