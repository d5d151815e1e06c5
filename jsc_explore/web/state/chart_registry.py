"""Charts as a page draws them: each is remembered by a name, so that the page can hand all of them out as files."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import streamlit as st

from jsc_explore.charts.figure import Figure, font_config, make_figure
from jsc_explore.charts.style import Chart
from jsc_explore.web.state import presentation

_SHOWN, _VIEW = "_shown charts", "_shown view"
Make = Callable[[str], Chart]


def begin(page_state: str) -> None:
    """Begin to draw; what was drawn for another ``page_state`` is forgotten."""
    if st.session_state.get(_VIEW) != page_state:
        st.session_state[_VIEW], st.session_state[_SHOWN] = page_state, {}


def draw(name: str, make: Make, words: str, key: str) -> None:
    """Draw the chart that ``make`` returns for the ground of the page, light or dark; ``words`` say what it shows.

    Within one view and with the same words it is made once: the page is drawn anew every second while something trains.
    """
    figure = keep(name, make, words)
    st.vega_lite_chart(
        figure.arrow_spec() | {"config": font_config(presentation.text_scale())}, key=key, alt=figure.alt_text
    )


def keep(name: str, make: Make, words: str, table: pa.Table | None = None) -> Figure:
    """Remember a chart that the page draws itself, or is about to, and the table that it shows."""
    theme = st.context.theme.type or "light"
    known = st.session_state.setdefault(_SHOWN, {})
    if name not in known or known[name][1:3] != (words, theme):
        known[name] = (make, words, theme, make_figure(make, theme, words), table)
    figure: Figure = known[name][3]
    return figure


def tables() -> dict[str, pa.Table]:
    """Return the tables that the drawn charts show, by file name, where they were handed over."""
    return {name: known[4] for name, known in st.session_state.get(_SHOWN, {}).items() if known[4] is not None}


def figures() -> dict[str, Figure]:
    """Return what the page has drawn, by file name, for white paper."""
    found = st.session_state.get(_SHOWN, {})
    return {name: make_figure(make, "light", words) for name, (make, words, *_) in found.items()}
