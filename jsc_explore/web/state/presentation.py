"""The style of every page: light, dark, and presentation mode, readable from the last row of a lecture hall."""

from __future__ import annotations

from functools import cache

import streamlit as st

from jsc_explore.charts.style import PRESENTATION_SCALE
from jsc_explore.paths import PACKAGE
from jsc_explore.web.state.url import EXPLORE

# White letters cannot be read on the bright blue of the dark theme.
_DARK = """
[data-testid=stMultiSelect] span[title], [data-testid=stMultiSelect] span[title] ~ *,
[data-testid=stBaseButton-primary], [data-testid=stBaseButton-primary] p {color: #101418;}
"""
# All sizes on a page are relative to the root font size. The sidebar gives its place to the charts; a button in the
# head leaves the mode.
_LARGE = """
html {font-size: 135%;} [data-testid=stSidebar], [data-testid=stExpandSidebarButton] {display: none;}
[data-testid=stHeader] {height: 3rem; min-height: 3rem;}
[data-testid=stMainBlockContainer] {padding: 3.2rem 1rem 1rem;}
"""


def text_scale() -> float:
    """Return the factor that enlarges text in charts; a setting of the Explore page switches it on for all pages."""
    return PRESENTATION_SCALE if EXPLORE["presentation"] else 1.0


def apply_style() -> None:
    """Send the style sheet and the scripts of every page."""
    with st.container(key="scripts"):
        st.html(_web_file("page_scripts.html"), unsafe_allow_javascript=True)
    dark = _DARK if st.context.theme.type == "dark" else ""
    st.html(f"<style>{_web_file('style.css')}{dark}{_LARGE if EXPLORE['presentation'] else ''}</style>")


@cache
def _web_file(name: str) -> str:
    return (PACKAGE / "web" / name).read_text(encoding="utf-8")
