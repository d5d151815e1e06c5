"""A box whose choice stands in the address and survives a look at another page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from jsc_explore.errors import FieldError


def url_selectbox(
    place: Any, label: str, name: str, options: Sequence[str], words: Callable[[str], str], help_text: str | None = None
) -> str:
    """Draw a selectbox; return its choice, which the address holds under ``name`` unless it is the first option.

    The address decides, then what this session chose before, then the first option. A choice that the address holds and
    that is none is named in one line, as FieldError words it.
    """
    kept, widget = f"kept {name}", f"choose {name}"
    text: str = st.query_params.get(name, st.session_state.get(kept, options[0]))
    if text not in options:
        if name in st.query_params:
            fault = FieldError(name, text, "must be one of " + ", ".join(options), f"{options[0]} is shown")
            st.warning(f"In the address: {fault}", icon=":material/link_off:")
        text = options[0]

    def changed() -> None:
        _write(name, st.session_state[widget], options[0])

    # The address is the truth; the widget follows it, and a click writes it before the page is drawn anew.
    st.session_state[widget] = text
    place.selectbox(label, list(options), key=widget, format_func=words, on_change=changed, help=help_text)
    st.session_state[kept] = text
    _write(name, text, options[0])
    return text


def _write(name: str, text: str, default: str) -> None:
    if text != default:
        st.query_params[name] = text
    elif name in st.query_params:
        del st.query_params[name]
