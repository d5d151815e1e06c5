"""A figure: a Vega-Lite spec over named tables. The spec is built once and cached, the tables change with the data.

Building a layered chart in Altair and validating it takes some 90 ms, too long for each live refresh.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import pyarrow as pa
from altair.utils.schemapi import debug_mode

from jsc_explore.charts.style import MUTED, Chart


@dataclass(frozen=True)
class Heading:
    """What stands above a chart in a file, where no page is around it: a title, and notes in small print."""

    title: str
    notes: tuple[str, ...] = ()

    def spec(self, width: int) -> dict[str, Any]:
        """Return the title of a Vega-Lite spec whose chart has this width in pixels."""
        # Letters of 15 and 11 pixels are about 8 and 6 pixels wide.
        notes = [line for note in self.notes for line in textwrap.wrap(note, max(40, width // 6))]
        title = {
            "text": textwrap.wrap(self.title, max(30, width // 8)),
            "anchor": "start",
            "fontSize": 15,
            "offset": 12,
        }
        return {**title, "subtitle": notes, "subtitleFontSize": 11, "subtitleColor": "#555", "subtitlePadding": 6}


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite spec whose data are the named ``tables``, with a description for screen readers (``alt_text``)."""

    spec: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    alt_text: str
    # In pixels, for files; on a page a figure takes the width of its container.
    width: int = 640
    # Of files alone: a page has its own.
    heading: Heading | None = None

    def arrow_spec(self) -> dict[str, Any]:
        """Return the spec with its tables as Arrow data sets, as Streamlit takes it."""
        return {**self.spec, "datasets": dict(self.tables)}

    def standalone_spec(self) -> dict[str, Any]:
        """Return the spec with its tables as rows, on a white background, as plain JSON."""
        rows = {name: table.to_pylist() for name, table in self.tables.items()}
        config = {**self.spec.get("config", {}), "font": "sans-serif"}
        config["axis"] = {"titleFontWeight": "normal", "domainColor": "#888", **config.get("axis", {})}
        config["legend"] = {"titleFontWeight": "normal", **config.get("legend", {})}
        more: dict[str, Any] = {"width": self.width, "padding": 12, "background": "white"}
        if self.heading is not None:
            more["title"] = self.heading.spec(self.width)
        return {**self.spec, **more, "config": config, "datasets": rows}


def chart_from(name: str) -> alt.Chart:
    """Return an empty chart over the named table."""
    return alt.Chart(alt.NamedData(name=name))


def build_spec(chart: Chart, validate: bool = True) -> dict[str, Any]:
    """Return the spec of a chart over named tables, without Altair's theme: the page applies its own."""
    with alt.theme.enable("none"):
        spec: dict[str, Any] = chart.to_dict(validate=validate)
    return spec


def make_figure(make: Callable[[str], Chart | Figure], theme: str, alt_text: str) -> Figure:
    """Return the figure of the chart that ``make`` draws for a theme, ``light`` or ``dark``.

    A figure that it makes is returned as it is. The tables of a chart get names. The spec is not validated against
    Vega-Lite's schema, which takes most of the time; the tests validate every chart.
    """
    tables: dict[str, pa.Table] = {}

    def name_of(table: pa.Table) -> alt.NamedData:
        name = next((name for name, known in tables.items() if known is table), f"table{len(tables)}")
        tables[name] = table
        return alt.NamedData(name=name)

    def name_tables(part: Any) -> None:
        if isinstance(part.data, pa.Table):
            part.data = name_of(part.data)
        for step in [] if part.transform is alt.Undefined else part.transform:
            source = step.to_dict().get("from") and step["from"]
            if source and isinstance(source.data, pa.Table):
                source.data = name_of(source.data)
        for one in getattr(part, "layer", []):
            name_tables(one)

    # Altair's copy of a chart shares the tables.
    with debug_mode(False):
        made = make(theme)
        if isinstance(made, Figure):
            return made
        chart = made.copy()
        name_tables(chart)
        spec = build_spec(chart, validate=False)
    return Figure(spec, tables, alt_text[0].upper() + alt_text[1:])


def font_config(size: float, theme: str) -> dict[str, Any]:
    """Return the config of axes and legends: fonts ``size`` times the default, colours with a contrast of 4.5:1."""
    fonts = {"labelFontSize": round(12 * size), "titleFontSize": round(13 * size)}
    colours = {"labelColor": MUTED[theme], "titleColor": MUTED[theme]}
    return {"axis": fonts | colours, "legend": fonts | colours}
