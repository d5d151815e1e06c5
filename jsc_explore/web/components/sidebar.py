"""The Explore page's sidebar: axes, metric, a filter for every hyperparameter, a filter expression, settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from jsc_explore.config import FIELDS
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store import Store
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.slice import Slice, filters_of, slice_of
from jsc_explore.view_model.url_params import AXIS_FIELDS, CELLS, NONE, axes_of, separate_axes
from jsc_explore.web.components import filters, saved_views
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state.url import EXPLORE

# The most used filters come first; the others are one click away, for speed: the browser needs some 10 ms for each
# widget of the sidebar before it draws the first chart, and must load another script for sliders.
_FIRST = ("model",)
_NEXT = ("max_epochs", "validation", "final_relu")
_SETTINGS = {
    "seeds": "Number of seeds",
    "train_on_click": "Train a missing cell on click",
    "presentation": "Presentation mode",
}
_SEED_COUNTS = (1, 2, 3, 5, 10, 20)


def draw(store: Store) -> tuple[Slice | None, Mapping[str, Mapping[Any, int]]]:
    """Draw the sidebar; return the slice and the stored values of each field with their numbers of runs.

    If the slice is invalid or its data are missing, draw an error; the slice is None.
    """
    with st.sidebar:
        axes = _axes()
        counts = filters.counts(store, filters_of(EXPLORE, axes), EXPLORE["filter"])
        st.divider()
        for name in (name for name in _FIRST if name not in axes):
            filters.draw(EXPLORE, name, False, counts[name])
        rest = [name for name in dict.fromkeys((*_NEXT, *FIELDS)) if name != "seed"]
        rest = [name for name in rest if name not in _FIRST or name in axes]
        filters.draw_more(EXPLORE, {name: counts[name] for name in rest}, axes)
        filters.draw_expression(EXPLORE)
        st.divider()
        _settings()
        EXPLORE.write()
        saved_views.draw_buttons()
    return _slice(), counts


def _slice() -> Slice | None:
    try:
        return slice_of(EXPLORE)
    except FieldError as error:
        st.error(plain(error))
    except DataError as error:
        st.info(plain(error))
    return None


def _axes() -> tuple[str, ...]:
    """Draw the widgets of axes and metric; return the fields on the axes."""

    def label(name: str) -> str:
        return "None" if name == NONE else FIELDS[name].label

    def draw_axis(title: str, name: str, options: list[str]) -> str:
        before = axes_of(EXPLORE)
        return str(
            EXPLORE.widget(
                st.selectbox, name, title, options, format_func=label, on_change=lambda: _axis_changed(before)
            )
        )

    x = draw_axis("X axis", "x", list(AXIS_FIELDS))
    others = [name for name in AXIS_FIELDS if name != x]
    y = draw_axis("Y axis", "y", others)
    facet = draw_axis("Facet by", "facet", [NONE, *(name for name in others if name != y)])
    EXPLORE.widget(st.selectbox, "metric", "Metric", list(METRICS), format_func=lambda name: METRICS[name].capitalize())
    return (x, y) if facet == NONE else (x, y, facet)


def _axis_changed(before: tuple[str, ...]) -> None:
    state = dict(EXPLORE)
    separate_axes(state)
    EXPLORE.params.reset_filters(state, {*before} ^ {*axes_of(state)})
    # The selected cells and the zoom belong to the old axes.
    EXPLORE.update(state | {CELLS: [], "zoom": None})


def _settings() -> None:
    """Draw the settings in an expander; its widgets are made only when it is open."""
    changed = [
        label[0].lower() + label[1:]
        for name, label in _SETTINGS.items()
        if EXPLORE[name] != EXPLORE.params.params[name].default
    ]
    expander = filters.draw_expander("Settings", "settings", changed)
    if not expander.open:
        return
    with expander:
        counts = sorted({*_SEED_COUNTS, EXPLORE["seeds"]})
        EXPLORE.widget(st.select_slider, "seeds", _SETTINGS["seeds"], counts)
        EXPLORE.widget(
            st.toggle, "train_on_click", _SETTINGS["train_on_click"], help="Off: a click only selects the cell."
        )
        EXPLORE.widget(
            st.toggle, "presentation", _SETTINGS["presentation"],
            help="Larger text and charts, readable from the last row of a lecture hall.",
        )  # fmt: skip
