"""Two sets of jets side by side: the distribution of a feature in each class, and where they differ most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jsc_explore.charts.style import CATEGORIES, INK, SEQUENCE, AltairChart

BINS = 48
CLASS_NAMES: Final = {"all": "all classes", "g": "gluons", "q": "light quarks", "w": "W", "z": "Z", "t": "top"}
_SAMPLE, _REFERENCE = CATEGORIES[0], CATEGORIES[1]

Array = npt.NDArray[Any]


def bin_edges(sample: Array, other: Array) -> npt.NDArray[np.float64]:
    """Return the edges of at most 48 bins over the inner 99% of both; whole numbers get whole bins."""
    low, high = np.quantile(np.concatenate([sample, other]), [0.005, 0.995])
    if np.array_equal(sample, np.rint(sample)):
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        return np.arange(np.floor(low) - 0.5, high + step, step)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def distribution_rows(who: str, kind: str, counts: Array, edges: Array, total: int) -> list[dict[str, Any]]:
    """Return a row a bin: share of jets per unit of the feature; ``total`` counts those outside the bins too.

    A last row without width repeats the density of the last bin: there a line of steps ends.
    """
    density = counts / (max(1, total) * np.diff(edges))
    bins = zip(edges, [*edges[1:], edges[-1]], [*density, density[-1]], strict=True)
    return [
        {"who": who, "class": CLASS_NAMES[kind], "left": float(left), "right": float(right), "density": float(value)}
        for left, right, value in bins
    ]


def distribution_chart(rows: Sequence[Mapping[str, Any]], feature: str, who: tuple[str, str]) -> alt.FacetChart:
    """Draw what ``distribution_rows`` made: a panel a class, the first of ``who`` filled, the second a line."""
    shown = [name for name in CLASS_NAMES.values() if any(row["class"] == name for row in rows)]
    colour = alt.Color("who:N", scale=alt.Scale(domain=list(who), range=[_SAMPLE, _REFERENCE])).legend(
        title=None, orient="top", symbolOpacity=1, labelLimit=400
    )
    x = alt.X("left:Q", scale=alt.Scale(zero=False, nice=False)).axis(title=None, tickCount=4, grid=False)
    base = alt.Chart(pa.Table.from_pylist(list(rows))).encode(x=x, color=colour)
    y = alt.Y("density:Q").axis(title=None, labels=False, ticks=False, grid=False)
    first, second = (base.transform_filter(alt.datum.who == name) for name in who)
    filled = first.mark_rect(opacity=0.45).encode(x2="right:Q", y=y, y2=alt.datum(0))
    line = second.mark_line(interpolate="step-after", strokeWidth=1.5).encode(y=y)
    chart: alt.FacetChart = (
        alt.layer(filled, line)
        .properties(width=190, height=130)
        .facet(
            column=alt.Column("class:N", sort=shown).header(title=None, labelFontSize=12, labelColor=INK["light"]),
            title=alt.Title(feature, anchor="start", fontSize=14),
        )
        .resolve_scale(y="independent")
    )
    return chart


def distance_chart(rows: Sequence[Mapping[str, Any]], figure: str, words: str) -> AltairChart:
    """Draw a distance of every feature and class as a coloured, written grid; ``figure`` names its column."""
    table = [{"feature": row["feature"], "class": CLASS_NAMES[row["class"]], "value": row[figure]} for row in rows]
    features = list(dict.fromkeys(row["feature"] for row in table))
    order = [name for name in CLASS_NAMES.values() if any(row["class"] == name for row in table)]
    base = alt.Chart(pa.Table.from_pylist(table)).encode(
        x=alt.X("class:N", sort=order).axis(title=None, orient="top", labelAngle=0, domain=False, ticks=False),
        y=alt.Y("feature:N", sort=features).axis(title=None, domain=False, ticks=False),
    )
    top = max(0.05, *(row["value"] for row in table))
    scale = alt.Scale(scheme=SEQUENCE, domain=[0, top])
    cells = base.mark_rect().encode(color=alt.Color("value:Q", scale=scale).legend(title=words, titleLimit=300))
    ink = alt.when(alt.datum.value > 0.6 * top).then(alt.value("#111111")).otherwise(alt.value("#FFFFFF"))
    text = base.mark_text(fontSize=11).encode(text=alt.Text("value:Q", format=".3f"), color=ink)
    title = alt.Title(f"{words[0].upper()}{words[1:]}", anchor="start", color=INK["light"])
    return alt.layer(cells, text).properties(width=alt.Step(78), height=alt.Step(22), title=title)
