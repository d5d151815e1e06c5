"""The cells of a grid: what is stored, what is under way, what is missing, for every pair of axis values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.queue import Job

State = Literal["done", "running", "queued", "failed", "missing"]


@dataclass
class Cell:
    """One config of a grid. ``mean`` and ``sd`` are over ``n`` stored seeds; ``active`` are its jobs under way."""

    x: Any
    y: Any
    config: RunConfig
    config_id: str
    mean: float | None = None
    sd: float | None = None
    n: int = 0
    n_dead: int = 0
    n_diverged: int = 0
    seeds: list[int] = field(default_factory=list)
    active: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)

    @property
    def state(self) -> State:
        """What a glance should tell: under way before stored, stored before failed."""
        if any(job.state == "running" for job in self.active):
            return "running"
        if self.active:
            return "queued"
        if self.n:
            return "done"
        return "failed" if self.failed else "missing"

    @property
    def share_done(self) -> float:
        """Mean progress of the jobs under way."""
        return sum(job.share_done for job in self.active) / len(self.active) if self.active else 0.0

    def next_seeds(self, count: int) -> list[int]:
        """Return the smallest seeds that are neither stored nor under way."""
        taken = set(self.seeds) | {job.config.seed for job in self.active}
        return [seed for seed in range(count + len(taken)) if seed not in taken][:count]


def axis_values(name: str, stored: Iterable[Any], extra: Iterable[Any] = ()) -> list[Any]:
    """Return the values a grid shows along a field: its ladder, what is stored, what is asked for besides."""
    spec = FIELDS[name]
    values = {*spec.ladder, *stored, *extra}
    if spec.kind in ("int", "float"):
        return sorted(values)
    order = {value: position for position, value in enumerate(spec.ladder)}
    return sorted(values, key=lambda value: (order.get(value, len(order)), str(value)))


def build_cells(
    base: RunConfig,
    x: str,
    y: str,
    axes: tuple[Sequence[Any], Sequence[Any]],
    digest: str,
    stored: Iterable[Mapping[str, Any]],
    jobs: Iterable[Job],
) -> list[Cell]:
    """Return a cell for every pair of axis values.

    ``base`` gives the other fields, ``stored`` the rows of ``Store.grid``, ``jobs`` the requests that are not done.
    """
    known: dict[str, Cell] = {}
    for x_value in axes[0]:
        for y_value in axes[1]:
            config = base.with_(**{x: x_value, y: y_value})
            config_id = config.config_id(digest)
            known[config_id] = Cell(x_value, y_value, config, config_id)
    for row in stored:
        if cell := known.get(row["config_id"]):
            cell.mean, cell.sd, cell.n, cell.seeds = row["mean"], row["sd"], row["n"], row["seeds"]
            cell.n_dead, cell.n_diverged = row["n_dead"], row["n_diverged"]
    for job in jobs:
        if cell := known.get(job.config_id):
            if job.state in ("queued", "running"):
                cell.active.append(job)
            elif job.state == "failed" and job.config.seed not in cell.seeds:
                cell.failed.append(job)
    return list(known.values())
