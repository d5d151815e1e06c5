"""Two sets of jets compared: the distribution of a feature in each class, and a distance of every feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jsc_explore.charts.style import CATEGORIES, INK, SEQUENTIAL_SCHEME, Chart

BINS = 48
_CLASS_LABELS: Final = {"all": "all classes", "g": "gluons", "q": "light quarks", "w": "W", "z": "Z", "t": "top"}
_SAMPLE, _REFERENCE = CATEGORIES[0], CATEGORIES[1]

Array = npt.NDArray[Any]


def bin_edges(sample: Array, other: Array) -> npt.NDArray[np.float64]:
    """Return the edges of at most ``BINS`` bins over the inner 99% of both samples; integers get integer bins."""
    low, high = np.quantile(np.concatenate([sample, other]), [0.005, 0.995])
    if np.array_equal(sample, np.rint(sample)):
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        return np.arange(np.floor(low) - 0.5, high + step, step)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def distribution_rows(sample: str, kind: str, counts: Array, edges: Array, total: int) -> list[dict[str, Any]]:
    """Return one row a bin: the share of jets per unit of the feature; ``total`` includes the jets outside the bins.

    A last row of zero width repeats the density of the last bin, so that a step line reaches its end.
    """
    density, label = counts / (max(1, total) * np.diff(edges)), _CLASS_LABELS[kind]
    bins = zip(edges, [*edges[1:], edges[-1]], [*density, density[-1]], strict=True)
    return [
        {"sample": sample, "class": label, "left": float(left), "right": float(right), "density": float(value)}
        for left, right, value in bins
    ]


def distribution_chart(rows: Sequence[Mapping[str, Any]], feature: str, samples: tuple[str, str]) -> alt.FacetChart:
    """Draw the rows of ``distribution_rows``: one panel a class, the first of ``samples`` filled, the second a line."""
    shown = [name for name in _CLASS_LABELS.values() if any(row["class"] == name for row in rows)]
    colour = alt.Color("sample:N", scale=alt.Scale(domain=list(samples), range=[_SAMPLE, _REFERENCE])).legend(
        title=None, orient="top", symbolOpacity=1, labelLimit=400
    )
    x = alt.X("left:Q", scale=alt.Scale(zero=False, nice=False)).axis(title=None, tickCount=4, grid=False)
    base = alt.Chart(pa.Table.from_pylist(list(rows))).encode(x=x, color=colour)
    y = alt.Y("density:Q").axis(title=None, labels=False, ticks=False, grid=False)
    first, second = (base.transform_filter(alt.datum.sample == name) for name in samples)
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


def distance_chart(rows: Sequence[Mapping[str, Any]], column: str, label: str) -> Chart:
    """Draw a distance (``column`` of the rows) of every feature and class as a heat map with numbers."""
    table = [{"feature": row["feature"], "class": _CLASS_LABELS[row["class"]], "value": row[column]} for row in rows]
    features = list(dict.fromkeys(row["feature"] for row in table))
    order = [name for name in _CLASS_LABELS.values() if any(row["class"] == name for row in table)]
    base = alt.Chart(pa.Table.from_pylist(table)).encode(
        x=alt.X("class:N", sort=order).axis(title=None, orient="top", labelAngle=0, domain=False, ticks=False),
        y=alt.Y("feature:N", sort=features).axis(title=None, domain=False, ticks=False),
    )
    top = max(0.05, *(row["value"] for row in table))
    scale = alt.Scale(scheme=SEQUENTIAL_SCHEME, domain=[0, top])
    cells = base.mark_rect().encode(color=alt.Color("value:Q", scale=scale).legend(title=label, titleLimit=300))
    ink = alt.when(alt.datum.value > 0.6 * top).then(alt.value("#111111")).otherwise(alt.value("#FFFFFF"))
    text = base.mark_text(fontSize=11).encode(text=alt.Text("value:Q", format=".3f"), color=ink)
    title = alt.Title(f"{label[0].upper()}{label[1:]}", anchor="start", color=INK["light"])
    return alt.layer(cells, text).properties(width=alt.Step(78), height=alt.Step(22), title=title)
