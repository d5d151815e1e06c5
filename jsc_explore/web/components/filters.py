"""Filters: a range for every number, a choice for every name, with the count of runs beside each; and a text filter."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.cells import in_order
from jsc_explore.config import DEFAULTS, FIELDS, format_value, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.store import Store
from jsc_explore.store.query.expression import FilterError, filter_columns, parse_filter
from jsc_explore.store.query.filters import Between, Filters
from jsc_explore.store.query.grid import count_choices
from jsc_explore.web.state import services, url

# A slider of more places than this is no longer hit with a mouse: it steps through rounded values.
MAX_PLACES = 60


def counts(store: Store, chosen: Filters, text: str) -> dict[str, dict[Any, int]]:
    """Return, for each field, its stored values with the count of runs that the other filters let pass."""
    flat = {name: (value.low, value.high) if isinstance(value, Between) else value for name, value in chosen.items()}
    return _counts(store.version, flat, text)


@st.cache_resource(show_spinner=False, max_entries=128)
def _counts(version: int, chosen: Mapping[str, Any], text: str) -> dict[str, dict[Any, int]]:
    known = {name: Between(*value) if isinstance(value, tuple) else value for name, value in chosen.items()}
    return count_choices(services.store(), known, text)


def is_narrowed(name: str, axis: bool) -> bool:
    """Whether a filter is not at its default."""
    return bool(st.session_state[url.key_of(name, axis)] != url.filter_param(name, axis).default)


def with_current(values: Sequence[Any], key: str) -> list[Any]:
    """Return the values with that of the session among them: an address may hold any."""
    return sorted({*values, st.session_state[key]})


def draw(name: str, axis: bool, stored: Mapping[Any, int]) -> None:
    """Draw one field's filter; its value lies in the session under ``url.key_of``."""
    if FIELDS[name].kind in ("int", "float"):
        _range(name, axis, stored)
    else:
        _names(name, axis, stored)


def draw_more(stored: Mapping[str, Mapping[Any, int]], axes: Collection[str]) -> None:
    """Draw the door to the filters that are rarely wanted, and which of them are set; behind it, made when it opens."""
    set_ones = [FIELDS[name].inline_label for name in stored if is_narrowed(name, name in axes)]
    door = draw_door("More filters", "more_filters", set_ones)
    if door.open:
        with door:
            for name, counts in stored.items():
                draw(name, name in axes, counts)


def draw_door(label: str, key: str, set_ones: Sequence[str]) -> Any:
    """Draw a door of the sidebar, and below it what is not at its default behind it; return its expander."""
    # What is set stands beside the label, not in it: under another label it would be another door, and a closed one.
    door = st.expander(label, key=key, on_change="rerun")
    if set_ones:
        st.caption(f"Set: {', '.join(set_ones)}")
    return door


def _words(name: str, stored: Mapping[Any, int]) -> Any:
    return lambda value: f"{format_value(name, value)} ({stored.get(value, 0):,})"


def _range(name: str, axis: bool, stored: Mapping[Any, int]) -> None:
    spec, key = FIELDS[name], url.key_of(name, axis)
    current = st.session_state[key]
    places = _places(name, {*spec.default_values, *stored, DEFAULTS[name], *(current or ())}, current)
    widget = f"range {key}"

    def changed() -> None:
        low, high = st.session_state[widget]
        # From end to end means any, also for a value that is stored tomorrow.
        st.session_state[key] = None if (low, high) == (places[0], places[-1]) else (low, high)

    # The session's value first, then the widget: labels hold counts, and a label that changed is no choice any more.
    st.session_state[widget] = current or (places[0], places[-1])
    if current and current[0] == current[1]:
        # Both handles stand on one value; said once is enough.
        st.html(f"<style>.st-key-{_class(widget)} [role=group] > div > div:nth-child(3) "
                "[data-testid=stSliderThumbValue] "
                "{display: none}</style>")  # fmt: skip
    st.select_slider(
        spec.label,
        places,
        # Says that it is a range; what it is stands in the session.
        value=(places[0], places[-1]),
        key=widget,
        on_change=changed,
        format_func=_words(name, stored),
        help=_sentence(spec.help) + " (runs in brackets)",
    )


def _class(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "-", key)


def _places(name: str, values: set[Any], current: Any) -> list[Any]:
    ordered = in_order(name, values)
    if len(ordered) <= MAX_PLACES:
        return ordered
    kept = {*FIELDS[name].default_values, ordered[0], ordered[-1], *(current or ())}
    stride = -(-len(ordered) // MAX_PLACES)
    return in_order(name, {*ordered[::stride], *kept})


def _names(name: str, axis: bool, stored: Mapping[Any, int]) -> None:
    spec, key = FIELDS[name], url.key_of(name, axis)
    current = st.session_state[key]
    # Samples of one's own are no choice of the field's Spec: they are what lies in the cache.
    at_hand = data.names() if name == "dataset" else ()
    options = in_order(name, {*spec.default_values, *at_hand, *stored, DEFAULTS[name], *current})
    words, widget, typed = _words(name, stored), f"names {key}", f"_typed {key}"
    by_words = {words(value): value for value in options}

    def changed() -> None:
        values: list[Any] = []
        st.session_state[typed] = None
        for one in st.session_state[widget]:
            try:
                value = by_words.get(one, one) if isinstance(one, str) else one
                values.append(parse_value(name, value) if isinstance(value, str) else value)
            except FieldError as error:
                st.session_state[typed] = str(error)
        st.session_state[key] = list(dict.fromkeys(values))

    st.session_state[widget] = current
    free = spec.kind == "model"
    st.multiselect(
        spec.label,
        options,
        key=widget,
        on_change=changed,
        format_func=words,
        placeholder="Any",
        accept_new_options=free,
        help=_sentence(spec.help) + (" (runs in brackets); type any other layers" if free else " (runs in brackets)"),
    )
    if problem := st.session_state.get(typed):
        st.error(problem)


def draw_text() -> None:
    """Draw the text filter; a bad one shows where it is wrong, and the one before stays in force."""
    widget = "where typed"

    def changed() -> None:
        st.session_state["_where fault"] = None
        text = st.session_state[widget].strip()
        try:
            if text:
                parse_filter(text)
            st.session_state["filter"] = text
        except FilterError as error:
            st.session_state["_where fault"] = error

    fault: FilterError | None = st.session_state.get("_where fault")
    if fault is None:
        st.session_state[widget] = st.session_state["filter"]
    st.text_input(
        "Filter expression",
        key=widget,
        on_change=changed,
        placeholder="val_acc > 0.7 and not silent",
        help="SQL's WHERE language over the columns of a run: "
        + ", ".join(f"`{column}`" for column in filter_columns())
        + ". Texts stand in single quotes.",
    )
    if fault is not None:
        st.code(fault.pointed(), language=None)
        st.error(f"{_sentence(fault.rule)}: {fault.remedy}. The filter before is in force.")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
