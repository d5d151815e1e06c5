"""The slice of a page's state: its axes, metric and filters, and the config that fills a missing cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jsc_explore import data
from jsc_explore.analysis.cells import Place, in_order
from jsc_explore.config import DEFAULTS, FIELDS, RECIPE_VERSION, RunConfig
from jsc_explore.store.query.filters import Between, Filters, is_allowed
from jsc_explore.view_model.url_params import EXPLORE, NONE, axes_of, filter_key


@dataclass(frozen=True)
class Slice:
    """What the Explore page shows, and what a click trains. Hashable.

    ``facet`` is a field or None. Runs pass if they fulfil the ``conditions`` and ``text``, a filter expression.
    ``base`` holds, for the fields that are on no axis, the values with which a missing cell is trained. ``several`` are
    the fields on no axis of which more than one value passes: then a cell may hold several configs.
    """

    x: str
    y: str
    facet: str | None
    metric: str
    base: RunConfig
    digest: str
    conditions: tuple[tuple[str, Between | tuple[Any, ...]], ...]
    text: str
    seeds: int
    train_on_click: bool
    several: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields on the axes: x, y and, if there is one, the facet."""
        return tuple(name for name in (self.x, self.y, self.facet) if name is not None)

    @cached_property
    def filters(self) -> Filters:
        """The conditions in the form that the store's queries take."""
        return dict(self.conditions)

    def passes(self, config: RunConfig) -> bool:
        """Whether a config passes the conditions on its fields; the filter expression is ignored: it needs results."""
        return all(is_allowed(config, name, allowed) for name, allowed in self.conditions if name in FIELDS)

    def place_of(self, config: RunConfig) -> Place:
        """Return the values of a config on the axes."""
        return tuple(getattr(config, name) for name in self.axes)


def slice_of(state: Mapping[str, Any]) -> Slice:
    """Return the slice of a state of the Explore page.

    Raises FieldError if values contradict each other, DataError if the data set is missing.
    """
    axes = axes_of(state)
    filters = filters_of(state, axes)
    base = RunConfig(**{name: _base_value(name, filters.get(name)) for name in FIELDS if name != "seed"})
    digest = data.digest(base.dataset)
    several = tuple(
        name for name in FIELDS if name not in (*axes, "seed") and _lets_several_pass(filters.get(name))
        and base.is_relevant(name)
    )  # fmt: skip
    # Runs on other jets or of an older recipe are other experiments and must not share a cell.
    conditions = (*filters.items(), ("data_digest", (digest,)), ("recipe_version", (RECIPE_VERSION,)))
    facet = None if state["facet"] == NONE else state["facet"]
    seeds, on_click = int(state["seeds"]), bool(state["train_on_click"])
    return Slice(
        axes[0], axes[1], facet, state["metric"], base, digest, conditions, state["filter"], seeds, on_click, several
    )


def filters_of(
    state: Mapping[str, Any], axes: tuple[str, ...], fields: tuple[str, ...] = EXPLORE.filter_fields
) -> dict[str, Between | tuple[Any, ...]]:
    """Return the filters of these fields in a state, without those that let every value pass."""
    filters: dict[str, Between | tuple[Any, ...]] = {}
    for name in fields:
        if value := state[filter_key(name, name in axes)]:
            filters[name] = Between(*value) if isinstance(value, tuple) else tuple(value)
    return filters


def _lets_several_pass(allowed: Between | tuple[Any, ...] | None) -> bool:
    if isinstance(allowed, Between):
        return allowed.low < allowed.high
    return allowed is None or len(allowed) > 1


def _base_value(name: str, allowed: Between | tuple[Any, ...] | None) -> Any:
    """Return the value that missing cells are trained with: the default where it passes, else the nearest that does."""
    default = DEFAULTS[name]
    if allowed is None:
        return default
    if isinstance(allowed, Between):
        return min(max(default, allowed.low), allowed.high)
    return default if default in allowed else in_order(name, allowed)[0]
