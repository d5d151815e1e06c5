"""The cells of a grid: what is stored, what is under way, what is missing, for every place on its axes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.queue.queue import Job

State = Literal["done", "partly", "running", "queued", "failed", "missing", "hidden"]
Place = tuple[Any, ...]


@dataclass
class Cell:
    """One place of a grid: a value for each axis (across, up and, where the grid is faceted, the facet).

    ``config`` is what training here trains. The figures are over the ``n`` stored runs that pass the filters, of
    ``n_configs`` configs; ``seeds`` are the stored seeds of ``config`` itself, ``wanted`` how many there should be.
    """

    place: Place
    config: RunConfig
    config_id: str
    wanted: int = 1
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    n_configs: int = 0
    n_hidden: int = 0
    n_silent: int = 0
    n_diverged: int = 0
    seeds: list[int] = field(default_factory=list)
    active: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    @property
    def x(self) -> Any:
        """Its value across."""
        return self.place[0]

    @property
    def y(self) -> Any:
        """Its value up."""
        return self.place[1]

    @property
    def facet(self) -> Any:
        """Its value of the facet, None in a grid without."""
        return self.place[2] if len(self.place) > 2 else None

    @property
    def state(self) -> State:
        """What a glance should tell: under way before stored, stored before failed."""
        if any(job.state == "running" for job in self.active):
            return "running"
        if self.active:
            return "queued"
        if self.n:
            return "done" if self.n_configs > 1 or self.n + self.n_hidden >= self.wanted else "partly"
        if self.failed:
            return "failed"
        return "hidden" if self.n_hidden else "missing"

    @property
    def share_done(self) -> float:
        """Mean progress of the jobs under way."""
        return sum(job.share_done for job in self.active) / len(self.active) if self.active else 0.0

    def next_seeds(self, count: int) -> list[int]:
        """Return the smallest seeds that are neither stored nor under way."""
        taken = set(self.seeds) | {job.config.seed for job in self.active}
        return [seed for seed in range(count + len(taken)) if seed not in taken][:count]

    def missing_seeds(self) -> list[RunConfig]:
        """Return the runs between what is stored or under way and the ``wanted`` seeds."""
        have = len(self.seeds) + len(self.active)
        return [self.config.with_(seed=seed) for seed in self.next_seeds(max(0, self.wanted - have))]


def axis_values(name: str, stored: Iterable[Any], extra: Iterable[Any] = ()) -> list[Any]:
    """Return the values a grid shows along a field: its ladder, what is stored, what is asked for besides."""
    return in_order(name, {*FIELDS[name].default_values, *stored, *extra})


def in_order(name: str, values: Iterable[Any]) -> list[Any]:
    """Return values of a field as people expect them: numbers by size, names as the ladder has them."""
    spec = FIELDS[name]
    if spec.kind in ("int", "float"):
        return sorted(set(values))
    order = {value: position for position, value in enumerate(spec.default_values)}
    return sorted(set(values), key=lambda value: (order.get(value, len(order)), str(value)))


def build_cells(
    base: RunConfig,
    axes: Mapping[str, Sequence[Any]],
    digest: str,
    stored: Iterable[Mapping[str, Any]],
    jobs: Iterable[Job],
    wanted: int = 1,
) -> list[Cell]:
    """Return a cell for every combination of axis values, in the order of the axes.

    ``base`` gives the other fields, ``stored`` the rows of ``grid_cells``, ``jobs`` the requests that are not done and
    pass the filters.
    """
    names = tuple(axes)
    cells: dict[Place, Cell] = {}
    for place in itertools.product(*axes.values()):
        cells[place] = Cell(place, *_placed(base, names, place, digest), wanted)
    for row in stored:
        if cell := cells.get(tuple(row[name] for name in names)):
            for figure in ("mean", "sd", "low", "high", "n", "n_configs", "n_hidden", "n_silent", "n_diverged"):
                setattr(cell, figure, row[figure])
    for job in jobs:
        if cell := cells.get(tuple(getattr(job.config, name) for name in names)):
            (cell.failed if job.state == "failed" else cell.active).append(job)
    return list(cells.values())


@lru_cache(maxsize=1 << 14)
def _placed(base: RunConfig, names: tuple[str, ...], place: Place, digest: str) -> tuple[RunConfig, str]:
    """Return the config at a place, and its id: checking and hashing are most of what a grid costs."""
    config = base.with_(**dict(zip(names, place, strict=True)))
    return config, config.config_id(digest)


def with_seeds(cells: Sequence[Cell], seeds: Mapping[str, Sequence[int]]) -> list[Cell]:
    """Enter the stored seeds of each cell's own config; a failure of a seed that is stored since is none."""
    for cell in cells:
        cell.seeds = list(seeds.get(cell.config_id, ()))
        cell.failed = [job for job in cell.failed if job.config.seed not in cell.seeds]
    return list(cells)


def front(cost: npt.ArrayLike, metric: npt.ArrayLike, *, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Return which points no other point beats: none is as cheap and as good, and cheaper or better.

    ``cost`` and ``metric`` are ``(n,)`` and finite. Points that are equal in both stand or fall together.
    """
    costs = np.asarray(cost, float)
    goods = np.asarray(metric, float) * (1 if higher_is_better else -1)
    order = np.lexsort((-goods, costs))
    kept = np.zeros(len(costs), bool)
    best, at = -np.inf, np.nan
    for index in order:
        if goods[index] > best:
            best, at = goods[index], costs[index]
            kept[index] = True
        elif goods[index] == best and costs[index] == at:
            kept[index] = True
    return kept
