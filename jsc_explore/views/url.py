"""The URL holds the view: which values it may have, and what is said of those it may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from jsc_explore.charts.style import ordinal_label
from jsc_explore.config import FIELDS, check_field, parse_value
from jsc_explore.errors import FieldError

CELLS = "cells"
DEFAULT_AXES = {"x": "batch_size", "y": "learning_rate"}
PAGE_KEYS = ("x", "y", "score", "show", "along", "log", CELLS)


def faults(query: dict[str, str]) -> list[str]:
    """Return one line for each parameter of a URL that names no field or holds no valid value.

    A bad text for a filter that takes free text is not among them: the filter itself says what is wrong.
    """
    lines = []
    # Streamlit writes what a selectbox shows: the axes stand in the URL by their labels.
    axes = {name for name, spec in FIELDS.items() if spec.label in (query.get("x"), query.get("y"))}
    axes |= {name for key, name in DEFAULT_AXES.items() if key not in query}
    for name, text in query.items():
        if name in PAGE_KEYS or name.startswith("embed") or (takes_text(name) and name not in axes):
            continue
        try:
            check_field(name)
            parse_value(name, text)
        except FieldError as error:
            lines.append(f"In the address: {error} (the default is shown)")
    return lines


def takes_text(name: str) -> bool:
    """Whether a field's filter accepts typed values beside those it offers."""
    return name in FIELDS and FIELDS[name].kind in ("int", "float", "model")


def chosen_cells(x: str, y: str) -> list[tuple[Any, Any]]:
    """Return the pairs of axis values that the URL marks as chosen; pairs that cannot be read are left out."""
    pairs = []
    for text in st.query_params.get(CELLS, "").split("~"):
        first, separator, second = text.partition(":")
        if not separator:
            continue
        try:
            pairs.append((parse_value(x, first), parse_value(y, second)))
        except FieldError:
            continue
    return pairs


def choose_cells(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Write the chosen pairs into the URL."""
    if pairs:
        st.query_params[CELLS] = "~".join(f"{ordinal_label(x)}:{ordinal_label(y)}" for x, y in pairs)
    elif CELLS in st.query_params:
        del st.query_params[CELLS]


def field_options(name: str, stored: Sequence[Any], default: Any) -> list[Any]:
    """Return what a filter offers: the values that are stored and the default first, then the rest of the ladder."""
    spec = FIELDS[name]
    values = list(dict.fromkeys([default, *stored, *spec.ladder]))
    return sorted(values) if spec.kind in ("int", "float") else values
