"""The sidebar: axes and score, a filter for every hyperparameter, a text filter; together they make the Slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.cells import in_order
from jsc_explore.config import DEFAULTS, FIELDS, RECIPE_VERSION, RunConfig
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store import Store
from jsc_explore.store.schema import SCORES
from jsc_explore.store.slices import Between, Filters
from jsc_explore.views import filters, saved, url

# What changes most often stands first; the rest is one click away.
_FIRST = ("model", "max_epochs", "protocol", "final_relu")
_SEED_COUNTS = (1, 2, 3, 5, 10, 20)


@dataclass(frozen=True)
class Slice:
    """What the page shows: axes, a score, which runs pass; and what a click trains.

    ``facet`` is a field or None; ``filters`` and ``text`` say which runs pass; ``base`` holds, for every field that is
    no axis, the value that a missing cell is trained with; ``several`` are the fields of which more than one value
    passes besides the axes, so that a cell may hold several configs.
    """

    x: str
    y: str
    facet: str | None
    score: str
    base: RunConfig
    digest: str
    filters: Filters
    text: str
    seeds: int
    train_on_click: bool
    several: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields on the axes: across, up and, if there is one, the facet."""
        return tuple(name for name in (self.x, self.y, self.facet) if name is not None)

    def passes(self, config: RunConfig) -> bool:
        """Whether a config passes the filters on its fields; the text filter needs results and is not asked."""
        for name, allowed in self.filters.items():
            if name not in FIELDS or (name == "momentum" and config.optimizer != "sgd"):
                continue
            value = getattr(config, name)
            if not (allowed.low <= value <= allowed.high if isinstance(allowed, Between) else value in allowed):
                return False
        return True


def choose(store: Store) -> Slice | None:
    """Draw the sidebar; return what was chosen, or None when its data are not there (the page then says so)."""
    with st.sidebar:
        axes = _axes()
        counts = filters.counts(store, *_chosen(axes))
        st.divider()
        others = [name for name in FIELDS if name != "seed"]
        for name in (name for name in _FIRST if name not in axes):
            filters.draw(name, False, counts[name])
        rest = [name for name in others if name not in _FIRST or name in axes]
        narrowed = sum(filters.is_narrowed(name, name in axes) for name in rest)
        filters.draw_more({name: counts[name] for name in rest}, axes, narrowed)
        filters.draw_text()
        st.divider()
        seeds = st.select_slider("Seeds of a cell", filters.with_current(_SEED_COUNTS, "seeds"), key="seeds")
        on_click = st.toggle(
            "Train a missing cell on click",
            value=True,
            key="train_on_click",
            help="Off: a click only chooses the cell.",
        )
        st.toggle("Lecture hall", key="hall", help="Larger letters and figures, readable from the last row.")
        url.write()
        saved.draw()
    return _slice(axes, int(seeds), on_click)


def _slice(axes: tuple[str, ...], seeds: int, on_click: bool) -> Slice | None:
    chosen, text = _chosen(axes)
    try:
        base = RunConfig(**{name: _base_value(name, chosen.get(name)) for name in FIELDS if name != "seed"})
        digest = data.digest(base.dataset)
    except FieldError as error:
        st.error(str(error))
        return None
    except DataError as error:
        st.info(str(error))
        return None
    several = tuple(
        name for name in FIELDS if name not in (*axes, "seed") and _is_several(chosen.get(name))
        and (name != "momentum" or base.optimizer == "sgd")
    )  # fmt: skip
    # Runs on other jets, or by an older recipe, are other experiments: they never share a cell.
    scope: Filters = {**chosen, "data_digest": [digest], "recipe": [RECIPE_VERSION]}
    facet = axes[2] if len(axes) > 2 else None
    return Slice(
        axes[0], axes[1], facet, st.session_state["score"], base, digest, scope, text, seeds, on_click, several
    )


def _axes() -> tuple[str, ...]:
    """Draw the boxes of axes and score; return the fields on the axes."""

    def words(name: str) -> str:
        return "None" if name == url.NONE else FIELDS[name].label

    x = st.selectbox("Across", url.AXIS_FIELDS, key="x", format_func=words, on_change=_forget_cells)
    up = [name for name in url.AXIS_FIELDS if name != x]
    if st.session_state["y"] == x:
        st.session_state["y"] = up[0]
    y = st.selectbox("Up", up, key="y", format_func=words, on_change=_forget_cells)
    if st.session_state["facet"] in (x, y):
        st.session_state["facet"] = url.NONE
    panels = [url.NONE, *(name for name in up if name != y)]
    facet = st.selectbox("Side by side", panels, key="facet", format_func=words, on_change=_forget_cells)
    st.selectbox("Score", list(SCORES), key="score", format_func=lambda name: SCORES[name].capitalize())
    url.restore_filters()
    return (x, y) if facet == url.NONE else (x, y, facet)


def _forget_cells() -> None:
    # Chosen cells are values of the axes: with another axis they would mean something else.
    url.choose_cells([])
    st.session_state["zoom"] = None


def _chosen(axes: tuple[str, ...]) -> tuple[Filters, str]:
    """Return the filters as the session has them, and the text filter."""
    chosen: dict[str, Any] = {}
    for name in FIELDS:
        value = st.session_state[url.key_of(name, name in axes)] if name != "seed" else None
        if value:
            chosen[name] = Between(*value) if isinstance(value, tuple) else value
    return chosen, st.session_state["where"]


def _is_several(allowed: Any) -> bool:
    if isinstance(allowed, Between):
        return allowed.low < allowed.high
    return allowed is None or len(allowed) > 1


def _base_value(name: str, allowed: Any) -> Any:
    """Return the value that missing cells are trained with: the default where it passes, else the nearest that does."""
    default = DEFAULTS[name]
    if allowed is None:
        return default
    if isinstance(allowed, Between):
        return min(max(default, allowed.low), allowed.high)
    return default if default in allowed else in_order(name, allowed)[0]
