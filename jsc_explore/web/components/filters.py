"""Filter widgets: a range for a number, choices for a name, with counts of runs; and a filter expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.cells import in_order
from jsc_explore.config import DEFAULTS, FIELDS, display_value, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.store import Store
from jsc_explore.store.query.expression import FilterError, describe_columns, parse_filter
from jsc_explore.store.query.filters import Between
from jsc_explore.store.query.grid import count_choices
from jsc_explore.view_model.url_params import filter_key, filter_param
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services
from jsc_explore.web.state.url import UrlState

# A slider with more values cannot be set with a mouse; some are then left out.
MAX_SLIDER_VALUES = 60


def counts(
    store: Store, filters: Mapping[str, Between | tuple[Any, ...]], expression: str
) -> dict[str, dict[Any, int]]:
    """Return the stored values of each field, with the number of runs that pass the other filters."""
    return _counts(store.version, tuple(filters.items()), expression)


@st.cache_resource(show_spinner=False, max_entries=128, hash_funcs={tuple: repr})
def _counts(
    version: int, filters: tuple[tuple[str, Between | tuple[Any, ...]], ...], expression: str
) -> dict[str, dict[Any, int]]:
    return count_choices(services.store(), dict(filters), expression)


def draw(state: UrlState, name: str, axis: bool, stored: Mapping[Any, int], place: str = "") -> None:
    """Draw the filter of one field; ``state`` holds its value under ``filter_key``, ``stored`` counts runs by value.

    A field may be drawn at several places of a page, each with a ``place`` of its own.
    """
    if FIELDS[name].kind in ("int", "float"):
        _draw_range(state, name, axis, stored, place)
    else:
        _draw_choices(state, name, axis, stored, place)


def draw_more(state: UrlState, stored: Mapping[str, Mapping[Any, int]], axes: Collection[str]) -> None:
    """Draw the less used filters in an expander, and name those that are set."""
    changed = [FIELDS[name].inline_label for name in stored if _is_changed(state, name, name in axes)]
    expander = draw_expander("More filters", "more_filters", changed)
    if expander.open:
        with expander:
            for name, counts in stored.items():
                draw(state, name, name in axes, counts)


def _is_changed(state: UrlState, name: str, axis: bool) -> bool:
    return bool((state[filter_key(name, axis)] or None) != (filter_param(name, axis).default or None))


def draw_expander(label: str, key: str, changed: Sequence[str]) -> Any:
    """Draw an expander of the sidebar, and below it the labels of ``changed`` settings; return it.

    The caller draws its content only if it is open.
    """
    # The changed settings are named below the label: a new label would make a new, closed expander.
    expander = st.expander(label, key=key, on_change="rerun")
    if changed:
        st.caption(f"Set: {', '.join(changed)}")
    return expander


def _label(name: str, stored: Mapping[Any, int]) -> Callable[[Any], str]:
    return lambda value: f"{display_value(name, value)} ({stored.get(value, 0):,})"


def _draw_range(state: UrlState, name: str, axis: bool, stored: Mapping[Any, int], place: str) -> None:
    spec, key = FIELDS[name], filter_key(name, axis)
    current = state[key]
    values = _slider_values(name, {*spec.default_values, *stored, DEFAULTS[name], *(current or ())}, current)
    widget = f"{state.page} range {key}{place and f' in {place}'}"

    def changed() -> None:
        low, high = st.session_state[widget]
        # The whole range means any value, also values that are stored later.
        state.change(key, None if (low, high) == (values[0], values[-1]) else (low, high))

    # Set from the state in each run: labels contain counts, and a changed label is no longer an option.
    st.session_state[widget] = current or (values[0], values[-1])
    if current and current[0] == current[1]:
        # Both handles are at one value: write it only once.
        st.html(f"<style>.st-key-{_css_class(widget)} [role=group] > div > div:nth-child(3) "
                "[data-testid=stSliderThumbValue] "
                "{display: none}</style>")  # fmt: skip
    st.select_slider(
        spec.label,
        values,
        # Makes it a range slider; its value is set above.
        value=(values[0], values[-1]),
        key=widget,
        on_change=changed,
        format_func=_label(name, stored),
        help=_capitalise(spec.help) + " (runs in brackets)",
    )


def _css_class(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "-", key)


def _slider_values(name: str, values: set[Any], current: Any) -> list[Any]:
    ordered = in_order(name, values)
    if len(ordered) <= MAX_SLIDER_VALUES:
        return ordered
    required = {*FIELDS[name].default_values, ordered[0], ordered[-1], *(current or ())}
    stride = -(-len(ordered) // MAX_SLIDER_VALUES)
    return in_order(name, {*ordered[::stride], *required})


def _draw_choices(state: UrlState, name: str, axis: bool, stored: Mapping[Any, int], place: str) -> None:
    spec, key = FIELDS[name], filter_key(name, axis)
    current = state[key]
    # Samples that the user simulated are not in the choices of the Spec; the cache lists them.
    own = data.names() if name == "dataset" else ()
    options = in_order(name, {*spec.default_values, *own, *stored, DEFAULTS[name], *current})
    label, widget, fault = (
        _label(name, stored),
        f"{state.page} choices {key}{place and f' in {place}'}",
        f"{state.page} fault {key}",
    )
    by_label = {label(value): value for value in options}

    def changed() -> None:
        values: list[Any] = []
        st.session_state[fault] = None
        for one in st.session_state[widget]:
            try:
                value = by_label.get(one, one) if isinstance(one, str) else one
                values.append(parse_value(name, value) if isinstance(value, str) else value)
            except FieldError as error:
                st.session_state[fault] = f"{spec.label} {one!r}: {error.rule}; {error.remedy}"
        state.change(key, list(dict.fromkeys(values)))

    st.session_state[widget] = current
    free = spec.kind == "model"
    st.multiselect(
        spec.label,
        options,
        key=widget,
        on_change=changed,
        format_func=label,
        placeholder="Any",
        accept_new_options=free,
        help=_capitalise(spec.help) + (" (runs in brackets); type any other layers" if free else " (runs in brackets)"),
    )
    if problem := st.session_state.get(fault):
        st.error(plain(problem))


def draw_expression(state: UrlState) -> None:
    """Draw the filter expression; an invalid one is marked at its error, and the last valid one still applies."""
    widget, fault_key = f"{state.page} expression", f"{state.page} fault expression"

    def changed() -> None:
        st.session_state[fault_key] = None
        text = st.session_state[widget].strip()
        try:
            if text:
                parse_filter(text)
            state.change("filter", text)
        except FilterError as error:
            st.session_state[fault_key] = error

    fault: FilterError | None = st.session_state.get(fault_key)
    if fault is None:
        st.session_state[widget] = state["filter"]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Filter expression", key=widget, on_change=changed, placeholder="accuracy > 70%")
        help_ = st.popover("Help", type="tertiary", key=f"{widget} help", on_change="rerun")
    # Its place, above or below the field, is found before it has content: it needs its height from the start.
    content = help_.container(height=340, border=False)
    if help_.open:
        content.markdown(_EXPRESSION_HELP)
        content.markdown(_columns_help())
    if fault is not None:
        # As much as the sidebar shows without scrolling.
        st.code(fault.pointed(24), language=None)
        st.error(plain(f"{_capitalise(fault.rule)}: {fault.remedy}. The previous filter still applies."))


_EXPRESSION_HELP = """Keeps the runs that fulfil a condition, for example

    accuracy > 70% and not silent
    model = jsc-tiny or model = 16 - 64 - 5
    learning rate >= 1e-3 and batch size in (64, 128)

Join conditions with `and`, `or`, `not` and brackets; `=`, `<>`, `<`, `>=`, `in`, `between`, `like`, `is null` compare.
"""


@cache
def _columns_help() -> str:
    """Return the columns of a filter expression and their meaning as a Markdown table."""
    rows = [f"| {label} | `{name}` | {plain(doc)} |" for label, name, doc in describe_columns()]
    return "\n".join(["| label | or | meaning |", "|---|---|---|", *rows])


def _capitalise(text: str) -> str:
    return text[0].upper() + text[1:]
