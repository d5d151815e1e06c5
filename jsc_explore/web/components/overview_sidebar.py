"""The Overview's sidebar: a metric, data and validation, and Explore's filters over all other hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.config import FIELDS, check_field, format_value
from jsc_explore.errors import FieldError
from jsc_explore.store import Store
from jsc_explore.store.query.expression import parse_filter
from jsc_explore.store.query.filters import Between, Filters
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model import url_params as words
from jsc_explore.web.components import filters
from jsc_explore.web.state.url_select import url_selectbox

# Scores of other data, or of another validation, are not to be mixed: one of each is chosen.
_ALONE = ("dataset", "validation")
NARROWED = tuple(name for name in FIELDS if name not in (*_ALONE, "seed"))
_FIRST = ("model", "batch_size", "learning_rate")
_MIRROR, _FAULTS = "_overview address", "_overview faults"


@dataclass(frozen=True)
class Scope:
    """Which runs the page is about: of one data set and validation, those that pass the filters and the text."""

    metric: str
    filters: Filters
    text: str

    @property
    def words(self) -> str:
        """What narrows it, as the page's line says it; empty if nothing does."""
        parts = []
        for name in NARROWED:
            allowed = self.filters.get(name)
            if isinstance(allowed, Between):
                ends = dict.fromkeys(format_value(name, end) for end in (allowed.low, allowed.high))
                parts.append(f"{FIELDS[name].inline_label} {' to '.join(ends)}")
            elif allowed:
                parts.append(f"{FIELDS[name].inline_label} {' or '.join(format_value(name, one) for one in allowed)}")
        return ", where " + " and ".join([*parts, *([self.text] if self.text else [])]) if parts or self.text else ""


def draw(store: Store) -> Scope:
    """Draw the sidebar; return what was chosen. The address holds it in the words of the Explore page."""
    _restore()
    with st.sidebar:
        metric = url_selectbox(st, "Metric", "metric", list(METRICS), lambda name: METRICS[name].capitalize())
        alone: dict[str, Any] = {}
        for name in _ALONE:
            spec = FIELDS[name]
            options = list(data.names()) if name == "dataset" else list(spec.choices)
            # The default is the first choice of both, as everywhere.
            alone[name] = [url_selectbox(st, spec.label, name, options, str, spec.help[0].upper() + spec.help[1:])]
        # Runs on other jets of the same name are other runs.
        alone["data_digest"] = [data.digest(alone["dataset"][0])]
        chosen = alone | _chosen()
        counts = filters.counts(store, {name: chosen[name] for name in chosen if name in FIELDS}, _text())
        st.divider()
        for name in _FIRST:
            filters.draw(name, True, counts[name])
        rest = [name for name in NARROWED if name not in _FIRST]
        filters.draw_more({name: counts[name] for name in rest}, NARROWED)
        filters.draw_text()
    _write()
    for line in st.session_state[_FAULTS]:
        st.warning(line, icon=":material/link_off:")
    return Scope(metric, alone | _chosen(), _text())


def _text() -> str:
    return str(st.session_state["filter"])


def _chosen() -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name in NARROWED:
        if value := st.session_state[words.key_of(name, True)]:
            chosen[name] = Between(*value) if isinstance(value, tuple) else value
    return chosen


def _restore() -> None:
    """Bring the session in line with the address: a new one sets every filter, none leaves them as they were."""
    query = {name: text for name, text in st.query_params.to_dict().items() if name in (*NARROWED, "filter")}
    if query and query != st.session_state.get(_MIRROR):
        st.session_state[_FAULTS] = []
        for name in (*NARROWED, "filter"):
            _read(name, query)
    st.session_state.setdefault(_FAULTS, [])
    st.session_state.setdefault("filter", "")
    for name in NARROWED:
        st.session_state.setdefault(words.key_of(name, True), words.filter_param(name, True).default)


def _read(name: str, query: Mapping[str, str]) -> None:
    text = query.get(name)
    key, default = (
        ("filter", "") if name == "filter" else (words.key_of(name, True), words.filter_param(name, True).default)
    )
    try:
        if text is None:
            value = default
        elif name == "filter":
            parse_filter(text)
            value = text
        else:
            check_field(name)
            value = words.filter_param(name, True).read(text)
    except FieldError as error:
        st.session_state[_FAULTS].append(f"In the address: {error} (the default is shown)")
        value = default
    st.session_state[key] = value


def _write() -> None:
    """Write what narrows into the address, and take out of it what does not any more."""
    query = {}
    for name in NARROWED:
        param, value = words.filter_param(name, True), st.session_state[words.key_of(name, True)]
        if value and value != param.default:
            query[name] = param.write(value)
    if _text():
        query["filter"] = _text()
    st.session_state[_MIRROR] = query
    shown = st.query_params.to_dict()
    others = {name: text for name, text in shown.items() if name not in (*NARROWED, "filter")}
    if others | query != shown:
        st.query_params.from_dict(others | query)
