"""How long a training will take, learned from the runs of this store."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jsc_explore.config import RunConfig
from jsc_explore.jobs.pack import MAX_REPLICAS
from jsc_explore.store import Store
from jsc_explore.store.slices import timings


def expected_seconds(store: Store, runs: Sequence[RunConfig]) -> float | None:
    """Return the expected wall time of training these runs side by side; None while nothing is known.

    Takes the median time per step of the stored runs nearest in network, batch size and stack size.
    """
    if not runs:
        return 0.0
    longest = max(runs, key=lambda run: run.max_epochs)
    known = _known(store, store.version)
    if not known:
        return None
    parameters = longest.network.parameters

    def distance(row: dict[str, Any]) -> float:
        batch, network = row["batch_size"] / longest.batch_size, row["parameters"] / parameters
        return abs(math.log(batch)) + 2 * abs(math.log(network)) + abs(math.log(row["stack_size"] / len(runs)))

    nearest = min(map(distance, known))
    near = [row for row in known if distance(row) <= nearest + 1e-9]
    per_step = float(np.median([row["step_s"] for row in near]))
    rows = [r["train_rows"] for r in known if (r["dataset"], r["protocol"]) == (longest.dataset, longest.protocol)]
    train_rows = rows[0] if rows else near[0]["train_rows"]
    steps: int = longest.max_epochs * math.ceil(train_rows / longest.batch_size)
    return per_step * steps


def expected_total(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> float | None:
    """Return the expected wall time of training runs of any kind on ``workers`` processes, by default one a core.

    Runs that may share a stack do; the stacks are spread evenly. None while nothing is known.
    """
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(run.stack_key, []).append(run)
    stacks = [group[i : i + MAX_REPLICAS] for group in groups.values() for i in range(0, len(group), MAX_REPLICAS)]
    times = [time for stack in stacks if (time := expected_seconds(store, stack)) is not None]
    if len(times) < len(stacks):
        return None
    return max([sum(times) / (workers or os.cpu_count() or 1), *times], default=0.0)


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
