"""The curves panel: metric, x axis, what is drawn beside the medians, and the charts; a drag over a chart zooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.charts.curves import PREDICTIONS, ZOOM, height_of
from jsc_explore.charts.style import BAND_KINDS, BY_CELL, CURVE_METRICS, METRIC_PAIRS, X_AXES
from jsc_explore.config import FIELDS
from jsc_explore.results import Point
from jsc_explore.view_model import curves
from jsc_explore.view_model.curves import MAX_DETAILED, Panels, Shown
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import AUTO, AXIS_FIELDS, NONE
from jsc_explore.web.components import grid, imported_runs
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import predictions, presentation, services
from jsc_explore.web.state.cached_repository import CachedRepository
from jsc_explore.web.state.url import EXPLORE

CURVES_KEY = "curves"


def _controls(shown: Shown) -> None:
    """Draw the most used options above the chart, and the others in a popover; in presentation mode the switches."""
    if not EXPLORE["presentation"]:
        _selects()
    with st.container(horizontal=True, vertical_alignment="center", key="curve_switches"):
        _switch("seed_lines", "Seeds", shown.seeds, ("no", "yes"))
        _switch("band", "Interval", shown.band != NONE, (NONE, "interval"))
        _switch("context", "Other cells", shown.context, ("no", "yes"))
        if EXPLORE["zoom"]:
            st.button("Zoom out", icon=":material/zoom_out_map:", key="zoom_out", on_click=_zoom_out, type="tertiary")
        else:
            st.caption(":material/zoom_in: Drag to zoom", width="content")


def _selects() -> None:
    """Draw what is drawn against what, and the other options in a popover."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="curve_controls"):
        EXPLORE.widget(
            st.selectbox,
            "curve",
            "Metric",
            list(CURVE_METRICS),
            format_func=lambda name: CURVE_METRICS[name].capitalize(),
            label_visibility="collapsed",
        )
        EXPLORE.widget(
            st.selectbox, "curve_x", "X axis", list(X_AXES), on_change=_zoom_out,
            format_func=lambda name: X_AXES[name].capitalize(), label_visibility="collapsed",
        )  # fmt: skip
        popover = st.popover(
            "Options", icon=":material/tune:", help="Scales, band, colours, panels, smoothing", key="chart_options",
            on_change="rerun", type="tertiary",
        )  # fmt: skip
    # Made only when it is open: the panel is drawn several times a second while something trains.
    if popover.open:
        with popover:
            _options()


def _switch(name: str, label: str, is_on: bool, choices: tuple[str, str]) -> None:
    """Draw a switch that chooses one of two values of a parameter; ``is_on``: as drawn, by choice or by default."""

    def changed() -> None:
        EXPLORE.change(name, choices[not is_on])

    # Another widget for each value: a browser that reports an old value during quick redraws changes nothing.
    st.toggle(label, value=is_on, key=f"switch {name} {is_on}", on_change=changed)


def _options() -> None:
    def label(name: str) -> str:
        return {NONE: "None", BY_CELL: "Cell"}.get(name) or FIELDS[name].label

    def band_label(band: str) -> str:
        return f"Auto: up to {MAX_DETAILED} lines" if band == AUTO else BAND_KINDS[band].capitalize()

    left, right = st.columns(2)
    EXPLORE.widget(
        left.segmented_control, "x_scale", "X axis scale", [AUTO, "linear", "log"], required=True,
        on_change=_zoom_out, format_func=str.capitalize,
        help="Auto: logarithmic for steps, jets and sums of learning rates, and for epochs where short trainings "
        "would vanish beside long ones",
    )  # fmt: skip
    EXPLORE.widget(right.toggle, "log_y", "Log y axis")
    EXPLORE.widget(left.selectbox, "band", "Band", [AUTO, *BAND_KINDS], format_func=band_label)
    axes = list(AXIS_FIELDS)
    EXPLORE.widget(left.selectbox, "colour", "Colour by", [BY_CELL, *axes], format_func=label)
    both = EXPLORE["curve"] in METRIC_PAIRS
    EXPLORE.widget(
        right.selectbox, "dash", "Dash by", [NONE, *axes], format_func=label, disabled=both,
        help="With both shown, dashed stands for training jets" if both else None,
    )  # fmt: skip
    EXPLORE.widget(left.selectbox, "curve_facet", "Facet by", [NONE, *axes], format_func=label)
    EXPLORE.widget(
        right.slider, "smoothing", "Smoothing", 0.0, 0.99, step=0.01, help="The raw median stays as a thin line"
    )


def draw(slice: Slice, cells: Sequence[Cell], live: Mapping[str, Sequence[Point]]) -> None:
    """Draw the controls, the charts, and the meaning of their lines and signs; ``live`` has points by run id."""
    theme = st.context.theme.type or "light"
    drawn = panels(slice, cells, live, theme)
    _controls(drawn.shown)
    if not drawn.figures:
        # As high as a chart, so that nothing moves when the first one appears.
        with st.container(height=round(height_of(presentation.text_scale())), border=False):
            st.info(_sentences(drawn.notes) or _why_empty(cells), icon=":material/show_chart:")
            imported_runs.draw()
        return
    columns = st.columns(min(2, len(drawn.figures)))
    for i, (title, figure) in enumerate(drawn.figures):
        with columns[i % len(columns)]:
            if title:
                st.markdown(f"**{title}**")
            # A new key for each zoom makes a new chart, without the box that was dragged on the old one.
            key = f"{CURVES_KEY}-{i}-{EXPLORE['zoom']}"
            st.vega_lite_chart(
                figure.arrow_spec(),
                key=key,
                on_select=lambda key=key: _zoom(key),
                selection_mode=[ZOOM],
                alt=f"{figure.alt_text} {title}".strip(),
            )
    with st.container(horizontal=True, vertical_alignment="center"):
        imported_runs.draw()
        predicted = any(figure.tables[PREDICTIONS].num_rows for _, figure in drawn.figures)
        machines = CachedRepository().machines(slice) if EXPLORE["curve_x"] == "time_s" else None
        legend = curves.legend(EXPLORE, drawn.shown, imported_runs.any_drawn(), predicted, machines)
        st.caption(f"{plain(legend)} {_sentences(drawn.notes)}")


def _sentences(notes: Sequence[str]) -> str:
    return " ".join(plain(f"{note[0].upper()}{note[1:]}.") for note in notes)


def _why_empty(cells: Sequence[Cell]) -> str:
    if any(cell.active for cell in grid.selected_of(cells) or cells):
        return "No points yet: they appear as soon as a worker has started the run."
    if any(cell.n for cell in cells):
        return "No curve selected: select a cell with a result, or click a missing one to train it."
    return "No run passes the filters: click a + to train one, or widen a filter."


def panels(slice: Slice, cells: Sequence[Cell], live: Mapping[str, Sequence[Point]], theme: str) -> Panels:
    """Return the charts to draw: one, or one for each value of the field under Facet by."""
    imported = services.imported().all()
    predicted = predictions.shown(slice.metric)
    return curves.panels(CachedRepository(), EXPLORE, slice, cells, live, theme, imported, predicted)


def _zoom(key: str) -> None:
    span = st.session_state[key].selection.get(ZOOM, {}).get("x")
    if span and span[0] < span[1]:
        EXPLORE["zoom"] = (float(f"{span[0]:.6g}"), float(f"{span[1]:.6g}"))


def _zoom_out() -> None:
    EXPLORE["zoom"] = None
