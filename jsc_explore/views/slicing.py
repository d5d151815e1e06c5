"""The sidebar: axes, score and a filter for every other hyperparameter, generated from RunConfig."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.config import DEFAULT_SEEDS, DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.data.sources import is_own
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store import Store
from jsc_explore.store.schema import SCORES
from jsc_explore.views import url

# What changes most often stands first; the rest is one click away.
_FIRST = ("model", "max_epochs", "protocol", "final_relu")
_SEED_COUNTS = (1, 3, 5, 10, 20)


@dataclass(frozen=True)
class Slice:
    """What the page shows: two axes, a score, one value for every other field; and how a click trains."""

    x: str
    y: str
    score: str
    base: RunConfig
    digest: str
    seeds: int
    train_on_click: bool

    @property
    def filters(self) -> dict[str, list[Any]]:
        """The values of all fields that are neither axis nor seed, as the store takes them."""
        values = self.base.identity()
        return {name: [value] for name, value in values.items() if name not in (self.x, self.y, "seed")}


def choose(store: Store) -> Slice | None:
    """Draw the sidebar; return what was chosen, or None when its data are not there (the page then says so)."""
    with st.sidebar:
        axes = [name for name in FIELDS if name not in ("seed", "dataset")]
        x = _select("Across", axes, "x", url.DEFAULT_AXES["x"], lambda name: FIELDS[name].label)
        y = _select(
            "Up", [name for name in axes if name != x], "y", url.DEFAULT_AXES["y"], lambda name: FIELDS[name].label
        )
        score = _select("Score", list(SCORES), "score", next(iter(SCORES)), lambda name: SCORES[name].capitalize())
        st.divider()
        others = [name for name in FIELDS if name not in (x, y, "seed")]
        values = {name: _filter(store, name) for name in _FIRST if name in others}
        with st.expander("More hyperparameters"):
            values |= {name: _filter(store, name) for name in others if name not in _FIRST}
        st.divider()
        seeds = st.select_slider("Seeds to train", _SEED_COUNTS, DEFAULT_SEEDS, key="seeds")
        on_click = st.toggle(
            "Train a missing cell on click",
            value=True,
            key="train_on_click",
            help="Off: a click only chooses the cell.",
        )
    try:
        base = RunConfig.from_dict(values)
        return Slice(x, y, score, base, data.digest(base.dataset), seeds, on_click)
    except FieldError as error:
        st.error(str(error))
    except DataError as error:
        st.info(str(error))
    return None


def _select(label: str, options: list[str], key: str, default: str, words: Any) -> str:
    index = options.index(default) if default in options else 0
    # Chosen cells are values of the axes: with another axis they would mean something else.
    forget = (lambda: url.choose_cells([])) if key in url.DEFAULT_AXES else None
    return st.selectbox(
        label, options, index=index, key=key, bind="query-params", format_func=words, on_change=forget or "rerun"
    )


def _samples() -> list[str]:
    """Return the sources at hand and one's own that an address asks for; if it is not there, the page says so."""
    asked = st.query_params.get("dataset", "")
    return [*data.names(), *([asked] if is_own(asked) else [])]


def _filter(store: Store, name: str) -> Any:
    """Draw one field's filter; return its value, the default where the typed text is not a valid one."""
    spec, default = FIELDS[name], DEFAULTS[name]
    stored = [row["value"] for row in store.values(name).to_pylist()]
    if name == "dataset":
        stored += _samples()
    texts = [format_value(name, value) for value in url.field_options(name, stored, default)]
    free = url.takes_text(name)
    text = st.selectbox(
        spec.label,
        texts,
        index=texts.index(format_value(name, default)),
        key=name,
        bind="query-params",
        accept_new_options=free,
        help=spec.help[0].upper() + spec.help[1:] + ("; type any other value" if free else ""),
    )
    try:
        return parse_value(name, text or "")
    except FieldError as error:
        st.error(f"{error} (the default is shown)")
        return default
