"""The Overview's sidebar: a metric, data and validation, and filters over all other hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.config import FIELDS, display_value
from jsc_explore.store import Store
from jsc_explore.store.query.filters import Between, Filters
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.page_links import overview_query
from jsc_explore.view_model.slice import filters_of
from jsc_explore.view_model.url_params import FILTERED
from jsc_explore.web.components import filters
from jsc_explore.web.state.url import EXPLORE, OVERVIEW

_ADOPTED = "_filters taken from Explore"
_FIRST = ("model", "batch_size", "learning_rate")


@dataclass(frozen=True)
class OverviewFilters:
    """Selects the runs of the page: one data set, one kind of validation, and filters. Hashable."""

    metric: str
    conditions: tuple[tuple[str, Between | tuple[Any, ...]], ...]
    text: str

    @property
    def filters(self) -> Filters:
        """The conditions in the form that the store's queries take."""
        return dict(self.conditions)

    @property
    def description(self) -> str:
        """The filters as text for the page's title; empty if there are none."""
        parts = []
        for name, allowed in self.conditions:
            if name not in FILTERED:
                continue
            if isinstance(allowed, Between):
                ends = dict.fromkeys(display_value(name, end) for end in (allowed.low, allowed.high))
                parts.append(f"{FIELDS[name].inline_label} {' to '.join(ends)}")
            else:
                parts.append(f"{FIELDS[name].inline_label} {' or '.join(display_value(name, one) for one in allowed)}")
        parts += [self.text] if self.text else []
        return f", where {' and '.join(parts)}" if parts else ""


def adopt_explore() -> None:
    """Take over metric and filters that changed on Explore, unless the URL says what this page shows."""
    if EXPLORE.page not in st.session_state or OVERVIEW.is_in_url:
        return
    chosen = overview_query(EXPLORE.query)
    if chosen != st.session_state.get(_ADOPTED, {}):
        st.session_state[_ADOPTED] = chosen
        own = {name: text for name, text in OVERVIEW.query.items() if name == "against"}
        OVERVIEW.update(OVERVIEW.params.read(own | chosen)[0])


def draw_origin() -> None:
    """Say that the filters are those of Explore, as long as they are, with a button that removes them."""
    # Written anew: on Overview a filter that lets every value pass is the default, and not in the query.
    taken = OVERVIEW.params.read(st.session_state.get(_ADOPTED, {}))[0]
    chosen = _only_filters(OVERVIEW.params.write(taken))
    if chosen and chosen == _only_filters(OVERVIEW.query):
        with st.container(horizontal=True, vertical_alignment="center", key="origin"):
            st.caption("Filtered as on Explore.", width="content")
            st.button("Show all runs", type="tertiary", on_click=_remove_filters)


def _only_filters(query: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in query.items() if name not in ("metric", "against")}


def _remove_filters() -> None:
    kept = {name: text for name, text in OVERVIEW.query.items() if name in ("metric", "against")}
    for name, value in OVERVIEW.params.read(kept)[0].items():
        OVERVIEW.change(name, value)


def draw(store: Store) -> OverviewFilters:
    """Draw the sidebar; return the selected metric and filters."""
    with st.sidebar:
        OVERVIEW.widget(
            st.selectbox, "metric", "Metric", list(METRICS), format_func=lambda name: METRICS[name].capitalize()
        )
        # Metrics of different data or kinds of validation must not be mixed: exactly one of each is selected.
        for name, options in (("dataset", list(data.names())), ("validation", list(FIELDS["validation"].choices))):
            spec = FIELDS[name]
            OVERVIEW.widget(
                st.selectbox, name, spec.label, options, format_func=partial(display_value, name),
                help=spec.help[0].upper() + spec.help[1:],
            )  # fmt: skip
        selected = {name: (OVERVIEW[name],) for name in ("dataset", "validation")} | filters_of(
            OVERVIEW, FILTERED, FILTERED
        )
        counts = filters.counts(store, selected, OVERVIEW["filter"])
        st.divider()
        for name in _FIRST:
            filters.draw(OVERVIEW, name, True, counts[name])
        rest = {name: counts[name] for name in FILTERED if name not in _FIRST}
        filters.draw_more(OVERVIEW, rest, FILTERED)
        filters.draw_expression(OVERVIEW)
    # Other jets may have had the same name: their runs are left out.
    conditions = (*selected.items(), ("data_digest", (data.digest(OVERVIEW["dataset"]),)))
    return OverviewFilters(OVERVIEW["metric"], conditions, OVERVIEW["filter"])
