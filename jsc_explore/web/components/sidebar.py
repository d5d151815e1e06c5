"""The sidebar: axes and metric, a filter for every hyperparameter, a text filter; together they make the Slice."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from jsc_explore.config import FIELDS
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store import Store
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.slice import Slice, filters_of, slice_of
from jsc_explore.web.components import filters, saved_views
from jsc_explore.web.state import url

__all__ = ["Slice", "draw"]
# What changes most often stands first; the rest is one click away. A browser needs some 10 ms for each box of a sidebar
# before it draws the first chart, and a slider's own script besides: no slider is among those that stand open.
_FIRST = ("model",)
_NEXT = ("max_epochs", "validation", "final_relu")
_SETTINGS = {
    "seeds": "Number of seeds",
    "train_on_click": "Train a missing cell on click",
    "presentation": "Presentation mode",
}
_SEED_COUNTS = (1, 2, 3, 5, 10, 20)


def draw(store: Store, open_door: Callable[[str], None]) -> Slice | None:
    """Draw the sidebar; return what was chosen, or None when its data are not there (the page then says so).

    ``open_door`` is told by name what the page shall open over itself.
    """
    with st.sidebar:
        axes = _axes()
        counts = filters.counts(store, *filters_of(st.session_state, axes))
        st.divider()
        for name in (name for name in _FIRST if name not in axes):
            filters.draw(name, False, counts[name])
        rest = [name for name in dict.fromkeys((*_NEXT, *FIELDS)) if name != "seed"]
        rest = [name for name in rest if name not in _FIRST or name in axes]
        filters.draw_more({name: counts[name] for name in rest}, axes)
        filters.draw_text()
        st.divider()
        _settings()
        url.write()
        saved_views.draw(open_door)
    return _slice()


def _slice() -> Slice | None:
    try:
        return slice_of(st.session_state)
    except FieldError as error:
        st.error(str(error))
    except DataError as error:
        st.info(str(error))
    return None


def _axes() -> tuple[str, ...]:
    """Draw the boxes of axes and metric; return the fields on the axes."""

    def words(name: str) -> str:
        return "None" if name == url.NONE else FIELDS[name].label

    x = st.selectbox("X axis", url.AXIS_FIELDS, key="x", format_func=words, on_change=_forget_cells)
    up = [name for name in url.AXIS_FIELDS if name != x]
    if st.session_state["y"] == x:
        st.session_state["y"] = up[0]
    y = st.selectbox("Y axis", up, key="y", format_func=words, on_change=_forget_cells)
    if st.session_state["facet"] in (x, y):
        st.session_state["facet"] = url.NONE
    panels = [url.NONE, *(name for name in up if name != y)]
    facet = st.selectbox("Facet by", panels, key="facet", format_func=words, on_change=_forget_cells)
    st.selectbox("Metric", list(METRICS), key="metric", format_func=lambda name: METRICS[name].capitalize())
    url.restore_filters()
    return (x, y) if facet == url.NONE else (x, y, facet)


def _settings() -> None:
    """Draw the door to what is set once and stays so; behind it nothing is made until it is open."""
    set_ones = [
        label[0].lower() + label[1:]
        for name, label in _SETTINGS.items()
        if st.session_state[name] != url.PARAMS[name].default
    ]
    door = filters.draw_door("Settings", "settings_door", set_ones)
    if not door.open:
        return
    with door:
        counts = filters.with_current(_SEED_COUNTS, "seeds")
        url.box(st.select_slider, "seeds", _SETTINGS["seeds"], counts)
        url.box(st.toggle, "train_on_click", _SETTINGS["train_on_click"], help="Off: a click only chooses the cell.")
        url.box(
            st.toggle,
            "presentation",
            _SETTINGS["presentation"],
            help="Larger letters and figures, readable from the last row.",
        )


def _forget_cells() -> None:
    # Chosen cells are values of the axes: with another axis they would mean something else.
    url.choose_cells([])
    st.session_state["zoom"] = None
