"""How long a training will take, learned from the runs of this store."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jsc_explore.config import RunConfig
from jsc_explore.jobs.pack import MAX_REPLICAS
from jsc_explore.store import Store
from jsc_explore.store.slices import timings
from jsc_explore.training.choice import why_not_kernel


def expected_seconds(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> float | None:
    """Return the expected wall time of training runs of any kind on ``workers`` processes, by default one a core.

    Learned from stored runs: the median of those nearest in network and batch size that the same engine trained. None
    while nothing is known.
    """
    known = _known(store, store.version)
    pieces: list[float] = []
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(run.stack_key, []).append(run)
    if groups and not known:
        return None
    for group in groups.values():
        if why_not_kernel(group[0]) is None:
            # One after the other, each by itself: any worker takes any run.
            pieces += [_run_step(known, run, None) * _steps(known, run) for run in group]
            continue
        for start in range(0, len(group), MAX_REPLICAS):
            stack = group[start : start + MAX_REPLICAS]
            longest = max(stack, key=lambda run: run.max_epochs)
            pieces.append(_run_step(known, longest, len(stack)) * len(stack) * _steps(known, longest))
    return max([sum(pieces) / (workers or os.cpu_count() or 1), *pieces], default=0.0)


def _run_step(known: Sequence[Mapping[str, Any]], run: RunConfig, stack_size: int | None) -> float:
    """Return the seconds of one step of one run, where ``stack_size`` runs step together, or each by itself."""
    own = [row for row in known if row["kernel"] == (stack_size is None)] or known

    def distance(row: Mapping[str, Any]) -> float:
        batch, network = row["batch_size"] / run.batch_size, row["parameters"] / run.network.parameters
        size = 1.0 if stack_size is None else row["stack_size"] / stack_size
        return abs(math.log(batch)) + 2 * abs(math.log(network)) + abs(math.log(size))

    nearest = min(map(distance, own))
    return float(np.median([row["run_step_s"] for row in own if distance(row) <= nearest + 1e-9]))


def _steps(known: Sequence[Mapping[str, Any]], run: RunConfig) -> int:
    rows = [row["train_rows"] for row in known if (row["dataset"], row["protocol"]) == (run.dataset, run.protocol)]
    train_rows: int = (rows or [known[0]["train_rows"]])[0]
    return run.max_epochs * math.ceil(train_rows / run.batch_size)


@lru_cache(maxsize=4)
def _known(store: Store, version: int) -> list[dict[str, Any]]:
    # Asked at every live refresh; of a hundred thousand runs a few hundred kinds remain.
    rows: list[dict[str, Any]] = timings(store).to_pylist()
    return rows


def format_seconds(seconds: float | None) -> str:
    """Write a duration as people say it: 9 s, 2 min, 1.5 h."""
    if seconds is None:
        return "time not known yet"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
