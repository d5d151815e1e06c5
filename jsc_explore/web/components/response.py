"""The panel of a metric against one hyperparameter: what is drawn against what, and the chart."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from jsc_explore.charts.response import height_of
from jsc_explore.config import FIELDS
from jsc_explore.view_model import response
from jsc_explore.view_model.response import Response
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import AUTO, NONE
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import presentation
from jsc_explore.web.state.cached_repository import CachedRepository
from jsc_explore.web.state.url import EXPLORE, UrlState

RESPONSE_KEY = "response"


def controls(state: UrlState, varying: Sequence[str], against: str, lines: str) -> tuple[str, str | None]:
    """Draw the choice of both hyperparameters among those that vary, and return them, None for no lines.

    ``against`` and ``lines`` are the automatic ones.
    """
    chosen, _ = response.fields_of(state, varying, against, lines)
    automatic = lines if lines != chosen else against
    fields = [name for name in varying if name != against or state["against"] == against]
    others = [name for name in varying if name not in (chosen, automatic) or state["lines"] == name]

    def options(fixed: Sequence[str], names: Sequence[str], now: str) -> list[str]:
        return list(dict.fromkeys([*fixed, *names, now]))

    with st.container(horizontal=True, vertical_alignment="bottom", key=f"{state.page}_response_controls"):
        state.widget(
            st.selectbox, "against", "Metric against", options([AUTO], fields, state["against"]),
            format_func=lambda name: f"Against: {FIELDS[against if name == AUTO else name].inline_label}",
            label_visibility="collapsed",
        )  # fmt: skip
        first = [AUTO, NONE] if automatic in varying and automatic != chosen else [AUTO]
        state.widget(
            st.selectbox, "lines", "A line for each", options(first, others, state["lines"]),
            format_func=lambda name: f"Lines: {_line_label(name, automatic if len(first) > 1 else NONE)}",
            label_visibility="collapsed",
        )  # fmt: skip
    return response.fields_of(state, varying, against, lines)


def _line_label(name: str, automatic: str) -> str:
    name = automatic if name == AUTO else name
    return "none" if name == NONE else FIELDS[name].inline_label


def draw(slice: Slice) -> None:
    """Draw the controls, the chart (with facets one for each value), and what its signs mean."""
    if not EXPLORE["presentation"]:
        controls(EXPLORE, CachedRepository().varying(slice), slice.x, slice.y)
    drawn = drawn_of(slice, st.context.theme.type or "light")
    if not drawn.figures:
        # As high as a chart, so that nothing moves when the first one appears.
        with st.container(height=round(height_of(presentation.text_scale())), border=False):
            st.info("No finished run passes the filters: click a + to train one, or widen a filter.",
                    icon=":material/show_chart:")  # fmt: skip
        return
    columns = st.columns(min(2, len(drawn.figures)))
    for i, (title, figure) in enumerate(drawn.figures):
        with columns[i % len(columns)]:
            if title:
                st.markdown(f"**{title}**")
            st.vega_lite_chart(figure.arrow_spec(), key=f"{RESPONSE_KEY}-{i}", alt=f"{figure.alt_text} {title}".strip())
    st.caption(plain(drawn.legend))


def drawn_of(slice: Slice, theme: str) -> Response:
    """Return the charts of the page's state."""
    return response.slice_response(CachedRepository(), EXPLORE, slice, theme, presentation.text_scale())


def label(slice: Slice) -> str:
    """Return the name of the panel: ``Metric by batch size``."""
    against, _ = response.fields_of(EXPLORE, (), slice.x, slice.y)
    return f"Metric by {FIELDS[against].inline_label}"
