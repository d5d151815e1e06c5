"""The two configs of the Compare page: their initial values, and the widgets that change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.charts.style import is_percentage
from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, cell_table
from jsc_explore.web.state.url import COMPARE

SIDES = ("a", "b")
_PROPOSED = "proposed configs"


def select_pair(store: Store, metric: str) -> tuple[RunConfig, RunConfig] | None:
    """Draw the widgets of both configs; return A and B, or None if the store holds too few runs to compare."""
    for side in SIDES:
        if COMPARE[side] is None:
            others = [config for config in _candidates(store, metric) if config not in (COMPARE["a"], COMPARE["b"])]
            if not others:
                return None
            COMPARE[side] = others[0]
    a, b = COMPARE["a"], COMPARE["b"]
    stored = {name: {row["value"] for row in store.values(name).to_pylist()} for name in CONFIG_FIELDS}
    for name in CONFIG_FIELDS:
        stored[name] |= {getattr(a, name), getattr(b, name)}
    varied = [name for name in CONFIG_FIELDS if len(stored[name]) > 1]
    for side, config in zip(SIDES, (a, b), strict=True):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"side-{side}"):
            st.markdown(f"### :{'blue' if side == 'a' else 'orange'}[{side.upper()}]", width=32)
            for name in varied:
                _draw_field(side, name, stored[name], config)
    return a, b


def propose(configs: Sequence[RunConfig]) -> None:
    """Propose the configs selected on the Explore page; the Compare page opens with the first two."""
    if list(configs) != st.session_state.get(_PROPOSED, []):
        st.session_state[_PROPOSED] = list(configs)
        COMPARE.update(dict.fromkeys(SIDES))


def swap() -> None:
    """Exchange A and B."""
    a, b = COMPARE["a"], COMPARE["b"]
    COMPARE.change("a", b)
    COMPARE.change("b", a)


def _draw_field(side: str, name: str, stored: set[Any], config: RunConfig) -> None:
    spec = FIELDS[name]
    ordered = sorted(stored) if spec.kind in ("int", "float", "bool") else sorted(stored, key=str)
    key = f"{side}-{name}"

    def changed() -> None:
        COMPARE.change(side, COMPARE[side].with_(**{name: parse_value(name, st.session_state[key])}))

    st.session_state[key] = format_value(name, getattr(config, name))
    st.selectbox(
        spec.label, [format_value(name, value) for value in ordered], key=key, width=250 if spec.value_labels else 170,
        format_func=lambda option: spec.value_labels.get(option, option), on_change=changed,
        help=spec.help[0].upper() + spec.help[1:],
    )  # fmt: skip


def _candidates(store: Store, metric: str) -> list[RunConfig]:
    """Return the proposed configs, then the default config if it is stored, then the two best ones."""
    dataset, validation = DEFAULTS["dataset"], DEFAULTS["validation"]
    filters = {"dataset": [dataset], "validation": [validation], "data_digest": [data.digest(dataset)]}
    rows = cell_table(store, metric, filters).to_pylist()
    best = rows[::-1] if is_percentage(metric) else rows
    configs = [RunConfig.from_dict({name: row[name] for name in CONFIG_FIELDS}) for row in best[:2]]
    default = RunConfig()
    is_stored = default.config_id(data.digest(dataset)) in {row["config_id"] for row in rows}
    return [*st.session_state.get(_PROPOSED, []), *([default] if is_stored else []), *configs]
