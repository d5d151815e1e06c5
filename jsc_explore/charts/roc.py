"""ROC curves of A and B, one class against the rest: background rejection against signal efficiency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa

from jsc_explore.charts.compare import side_colour
from jsc_explore.charts.style import BAND_OPACITY_COMPARISON, INK, MUTED, POWER_LABEL, SVG_RENDERER, Chart
from jsc_explore.data.glossary import CLASS_NAMES

# The signal efficiency at which rejections are marked and quoted.
HALF = 0.5
HEIGHT = 260
# Offsets of the numbers from their marks: above the upper curve, below the lower one.
_TEXT_OFFSETS: dict[bool, dict[str, Any]] = {
    True: {"align": "left", "dx": 8, "dy": -8},
    False: {"align": "right", "dx": -8, "dy": 10},
}


def roc_tables(medians: Sequence[Mapping[str, Any]], halves: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, pa.Table]:
    """Return the tables of ``roc_chart``: the curves, and the rejections at 50% signal efficiency.

    ``medians`` are rows of ``analysis.classes.roc_medians``, ``halves`` those of ``per_class``, both with a ``side``.
    """
    known = [row for row in halves if row["median"] is not None]
    upper = {row["class"]: row for row in sorted(known, key=lambda row: (row["median"], row["side"] == "A"))}
    marks = [
        {**row, "efficiency": HALF, "text": f"{row['side']} {row['median']:.3g}", "upper": upper[row["class"]] is row}
        for row in known
    ]
    return pa.Table.from_pylist(list(medians), schema=_CURVES), pa.Table.from_pylist(marks, schema=_MARKS)


def rejection_range(curves: pa.Table, marks: pa.Table) -> tuple[float, float]:
    """Return the common y range of all classes: from 1 to the highest rejection, at least a decade."""
    highest = [value for table in (curves, marks) for value in table["high"].to_pylist()]
    return 1.0, max([10.0, *highest])


_COMMON = [("side", pa.string()), ("class", pa.string()), ("efficiency", pa.float64()), ("median", pa.float64()),
           ("low", pa.float64()), ("high", pa.float64()), ("n", pa.int64())]  # fmt: skip
_CURVES = pa.schema(_COMMON)
_MARKS = pa.schema([*_COMMON, ("text", pa.string()), ("upper", pa.bool_())])


# ---- drawing


def roc_chart(curves: pa.Table, marks: pa.Table, name: str, span: tuple[float, float], theme: str = "light") -> Chart:
    """Draw the curves of one class: median over seeds with its spread, the rejection at 50% marked."""
    own, at_half = (table.filter(pa.compute.equal(table["class"], name)) for table in (curves, marks))
    x = alt.X(
        "efficiency:Q", title="signal efficiency", scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format=".0%", values=[0, HALF, 1], grid=False),
    )  # fmt: skip
    scale = alt.Scale(type="log", domain=list(span), nice=False, clamp=True)
    y = alt.Y(
        "median:Q", title="background rejection" if name == "g" else None, scale=scale,
        axis=alt.Axis(values=[10.0**power for power in range(10) if 10.0**power <= span[1]], labelExpr=POWER_LABEL),
    )  # fmt: skip
    colour = side_colour(theme)
    tooltip = [
        alt.Tooltip("side:N", title="config"),
        alt.Tooltip("efficiency:Q", title="signal efficiency", format=".0%"),
        alt.Tooltip("median:Q", title="rejection", format=".3~g"),
        alt.Tooltip("low:Q", title="from", format=".3~g"),
        alt.Tooltip("high:Q", title="to", format=".3~g"),
        alt.Tooltip("n:Q", title="seeds"),
    ]
    base, half = alt.Chart(own).encode(x=x, color=colour), alt.Chart(at_half).encode(x=x, color=colour)
    rule = alt.Chart(pa.table({"efficiency": [HALF]})).mark_rule(strokeDash=[3, 3], color=MUTED[theme]).encode(x=x)
    texts = [
        half.transform_filter(alt.datum.upper == upper)
        .mark_text(fontSize=12, fontWeight="bold", **offset)
        .encode(y=y, text="text:N", color=alt.value(INK[theme]))
        for upper, offset in _TEXT_OFFSETS.items()
    ]
    layers = [
        rule,
        base.mark_area(opacity=BAND_OPACITY_COMPARISON).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"),
        base.mark_line(strokeWidth=2.5).encode(y=y),
        half.mark_rule(strokeWidth=2.5, opacity=0.55).encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"),
        half.mark_point(filled=True, size=80, opacity=1).encode(y=y, tooltip=tooltip),
        *texts,
        base.mark_point(filled=True, size=60, opacity=0, aria=False).encode(y=y, tooltip=tooltip),
    ]
    title = alt.TitleParams(CLASS_NAMES[name], anchor="start", fontSize=13)
    return alt.layer(*layers).properties(height=HEIGHT, title=title, usermeta=SVG_RENDERER)
