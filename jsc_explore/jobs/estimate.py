"""Estimates of training time: learned from the runs of this store, scaled to the speed of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jsc_explore.config import RunConfig
from jsc_explore.jobs import calibration
from jsc_explore.jobs.cost_model import CostModel, work_matrix
from jsc_explore.jobs.packing import MAX_REPLICAS
from jsc_explore.store import Store
from jsc_explore.store.query.grid import timings
from jsc_explore.training.backends.select import why_not_kernel

# More rows of timings make a prediction slower and no better; the ones with most runs are used.
MAX_ROWS = 1000
# Weight of a calibration, counted in runs trained here: a dozen runs outweigh a few seconds of calibration.
_CALIBRATION_WEIGHT = 5.0
# Weight of a run trained on this machine against one trained elsewhere.
_LOCAL_WEIGHT = 3.0


@dataclass(frozen=True)
class Estimate:
    """Expected ``seconds``, and the relative ``error`` that two thirds of such estimates stay within."""

    seconds: float
    error: float

    def __str__(self) -> str:
        return f"about {format_seconds(self.seconds)}, usually within {max(5, 5 * round(20 * self.error)):.0f}%"


def estimate_time(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> Estimate | None:
    """Return the expected wall time of training ``runs`` on ``workers`` processes, by default one per core.

    None if the store has no timings.
    """
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(run.stack_key, []).append(run)
    if not groups:
        return Estimate(0.0, 0.0)
    model = _load_model(store, store.version, calibration.modified_at(store.directory))
    if model is None:
        return None
    sequential: list[tuple[RunConfig, int]] = []
    stacked: list[tuple[RunConfig, int]] = []
    for group in groups.values():
        if why_not_kernel(group[0]) is None:
            # The kernel trains runs one after the other: any worker can take any of them.
            sequential += [(run, 1) for run in group]
            continue
        for start in range(0, len(group), MAX_REPLICAS):
            stack = group[start : start + MAX_REPLICAS]
            stacked.append((max(stack, key=lambda run: run.max_epochs), len(stack)))
    times = [*model.seconds(sequential, kernel=True), *model.seconds(stacked, kernel=False)]
    return Estimate(max([sum(times) / (workers or os.cpu_count() or 1), *times]), model.error)


def estimate_seconds(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> float | None:
    """Return only the seconds of ``estimate_time``."""
    estimate = estimate_time(store, runs, workers)
    return None if estimate is None else estimate.seconds


class _TimeModel:
    """A cost model for each of the two backends, scaled to this machine."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], calibration_rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = rows
        self._models: dict[bool, CostModel] = {}
        slowdown = _slowdown(rows, calibration_rows)
        for kernel in (True, False):
            # A backend that has trained nothing yet is predicted from the other's runs.
            own = [row for row in rows if row["kernel"] == kernel] or list(rows)
            times = np.array([row["seconds"] * (1.0 if row["here"] else slowdown) for row in own])
            count = np.array([row["n"] * (_LOCAL_WEIGHT if row["here"] else 1.0) for row in own], float)
            self._models[kernel] = CostModel(work_matrix(own), times, count)
        errors = self._models[sum(row["kernel"] for row in rows) * 2 >= len(rows)].errors()
        # Errors are infinite where too few rows remain to hold any out.
        self.error = float(np.quantile(errors, 2 / 3)) if np.isfinite(errors).all() else 1.0

    def seconds(self, stacks: Sequence[tuple[RunConfig, int]], *, kernel: bool) -> list[float]:
        if not stacks:
            return []
        rows = [
            {"batch_size": run.batch_size, "parameters": run.network.parameters, "epochs_run": run.max_epochs,
             **self._sizes(run)} for run, _ in stacks
        ]  # fmt: skip
        times = self._models[kernel].seconds(work_matrix(rows))
        return [float(time) * size for time, (_, size) in zip(times, stacks, strict=True)]

    def _sizes(self, run: RunConfig) -> dict[str, int]:
        """Return the numbers of jets of a stored run with the same data, or the most similar one."""
        same_data = [row for row in self._rows if row["dataset"] == run.dataset]
        same = [row for row in same_data if row["validation"] == run.validation]
        row = (same or same_data or self._rows)[0]
        return {name: row[name] for name in ("train_rows", "val_rows")}


def _slowdown(rows: Sequence[Mapping[str, Any]], calibration_rows: Sequence[Mapping[str, Any]]) -> float:
    """Return how many times longer this machine takes than those that trained the runs from elsewhere.

    The weighted median over the runs trained here and the calibration of measured time over predicted time, where
    the prediction uses the runs from elsewhere.
    """
    elsewhere = [row for row in rows if not row["here"] and row["kernel"]]
    here = [row for row in rows if row["here"] and row["kernel"]]
    measured = [*here, *calibration_rows]
    if not elsewhere or not measured:
        return 1.0
    times, count = (np.array([row[name] for row in elsewhere], float) for name in ("seconds", "n"))
    model = CostModel(work_matrix(elsewhere), times, count)
    ratios = np.array([row["seconds"] for row in measured]) / model.seconds(work_matrix(measured))
    calibration_weights = [_CALIBRATION_WEIGHT / len(calibration_rows) for _ in calibration_rows]
    weights = np.array([row["n"] for row in here] + calibration_weights, float)
    order = np.argsort(ratios)
    median = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(ratios[order][min(median, len(ratios) - 1)])


@lru_cache(maxsize=4)
def _load_model(store: Store, version: int, calibrated_at: float) -> _TimeModel | None:
    # Cached, since every live refresh asks for it. 100,000 runs have only a few hundred different rows of timings.
    rows: list[dict[str, Any]] = timings(store).to_pylist()
    most = sorted(rows, key=lambda row: (not row["here"], -row["n"]))[:MAX_ROWS]
    return _TimeModel(most, calibration.load(store.directory)) if most else None


def format_seconds(seconds: float | None) -> str:
    """Format a duration for people: 9 s, 2 min, 1.5 h."""
    if seconds is None:
        return "time not known yet"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
