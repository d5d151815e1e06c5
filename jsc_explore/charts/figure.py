"""A figure: a chart over tables that are named, so that its drawing is made once, its tables as often as they change.

Building a layered chart in Altair and checking it takes some 90 ms, more than a live refresh may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pyarrow as pa
from altair.utils.schemapi import debug_mode

from jsc_explore.charts.style import AltairChart


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite spec whose data are the named ``tables``, and what it shows in words."""

    spec: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    alt_text: str
    # Where a figure has fixed width (a file, not a page), in pixels.
    width: int = field(default=640)

    def arrow_spec(self) -> dict[str, Any]:
        """Return the spec with Arrow tables as its data sets, as a page takes it."""
        return {**self.spec, "datasets": dict(self.tables)}

    def standalone_spec(self, theme: str = "white") -> dict[str, Any]:
        """Return the spec with rows as its data sets, on a ground of this colour: complete by itself."""
        rows = {name: table.to_pylist() for name, table in self.tables.items()}
        config = {**self.spec.get("config", {}), "font": "sans-serif"}
        config["axis"] = {"titleFontWeight": "normal", "domainColor": "#888", **config.get("axis", {})}
        config["legend"] = {"titleFontWeight": "normal", **config.get("legend", {})}
        size = {"width": self.width, "padding": 12, "background": theme}
        return {**self.spec, **size, "config": config, "datasets": rows}


def chart_from(name: str) -> alt.Chart:
    """Return an empty chart over the table of this name."""
    return alt.Chart(alt.NamedData(name=name))


def build_spec(chart: AltairChart, validate: bool = True) -> dict[str, Any]:
    """Return the spec of a chart over named tables, checked; how it looks is left to the page's theme."""
    with alt.theme.enable("none"):
        spec: dict[str, Any] = chart.to_dict(validate=validate)
    return spec


def make_figure(make: Callable[[str], AltairChart], theme: str, words: str) -> Figure:
    """Return the figure of the chart over tables that ``make`` draws on a ground, light or dark.

    The tables take names, and what it shows in ``words`` begins large. Nothing is checked against Vega-Lite's schema,
    which takes most of the time; the tests check every chart.
    """
    tables: dict[str, pa.Table] = {}

    def name_of(table: pa.Table) -> alt.NamedData:
        name = next((name for name, known in tables.items() if known is table), f"table{len(tables)}")
        tables[name] = table
        return alt.NamedData(name=name)

    def take(part: Any) -> None:
        if isinstance(part.data, pa.Table):
            part.data = name_of(part.data)
        for step in [] if part.transform is alt.Undefined else part.transform:
            source = step.to_dict().get("from") and step["from"]
            if source and isinstance(source.data, pa.Table):
                source.data = name_of(source.data)
        for one in getattr(part, "layer", []):
            take(one)

    # Altair copies a chart, and leaves its tables where they are.
    with debug_mode(False):
        own = make(theme).copy()
        take(own)
        spec = build_spec(own, validate=False)
    return Figure(spec, tables, words[0].upper() + words[1:])


def font_config(size: float) -> dict[str, Any]:
    """Return the config of axes and legends whose letters are ``size`` times the usual."""
    axis = {"labelFontSize": round(12 * size), "titleFontSize": round(13 * size)}
    return {"axis": axis, "legend": {"labelFontSize": round(12 * size), "titleFontSize": round(13 * size)}}
