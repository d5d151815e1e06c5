"""The address holds the view: the session and the address bar are kept in line with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore.config import FIELDS
from jsc_explore.view_model.url_params import (
    ANY,
    AXES,
    AXIS_FIELDS,
    CELLS,
    MAX_SEEDS,
    NONE,
    PARAMS,
    axes_of,
    faults,
    fill,
    filter_param,
    key_of,
    read_cells,
    write_cells,
)  # fmt: skip

# What the panels need of an address's words, they find here.
__all__ = [
    "ANY", "AXES", "AXIS_FIELDS", "CELLS", "MAX_SEEDS", "NONE", "PARAMS", "axes_of", "box", "choose_cells",
    "chosen_cells", "faults", "filter_param", "go", "key_of", "query", "read_cells", "restore", "restore_filters",
    "take", "write", "write_cells",
]  # fmt: skip
_MIRROR, _FAULTS = "_address", "_address_faults"


def restore() -> list[str]:
    """Bring the session's state in line with the address; return what could not be read, one line each.

    A new address sets everything; a page come back to without one takes up what it showed before.
    """
    query = {key: text for key, text in st.query_params.to_dict().items() if not key.startswith("embed")}
    mirror = st.session_state.get(_MIRROR)
    if mirror is None or (query and query != mirror):
        take(query)
    elif query != mirror:
        st.query_params.from_dict(mirror)
    fill(st.session_state, st.session_state[_MIRROR])
    return list(st.session_state[_FAULTS])


def restore_filters() -> None:
    """Give filters whose field has just become an axis, or is none any more, their state in that role."""
    fill(st.session_state, st.session_state[_MIRROR])


def take(query: Mapping[str, str]) -> None:
    """Make the session show what an address says, from its start: everything it does not name takes its default."""
    for key in (*PARAMS, CELLS, *(key_of(name, axis) for name in FIELDS for axis in (True, False))):
        st.session_state.pop(key, None)
    for key in [key for key in st.session_state if str(key).startswith(("_typed", "_where"))]:
        del st.session_state[key]
    st.session_state[_MIRROR] = dict(query)
    st.session_state[_FAULTS] = faults(query)
    fill(st.session_state, query)


def go(query: Mapping[str, str]) -> None:
    """Show another view: what ``take`` does, and the address bar with it, whatever it said before."""
    take(query)
    st.query_params.from_dict(dict(query))


def box(
    draw: Callable[..., Any], name: str, *args: Any, on_change: Callable[[], None] | None = None, **rest: Any
) -> None:
    """Draw a widget for a word of the address that stands behind a door; its value stays when the door is closed.

    Streamlit forgets the state of a widget that is not drawn. The session holds the value by itself, and the widget
    follows it.
    """
    widget = f"box {name}"

    def changed() -> None:
        st.session_state[name] = st.session_state[widget]
        if on_change is not None:
            on_change()

    # Not what it has already: a slider that is being dragged while the panel is drawn anew would jump back.
    if widget not in st.session_state or st.session_state[widget] != st.session_state[name]:
        st.session_state[widget] = st.session_state[name]
    draw(*args, key=widget, on_change=changed, **rest)


def write() -> None:
    """Write the session's state into the address, whatever is not at its default."""
    query = {}
    for name, param in PARAMS.items():
        value = st.session_state.get(name, param.default)
        if value != param.default:
            query[name] = param.write(value)
    axes = tuple(st.session_state[axis] for axis in AXES if st.session_state.get(axis, NONE) != NONE)
    for name in FIELDS:
        param = filter_param(name, name in axes)
        value = st.session_state.get(key_of(name, name in axes), param.default)
        if value is not None and value != param.default:
            query[name] = param.write(value)
        elif value is None and param.default is not None:
            query[name] = ANY
    if cells := st.session_state.get(CELLS):
        query[CELLS] = write_cells(cells, axes)
    if query != st.session_state.get(_MIRROR):
        st.session_state[_MIRROR] = query
        st.session_state[_FAULTS] = []
        st.query_params.from_dict(query)


def query() -> dict[str, str]:
    """Return what the address says now."""
    return dict(st.session_state.get(_MIRROR, {}))


def chosen_cells() -> list[tuple[Any, ...]]:
    """Return the chosen places."""
    return list(st.session_state.get(CELLS, []))


def choose_cells(places: Sequence[tuple[Any, ...]]) -> None:
    """Choose places of the grid."""
    st.session_state[CELLS] = list(places)
