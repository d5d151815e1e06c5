"""The two configs of the Compare page: how they stand in the URL, how they are chosen, which they are at first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.charts.style import is_share
from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, cell_table

SIDES = ("a", "b")
_PLAIN = "default"
# Two configs survive a look at another page, which drops what it does not know from the address.
_KEPT, _OFFERED = "pair", "offered pair"


def written(config: RunConfig) -> str:
    """Write a config for the URL by what differs from the defaults: ``batch_size:16~final_relu:no``, or ``default``."""
    values = config.to_dict()
    parts = [f"{n}:{format_value(n, values[n])}" for n in CONFIG_FIELDS if values[n] != DEFAULTS[n]]
    return "~".join(parts) or _PLAIN


def read(text: str) -> RunConfig:
    """Read what ``written`` wrote; raise FieldError naming the field, or the part, that is wrong."""
    values: dict[str, Any] = {}
    for part in text.split("~") if text != _PLAIN else ():
        name, separator, value = part.partition(":")
        if not separator:
            raise FieldError("config", part, "must read field:value", "for example batch_size:64~learning_rate:1e-2")
        values[name] = parse_value(name, value)
    return RunConfig.from_dict(values)


def query(a: RunConfig, b: RunConfig) -> dict[str, str]:
    """Return the query parameters under which the Compare page shows these two."""
    return {"a": written(a), "b": written(b)}


def select_pair(store: Store, metric: str) -> tuple[RunConfig, RunConfig] | None:
    """Draw the pickers; return A and B, or None while the store holds no runs to compare."""
    pair = _current(store, metric)
    if pair is None:
        return None
    a, b = pair
    st.query_params.update(query(a, b))
    st.session_state[_KEPT] = query(a, b)
    stored = {name: {row["value"] for row in store.values(name).to_pylist()} for name in CONFIG_FIELDS}
    for name in CONFIG_FIELDS:
        stored[name] |= {getattr(a, name), getattr(b, name)}
    varied = [name for name in CONFIG_FIELDS if len(stored[name]) > 1]
    for side, config in zip(SIDES, (a, b), strict=True):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"side-{side}"):
            st.markdown(f"### :{'blue' if side == 'a' else 'orange'}[{side.upper()}]", width=32)
            for name in varied:
                _picker(side, name, stored[name], config)
    return a, b


def offer(configs: Sequence[RunConfig]) -> None:
    """Put forward the configs chosen on another page: the first two are compared next, until others are chosen here."""
    if list(configs) != st.session_state.get(_OFFERED, []):
        st.session_state[_OFFERED] = list(configs)
        st.session_state.pop(_KEPT, None)


def swap() -> None:
    """Let A and B change places."""
    st.query_params.update({"a": st.query_params["b"], "b": st.query_params["a"]})


def _picker(side: str, name: str, stored: set[Any], config: RunConfig) -> None:
    spec = FIELDS[name]
    ordered = sorted(stored) if spec.kind in ("int", "float", "bool") else sorted(stored, key=str)
    key = f"{side}-{name}"
    # The URL is the truth; the widget follows it.
    st.session_state[key] = format_value(name, getattr(config, name))
    st.selectbox(
        spec.label, [format_value(name, value) for value in ordered], key=key, width=170,
        on_change=_picked, args=(side, name), help=spec.help[0].upper() + spec.help[1:],
    )  # fmt: skip


def _picked(side: str, name: str) -> None:
    config = read(st.query_params[side])
    st.query_params[side] = written(config.with_(**{name: parse_value(name, st.session_state[f"{side}-{name}"])}))


def _current(store: Store, metric: str) -> tuple[RunConfig, RunConfig] | None:
    """Return the pair of the URL, else the session's last one, else what another page offers, else the start's."""
    kept: dict[str, str] = st.session_state.get(_KEPT, {})
    texts = {side: st.query_params.get(side) or kept.get(side) for side in SIDES}
    found: dict[str, RunConfig] = {}
    for side, text in texts.items():
        try:
            if text:
                found[side] = read(text)
        except FieldError as error:
            st.warning(f"In the address, {side.upper()}: {error} (another is shown)", icon=":material/link_off:")
    missing = [side for side in SIDES if side not in found]
    if not missing:
        return found["a"], found["b"]
    offered = [*st.session_state.get(_OFFERED, []), *_start(store, metric)]
    for side in missing:
        others = [config for config in offered if config not in found.values()]
        if not others:
            return None
        found[side] = others[0]
    return found["a"], found["b"]


def _start(store: Store, metric: str) -> list[RunConfig]:
    """Return the default config, if it is stored, then the best ones for the same data and validation, best first."""
    dataset, validation = DEFAULTS["dataset"], DEFAULTS["validation"]
    filters = {"dataset": [dataset], "validation": [validation], "data_digest": [data.digest(dataset)]}
    rows = cell_table(store, metric, filters).to_pylist()
    best = rows[::-1] if is_share(metric) else rows
    configs = [RunConfig.from_dict({name: row[name] for name in CONFIG_FIELDS}) for row in best[:2]]
    plain = RunConfig()
    known = plain.config_id(data.digest(dataset)) in {row["config_id"] for row in rows}
    return [plain, *configs] if known else configs
