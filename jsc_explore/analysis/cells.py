"""The cells of a grid: what is stored, active or missing at every place on its axes; the Pareto front of cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.queue import Job
from jsc_explore.network import parse

State = Literal["done", "partly", "running", "queued", "failed", "missing", "hidden"]
Place = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One place of a grid: a value for each axis (x, y and, where the grid is faceted, the facet).

    ``config`` is what training here trains. Two places have one config where their values train the same, such as adam
    and adamw without weight decay. The figures are those of ``grid_cells``: ``median_all``, ``lowest`` and ``highest``
    over ``n`` runs of ``n_configs`` configs, ``median`` with the ends ``low`` and ``high`` of its spread over those
    without a silent class. ``seeds`` are the stored seeds of ``config`` itself, ``wanted`` how many there should be.
    """

    place: Place
    config: RunConfig
    config_id: str
    wanted: int = 1
    median: float | None = None
    low: float | None = None
    high: float | None = None
    median_all: float | None = None
    lowest: float | None = None
    highest: float | None = None
    n: int = 0
    n_configs: int = 0
    n_hidden: int = 0
    n_silent: int = 0
    n_diverged: int = 0
    seeds: tuple[int, ...] = ()
    active: tuple[Job, ...] = ()
    failed: tuple[Job, ...] = ()
    cancelled: tuple[Job, ...] = ()

    @property
    def x(self) -> Any:
        """Its value on the x axis."""
        return self.place[0]

    @property
    def y(self) -> Any:
        """Its value on the y axis."""
        return self.place[1]

    @property
    def facet(self) -> Any:
        """Its value of the facet, None in a grid without."""
        return self.place[2] if len(self.place) > 2 else None

    @property
    def n_median(self) -> int:
        """How many runs the median is over: those without a silent class."""
        return self.n - self.n_silent

    @property
    def value(self) -> float | None:
        """The figure that the grid shows: the median, or that of all runs where each has a silent class.

        None over several configs: a median of a mixture belongs to none of them.
        """
        if self.n_configs > 1:
            return None
        return self.median if self.n_median else self.median_all

    @property
    def state(self) -> State:
        """Its state: what trains comes before what is stored, what is stored before what failed."""
        if any(job.state == "running" for job in self.active):
            return "running"
        if self.active:
            return "queued"
        if stored := self.n + self.n_diverged:
            return "done" if self.n_configs > 1 or stored + self.n_hidden >= self.wanted else "partly"
        if self.failed:
            return "failed"
        return "hidden" if self.n_hidden else "missing"

    @property
    def share_done(self) -> float:
        """Mean progress of the active jobs, in [0, 1]."""
        return sum(job.share_done for job in self.active) / len(self.active) if self.active else 0.0

    @property
    def epoch(self) -> int:
        """The epoch that the active jobs are in, counted from one."""
        return current_epoch(self.share_done, self.config)

    def next_seeds(self, count: int) -> list[int]:
        """Return the smallest ``count`` seeds that are neither stored nor active."""
        taken = {*self.seeds, *(job.config.seed for job in self.active)}
        return [seed for seed in range(count + len(taken)) if seed not in taken][:count]

    def missing_seeds(self) -> list[RunConfig]:
        """Return the runs that are missing to the ``wanted`` seeds."""
        have = len(self.seeds) + len(self.active)
        return [self.config.with_(seed=seed) for seed in self.next_seeds(max(0, self.wanted - have))]


def current_epoch(share_done: float, config: RunConfig) -> int:
    """Return the epoch, counted from one, in which a training is that has done this share of its steps."""
    return min(config.max_epochs, int(share_done * config.max_epochs) + 1)


def axis_values(name: str, stored: Iterable[Any], extra: Iterable[Any] = ()) -> list[Any]:
    """Return the values a grid shows along a field: its default values, those stored, and ``extra``."""
    return in_order(name, {*FIELDS[name].default_values, *stored, *extra})


def in_order(name: str, values: Iterable[Any]) -> list[Any]:
    """Return values of a field in order: numbers by size, networks by parameters, names as the default values."""
    spec = FIELDS[name]
    if spec.kind in ("int", "float"):
        return sorted(set(values))
    if spec.kind == "model":
        return sorted(set(values), key=lambda value: (parse(value).parameters, value))
    order = {value: position for position, value in enumerate(spec.default_values)}
    return sorted(set(values), key=lambda value: (order.get(value, len(order)), str(value)))


_FIGURES = (
    "median", "low", "high", "median_all", "lowest", "highest", "n", "n_configs", "n_hidden", "n_silent", "n_diverged",
)  # fmt: skip


def build_cells(
    base: RunConfig,
    axes: Mapping[str, Sequence[Any]],
    digest: str,
    stored: Iterable[Mapping[str, Any]],
    jobs: Iterable[Job],
    wanted: int = 1,
    seeds_of: Callable[[tuple[str, ...]], Mapping[str, Sequence[int]]] = lambda config_ids: {},
    *,
    several: bool = False,
) -> list[Cell]:
    """Return a cell for every combination of axis values, in the order of the axes.

    ``base`` gives the other fields, ``stored`` the rows of ``grid_cells``, ``jobs`` the requests that are not done and
    pass the filters; ``seeds_of`` returns the stored seeds of configs by their ids. A job that failed does not count
    where its seed is stored. A place has the runs of its config's canonical form; with ``several``, if ``stored`` also
    has runs that differ from ``base`` in fields on no axis, the runs that are stored with its own values.
    """
    names = tuple(axes)
    placed = {place: _config_at(base, names, place, digest, several) for place in itertools.product(*axes.values())}
    seeds = seeds_of(tuple(config_id for _, config_id in placed.values()))
    figures = {tuple(row[name] for name in names): {figure: row[figure] for figure in _FIGURES} for row in stored}
    jobs_at: dict[Place, list[Job]] = {}
    for job in jobs:
        jobs_at.setdefault(tuple(getattr(job.config, name) for name in names), []).append(job)
    cells = []
    for place, (config, config_id) in placed.items():
        at = tuple(getattr(config, name) for name in names)
        known, here = tuple(seeds.get(config_id, ())), jobs_at.get(at, [])
        active = tuple(job for job in here if job.state in ("queued", "running"))
        cancelled = tuple(job for job in here if job.state == "cancelled" and job.config.seed not in known)
        failed = tuple(job for job in here if job.state == "failed" and job.config.seed not in known)
        cells.append(
            Cell(
                place,
                config,
                config_id,
                wanted,
                **figures.get(at, {}),
                seeds=known,
                active=active,
                failed=failed,
                cancelled=cancelled,
            )
        )
    return cells


@lru_cache(maxsize=1 << 14)
def _config_at(
    base: RunConfig, names: tuple[str, ...], place: Place, digest: str, several: bool
) -> tuple[RunConfig, str]:
    """Return the config at a place and its id. Cached: checking and hashing are most of the cost of a grid."""
    config = base.with_(**dict(zip(names, place, strict=True)))
    return config if several else config.canonical_form, config.config_id(digest)


def pareto_front(cost: npt.ArrayLike, metric: npt.ArrayLike, *, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Return which points are on the Pareto front: no other point is as cheap and as good, and cheaper or better.

    ``cost`` and ``metric`` are ``(n,)`` and finite. Of points that are equal in both, all are on the front or none.
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
