"""One example jet: its constituents, those removed by grooming, and its mass among those of its class."""

from __future__ import annotations

import math

import altair as alt
import pyarrow as pa

from jsc_explore.charts.features import CLASS_COLOURS
from jsc_explore.charts.style import INK, MUTED, SVG_RENDERER, Chart
from jsc_explore.data.examples import ExampleJet
from jsc_explore.data.glossary import CLASS_NAMES

# Fits a phone. Width and height are equal, so that the cone is round.
SIZE = 270
MASS_HEIGHT = 375
RADIUS = 0.4
KEPT, REMOVED = "kept by grooming", "groomed away"
_REACH = 0.45


def constituent_table(jet: ExampleJet) -> pa.Table:
    """Return one row a constituent: ``dy``, ``dphi``, ``pt_gev``, ``grooming``; the softest last, drawn on top."""
    rows = [
        {"dy": dy, "dphi": dphi, "pt_gev": pt, "grooming": KEPT if kept else REMOVED}
        for pt, dy, dphi, kept in sorted(jet.constituents, reverse=True)
    ]
    return pa.Table.from_pylist(rows)


def jet_chart(table: pa.Table, label: str, theme: str = "light") -> Chart:
    """Draw the table of ``constituent_table`` in the plane of rapidity and azimuth; area is pT, crosses are removed."""
    scale = alt.Scale(domain=[-_REACH, _REACH], nice=False)
    axis = alt.Axis(values=[-0.4, -0.2, 0, 0.2, 0.4], format="~g", grid=False)
    x = alt.X("dy:Q", title="Δ rapidity", scale=scale, axis=axis)
    y = alt.Y("dphi:Q", title="Δ azimuth (rad)", scale=scale, axis=axis)
    colours = [CLASS_COLOURS[label], INK[theme]]
    colour = alt.Color(
        "grooming:N",
        scale=alt.Scale(domain=[KEPT, REMOVED], range=colours),
        legend=alt.Legend(title=None, orient="top", symbolSize=90, symbolOpacity=1),
    )
    shape = alt.Shape("grooming:N", scale=alt.Scale(domain=[KEPT, REMOVED], range=["circle", "cross"]))
    marks = (
        alt.Chart(table)
        .mark_point(filled=True, opacity=0.65, strokeWidth=0)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            # The area is the momentum; its minimum keeps the softest visible.
            size=alt.Size("pt_gev:Q", scale=alt.Scale(domain=[0, 400], range=[22, 1600], clamp=True), legend=None),
            order=alt.Order("pt_gev:Q", sort="descending"),
            tooltip=[
                alt.Tooltip("pt_gev:Q", title="pT (GeV)", format=".3~g"),
                alt.Tooltip("dy:Q", title="Δ rapidity", format=".3f"),
                alt.Tooltip("dphi:Q", title="Δ azimuth", format=".3f"),
                alt.Tooltip("grooming:N", title=" "),
            ],
        )
    )
    angles = [2 * math.pi * k / 72 for k in range(73)]
    circle = pa.table({"k": list(range(73)), "dy": [RADIUS * math.cos(a) for a in angles],
                       "dphi": [RADIUS * math.sin(a) for a in angles]})  # fmt: skip
    cone = alt.Chart(circle).mark_line(color=MUTED[theme], strokeDash=[4, 4], strokeWidth=1).encode(
        x=x, y=y, order="k:O"
    )  # fmt: skip
    # "pad" instead of "fit", which would take legend and titles from the height and make the cone an ellipse.
    round_cone = alt.AutoSizeParams(type="pad", contains="padding")
    return alt.layer(cone, marks).properties(width=SIZE, height=SIZE, autosize=round_cone, usermeta=SVG_RENDERER)


def mass_chart(histogram: pa.Table, label: str, jet: ExampleJet, theme: str = "light") -> Chart:
    """Draw the groomed mass of a class, from ``JetFile.histograms``, with both masses of the example marked."""
    rows = [row for row in histogram.to_pylist() if row["label"] == label]
    table = pa.Table.from_pylist(rows)
    high = max([row["high"] for row in rows] + [1.05 * jet.mass_gev])
    x_scale = alt.Scale(domain=[0, high], nice=False)
    x = alt.X("low:Q", title="mass (GeV)", scale=x_scale, axis=alt.Axis(grid=False, tickCount=6))
    bars = (
        alt.Chart(table)
        .mark_bar(color=CLASS_COLOURS[label], opacity=0.55, binSpacing=0)
        .encode(
            x=alt.X("low:Q", bin="binned", title="mass (GeV)", scale=x_scale, axis=alt.Axis(grid=False, tickCount=6)),
            x2="high:Q",
            y=alt.Y("share:Q", title=f"share of {CLASS_NAMES[label]} jets", axis=alt.Axis(format="~%", tickCount=5)),
            tooltip=[
                alt.Tooltip("low:Q", title="from (GeV)", format=".0f"),
                alt.Tooltip("high:Q", title="to (GeV)", format=".0f"),
                alt.Tooltip("share:Q", title="share", format=".2~%"),
            ],
        )
    )
    marked = pa.table({"low": [jet.mass_mmdt_gev, jet.mass_gev], "mass": ["groomed", "ungroomed"]})
    rules = (
        alt.Chart(marked)
        .mark_rule(strokeWidth=2, color=INK[theme])
        .encode(
            x=x,
            strokeDash=alt.StrokeDash(
                "mass:N",
                scale=alt.Scale(domain=["groomed", "ungroomed"], range=[[1, 0], [5, 4]]),
                legend=alt.Legend(title="this jet's mass", orient="top", symbolStrokeColor=INK[theme]),
            ),
            tooltip=[alt.Tooltip("mass:N", title=" "), alt.Tooltip("low:Q", title="mass (GeV)", format=".1f")],
        )
    )
    return alt.layer(bars, rules).properties(height=MASS_HEIGHT, usermeta=SVG_RENDERER)
