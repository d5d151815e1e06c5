"""What can be read: captions in ink, and in a lecture hall everything so large that the last row reads it."""

from __future__ import annotations

import streamlit as st

from jsc_explore.charts.style import PRESENTATION_SCALE
from jsc_explore.web.state import url

# The theme's own grey is too faint for captions, which are read, too.
_CAPTIONS = """<style>
[data-testid=stCaptionContainer], [data-testid=stCaptionContainer] p {color: inherit !important; opacity: 0.9;}
</style>"""
# Where a chart is begun anew before its first drawing stands, Streamlit gives that drawing up and leaves its picture
# behind, before the one that lives.
_ONE = """<style>[data-testid=stVegaLiteChart] > svg.marks:has(~ svg.marks) {display: none;}</style>"""
# A sidebar's boxes stand closer than what is read.
_SIDEBAR = """<style>
[data-testid=stSidebarUserContent] [data-testid=stVerticalBlock] {gap: 0.6rem;}
[data-testid=stSidebarUserContent] hr {margin: 0.5rem 0 1.1rem;}
</style>"""
# Everything on the page is measured in the letters of its root; the sidebar's boxes hold their words in more width.
_LARGE = """<style>html {font-size: 135%;} [data-testid=stSidebar] {font-size: 1rem;}
[data-testid=stSidebar][data-collapsed=false] {min-width: 400px;}</style>"""


def size() -> float:
    """Return how many times the usual the letters of a chart are, on every page: Explore holds the switch."""
    return PRESENTATION_SCALE if st.session_state.get("presentation", "presentation" in url.query()) else 1.0


def style() -> str:
    """Return the style that every page begins with."""
    return _CAPTIONS + _ONE + _SIDEBAR + (_LARGE if size() > 1 else "")
