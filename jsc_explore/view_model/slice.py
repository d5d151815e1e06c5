"""The slice an address asks for: axes, a metric, which runs pass, and what a missing cell is trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsc_explore import data
from jsc_explore.analysis.cells import in_order
from jsc_explore.config import DEFAULTS, FIELDS, RECIPE_VERSION, RunConfig
from jsc_explore.store.query.filters import Between, Filters
from jsc_explore.view_model import url_params


@dataclass(frozen=True)
class Slice:
    """What the page shows: axes, a metric, which runs pass; and what a click trains.

    ``facet`` is a field or None; ``filters`` and ``text`` say which runs pass; ``base`` holds, for every field that is
    no axis, the value that a missing cell is trained with, by a click if ``train_on_click``; ``several`` are the fields
    of which more than one value passes besides the axes, so that a cell may hold several configs.
    """

    x: str
    y: str
    facet: str | None
    metric: str
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
            if name not in FIELDS or not config.is_relevant(name):
                continue
            value = getattr(config, name)
            if not (allowed.low <= value <= allowed.high if isinstance(allowed, Between) else value in allowed):
                return False
        return True


def slice_of(state: Mapping[Any, Any]) -> Slice:
    """Return the slice of a state.

    Raises FieldError for values that cannot stand together, DataError when the data are not there.
    """
    axes = tuple(state[axis] for axis in url_params.AXES if state[axis] != url_params.NONE)
    chosen, text = filters_of(state, axes)
    base = RunConfig(**{name: _base_value(name, chosen.get(name)) for name in FIELDS if name != "seed"})
    digest = data.digest(base.dataset)
    several = tuple(
        name for name in FIELDS if name not in (*axes, "seed") and _is_several(chosen.get(name))
        and base.is_relevant(name)
    )  # fmt: skip
    # Runs on other jets, or by an older recipe_version, are other experiments: they never share a cell.
    scope: Filters = {**chosen, "data_digest": [digest], "recipe_version": [RECIPE_VERSION]}
    facet = axes[2] if len(axes) > 2 else None
    seeds, on_click = int(state["seeds"]), bool(state["train_on_click"])
    return Slice(axes[0], axes[1], facet, state["metric"], base, digest, scope, text, seeds, on_click, several)


def filters_of(state: Mapping[Any, Any], axes: tuple[str, ...]) -> tuple[Filters, str]:
    """Return the filters as a state has them, and the text filter."""
    chosen: dict[str, Any] = {}
    for name in FIELDS:
        value = state[url_params.key_of(name, name in axes)] if name != "seed" else None
        if value:
            chosen[name] = Between(*value) if isinstance(value, tuple) else value
    return chosen, state["filter"]


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
