"""How long a training will take: learned from the runs of this store, brought to the speed of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jsc_explore.config import RunConfig
from jsc_explore.jobs import calibration as calibrate
from jsc_explore.jobs.cost_model import CostModel, Numbers, work
from jsc_explore.jobs.packing import MAX_REPLICAS
from jsc_explore.store import Store
from jsc_explore.store.query.grid import timings
from jsc_explore.training.backends.select import why_not_kernel

# More kinds than this make a prediction no better, only slower; those with most runs are kept.
MAX_KINDS = 1000
# What a calibration weighs, counted in runs trained here: a dozen of them tell more than a few seconds at a start.
_CALIBRATION = 5.0


@dataclass(frozen=True)
class Estimate:
    """Expected ``seconds``, and the relative ``error`` that two of three such estimates stayed within."""

    seconds: float
    error: float

    def __str__(self) -> str:
        return f"about {format_seconds(self.seconds)}, usually within {max(5, 5 * round(20 * self.error)):.0f}%"


def expected(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> Estimate | None:
    """Return the expected wall time of training runs of any kind on ``workers`` processes, by default one a core.

    None while nothing is known.
    """
    known = _known(store, store.version, calibrate.stamp(store.directory))
    alone: list[tuple[RunConfig, int]] = []
    side_by_side: list[tuple[RunConfig, int]] = []
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(run.stack_key, []).append(run)
    if groups and known is None:
        return None
    for group in groups.values():
        if why_not_kernel(group[0]) is None:
            # One after the other, each by itself: any worker takes any run.
            alone += [(run, 1) for run in group]
            continue
        for start in range(0, len(group), MAX_REPLICAS):
            stack = group[start : start + MAX_REPLICAS]
            side_by_side.append((max(stack, key=lambda run: run.max_epochs), len(stack)))
    if known is None:
        return Estimate(0.0, 0.0)
    pieces = [*known.seconds(alone, kernel=True), *known.seconds(side_by_side, kernel=False)]
    return Estimate(max([sum(pieces) / (workers or os.cpu_count() or 1), *pieces], default=0.0), known.error)


def expected_seconds(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> float | None:
    """Return the seconds of ``expected`` alone."""
    found = expected(store, runs, workers)
    return None if found is None else found.seconds


class _Known:
    """What is known of the time of runs: a model for each of the two engines, and how fast this machine is."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], calibration: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._models: dict[bool, CostModel] = {}
        self.factor = _factor(rows, calibration)
        for kernel in (True, False):
            # Where one engine has trained nothing yet, the other's runs are all there is to go by.
            own = [row for row in rows if row["kernel"] == kernel] or list(rows)
            times = np.array([row["seconds"] * (1.0 if row["here"] else self.factor) for row in own])
            # A run trained here tells of this machine what one from elsewhere only suggests.
            count = np.array([row["n"] * (3.0 if row["here"] else 1.0) for row in own], float)
            self._models[kernel] = CostModel(_work(own), times, count)
        own_engine = self._models[sum(row["kernel"] for row in rows) * 2 >= len(rows)]
        errors = own_engine.errors()
        # With too little to hold anything out, as good as nothing is known.
        self.error = float(np.quantile(errors, 2 / 3)) if np.isfinite(errors).all() else 1.0

    def seconds(self, stacks: Sequence[tuple[RunConfig, int]], *, kernel: bool) -> list[float]:
        if not stacks:
            return []
        rows = [
            {"batch_size": run.batch_size, "parameters": run.network.parameters, "epochs_run": run.max_epochs,
             **self._sizes(run)} for run, _ in stacks
        ]  # fmt: skip
        each = self._models[kernel].seconds(_work(rows))
        return [float(one) * size for one, (_, size) in zip(each, stacks, strict=True)]

    def _sizes(self, run: RunConfig) -> dict[str, int]:
        keys = ("dataset", "validation")
        same = [row for row in self._rows if all(row[key] == getattr(run, key) for key in keys)]
        nearest = (same or [row for row in self._rows if row["dataset"] == run.dataset] or list(self._rows))[0]
        return {name: nearest[name] for name in ("train_rows", "val_rows")}


def _work(rows: Sequence[Mapping[str, Any]]) -> Numbers:
    names = ("batch_size", "parameters", "epochs_run", "train_rows", "val_rows")
    return work(*(np.array([row[name] for row in rows], float) for name in names))


def _factor(rows: Sequence[Mapping[str, Any]], calibration: Sequence[Mapping[str, Any]]) -> float:
    """Return how many times longer this machine takes than those that trained what came from elsewhere.

    The median over the runs trained here, and the calibration's, of their time over that expected from elsewhere's.
    """
    elsewhere = [row for row in rows if not row["here"] and row["kernel"]]
    here = [row for row in rows if row["here"] and row["kernel"]]
    if not elsewhere or not (here or calibration):
        return 1.0
    times, count = (np.array([row[name] for row in elsewhere], float) for name in ("seconds", "n"))
    model = CostModel(_work(elsewhere), times, count)
    measured = [*here, *calibration]
    ratios = np.array([row["seconds"] for row in measured]) / model.seconds(_work(measured))
    weights = np.array([row["n"] for row in here] + [_CALIBRATION / len(calibration) for _ in calibration], float)
    order = np.argsort(ratios)
    place = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(ratios[order][min(place, len(ratios) - 1)])


@lru_cache(maxsize=4)
def _known(store: Store, version: int, stamp: float) -> _Known | None:
    # Asked at every live refresh; of a hundred thousand runs a few hundred kinds remain.
    rows: list[dict[str, Any]] = timings(store).to_pylist()
    kept = sorted(rows, key=lambda row: (not row["here"], -row["n"]))[:MAX_KINDS]
    return _Known(kept, calibrate.load(store.directory)) if kept else None


def format_seconds(seconds: float | None) -> str:
    """Write a duration as people say it: 9 s, 2 min, 1.5 h."""
    if seconds is None:
        return "time not known yet"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
