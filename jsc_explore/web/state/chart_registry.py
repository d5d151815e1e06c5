"""The charts that a page shows: drawn once per state, and registered by name for the export dialog."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.charts.figure import Figure, font_config, make_figure
from jsc_explore.charts.style import Chart
from jsc_explore.web.state import presentation

_CHARTS, _PAGE_STATE = "_registered charts", "_page state of charts"
# Makes a chart or a figure for a theme, light or dark.
Make = Callable[[str], Chart | Figure]


def begin(page_state: str) -> None:
    """Start a run of a page; charts that were registered for another ``page_state`` are removed."""
    if st.session_state.get(_PAGE_STATE) != page_state:
        st.session_state[_PAGE_STATE], st.session_state[_CHARTS] = page_state, {}


def draw(name: str, make: Make, alt_text: str, key: str, brushes: Sequence[str] = ()) -> Mapping[str, Any]:
    """Register a chart and draw it in the theme of the page; return the selection of its ``brushes`` by name.

    It is made once per page state and ``alt_text``: while something trains the page is drawn every second. The page, or
    the fragment that draws the chart, is run again when a brush changes.
    """
    figure = register(name, make, alt_text)
    spec = figure.arrow_spec() | {"config": font_config(presentation.text_scale(), st.context.theme.type or "light")}
    if not brushes:
        st.vega_lite_chart(spec, key=key, alt=figure.alt_text)
        return {}
    shown = st.vega_lite_chart(spec, key=key, alt=figure.alt_text, on_select="rerun", selection_mode=list(brushes))
    return dict(shown.selection)


def register(name: str, make: Make, alt_text: str, table: pa.Table | None = None) -> Figure:
    """Register a chart that the caller draws, and the table that it shows if that is to be exported, too."""
    theme = st.context.theme.type or "light"
    charts = st.session_state.setdefault(_CHARTS, {})
    if name not in charts or charts[name][1:3] != (alt_text, theme):
        charts[name] = (make, alt_text, theme, make_figure(make, theme, alt_text), table)
    figure: Figure = charts[name][3]
    return figure


def tables() -> dict[str, pa.Table]:
    """Return the registered tables by name."""
    return {name: chart[4] for name, chart in st.session_state.get(_CHARTS, {}).items() if chart[4] is not None}


def figures() -> dict[str, Figure]:
    """Return the registered charts by name, in the light theme, for print."""
    charts = st.session_state.get(_CHARTS, {})
    return {name: make_figure(make, "light", alt_text) for name, (make, alt_text, *_) in charts.items()}
