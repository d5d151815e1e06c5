"""The curves panel: what is drawn along what, how, and the chart itself; drag over it to zoom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.charts.curves import EXPECTED, HEIGHT, ZOOM
from jsc_explore.charts.style import BANDS, COLOUR_BY, PROGRESS, SHOWN, TOGETHER
from jsc_explore.config import FIELDS
from jsc_explore.view_model import curves
from jsc_explore.view_model.curves import LOG_FROM_EPOCHS, Panels
from jsc_explore.web.components import grid, imported_runs
from jsc_explore.web.components.sidebar import Slice
from jsc_explore.web.state import predictions, services, url
from jsc_explore.web.state.cached_repository import CachedRepository

CURVES_KEY = "curves"


def controls() -> None:
    """Draw what is chosen most often over the chart, the rest in a popover beside it."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="curve_controls"):
        st.selectbox("Metric", list(SHOWN), key="curve", format_func=lambda q: SHOWN[q].capitalize())
        st.selectbox(
            "X axis", list(PROGRESS), key="curve_x", format_func=lambda p: PROGRESS[p].capitalize(), on_change=_unzoom
        )
        # Behind a closed door nothing is made: the panel is drawn several times a second while something grows.
        door = st.popover(
            "Chart options",
            icon=":material/tune:",
            help="Axes, band, colours, smoothing",
            key="how_door",
            on_change="rerun",
        )
        if door.open:
            with door:
                _how()


def _how() -> None:
    def words(name: str) -> str:
        return {url.NONE: "Nothing", COLOUR_BY: "Chosen cell"}.get(name) or FIELDS[name].label

    left, right = st.columns(2)
    url.box(
        left.segmented_control, "x_scale", "X axis scale", ["auto", "linear", "log"], required=True, on_change=_unzoom,
        format_func=str.capitalize,
        help=f"Auto: logarithmic from {LOG_FROM_EPOCHS} epochs on, where a linear axis hides the first ones",
    )  # fmt: skip
    url.box(right.toggle, "log_y", "Log y axis")
    url.box(left.selectbox, "band", "Band", list(BANDS), format_func=lambda band: BANDS[band].capitalize())
    url.box(right.toggle, "seed_lines", "Seeds", help="Every seed as a faint line")
    axes = list(url.AXIS_FIELDS)
    url.box(left.selectbox, "colour", "Colour by", [COLOUR_BY, *axes], format_func=words)
    both = st.session_state["curve"] in TOGETHER
    url.box(
        right.selectbox, "dash", "Dash by", [url.NONE, *axes], format_func=words, disabled=both,
        help="Training is dashed while both parts are shown" if both else None,
    )  # fmt: skip
    url.box(left.selectbox, "curve_facet", "Facet by", [url.NONE, *axes], format_func=words)
    url.box(right.slider, "smoothing", "Smoothing", 0.0, 0.99, step=0.01, help="The raw mean stays as a ghost")


def draw(view: Slice, cells: Sequence[Cell], live: Mapping[str, list[Any]]) -> None:
    """Draw the charts, and below them what they mean."""
    theme = st.context.theme.type or "light"
    drawn = panels(view, cells, live, theme)
    if not drawn.figures:
        # As high as the chart that will stand here: nothing jumps when it does.
        with st.container(height=HEIGHT + 60, border=False):
            st.info(_why_empty(cells), icon=":material/show_chart:")
            imported_runs.draw()
        return
    columns = st.columns(min(2, len(drawn.figures))) if len(drawn.figures) > 1 else [st.container()]
    for i, (title, figure) in enumerate(drawn.figures):
        with columns[i % len(columns)]:
            if title:
                st.markdown(f"**{title}**")
            # Another zoom is another chart: the box that was dragged goes with the one it was dragged on.
            key = f"{CURVES_KEY}-{i}-{st.session_state['zoom']}"
            st.vega_lite_chart(
                figure.for_page(),
                key=key,
                on_select=lambda key=key: _zoom(key),
                selection_mode=[ZOOM],
                alt=f"{figure.words} {title}".strip(),
            )
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.session_state["zoom"]:
            st.button("Zoom out", icon=":material/zoom_out_map:", key="zoom_out", on_click=_unzoom)
        imported_runs.draw()
        expected = any(one.tables[EXPECTED].num_rows for _, one in drawn.figures)
        legend = curves.legend(st.session_state, imported_runs.any_drawn(), expected)
        st.caption(legend + "".join(f" {note[0].upper()}{note[1:]}." for note in drawn.notes))


def _why_empty(cells: Sequence[Cell]) -> str:
    if any(cell.active for cell in grid.chosen_of(cells) or cells):
        return "No point yet: the first one comes as soon as a worker is free and has begun."
    if any(cell.n for cell in cells):
        return "No curve yet: choose a cell with a figure, or click a missing one to train it."
    return "No run passes the filters: click a + to train one, or widen a filter."


def panels(view: Slice, cells: Sequence[Cell], live: Mapping[str, list[Any]], theme: str) -> Panels:
    """Return the charts to draw: one, or one for each value of the field chosen under Panels by."""
    imported = services.imported().all()
    predicted = predictions.kept(view.metric)
    return curves.panels(CachedRepository(), st.session_state, view, cells, live, theme, imported, predicted)


def _zoom(key: str) -> None:
    span = st.session_state[key].selection.get(ZOOM, {}).get("x")
    if span and span[0] < span[1]:
        st.session_state["zoom"] = (float(f"{span[0]:.6g}"), float(f"{span[1]:.6g}"))


def _unzoom() -> None:
    st.session_state["zoom"] = None
