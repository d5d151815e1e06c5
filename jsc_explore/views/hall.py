"""The lecture hall: everything so large that the last row reads it."""

from __future__ import annotations

import streamlit as st

from jsc_explore.charts.style import HALL_SIZE
from jsc_explore.views import url

# Everything on the page is measured in the letters of its root; the sidebar's boxes hold their words in more width.
STYLE = """<style>html {font-size: 135%;} [data-testid=stSidebar] {font-size: 1rem;}
[data-testid=stSidebar][aria-expanded=true] {min-width: 400px;}</style>"""


def size() -> float:
    """Return how many times the usual the letters of a chart are, on every page: Explore holds the switch."""
    return HALL_SIZE if st.session_state.get("hall", "hall" in url.query()) else 1.0
