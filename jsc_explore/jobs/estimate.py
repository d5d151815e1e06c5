"""How long a training will take, learned from the runs of this store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jsc_explore.config import RunConfig
from jsc_explore.store import Store


def expected_seconds(store: Store, runs: Sequence[RunConfig]) -> float | None:
    """Return the expected wall time of training these runs side by side; None while nothing is known.

    Takes the median time per step of the stored runs nearest in network, batch size and stack size.
    """
    if not runs:
        return 0.0
    longest = max(runs, key=lambda run: run.max_epochs)
    columns = ["stack_size", "batch_size", "dataset", "protocol", "parameters", "steps", "wall_time_s", "train_rows"]
    known = [row for row in store.runs(columns=columns).to_pylist() if row["steps"] and row["wall_time_s"]]
    if not known:
        return None
    parameters = longest.network.parameters

    def distance(row: dict[str, Any]) -> float:
        batch, network = row["batch_size"] / longest.batch_size, row["parameters"] / parameters
        return abs(math.log(batch)) + 2 * abs(math.log(network)) + abs(math.log(row["stack_size"] / len(runs)))

    nearest = min(map(distance, known))
    near = [row for row in known if distance(row) <= nearest + 1e-9]
    per_step = float(np.median([row["wall_time_s"] / row["steps"] for row in near]))
    rows = [r["train_rows"] for r in known if (r["dataset"], r["protocol"]) == (longest.dataset, longest.protocol)]
    train_rows = rows[0] if rows else near[0]["train_rows"]
    steps: int = longest.max_epochs * math.ceil(train_rows / longest.batch_size)
    return per_step * steps


def format_seconds(seconds: float | None) -> str:
    """Write a duration as people say it: 9 s, 2 min, 1.5 h."""
    if seconds is None:
        return "time not known yet"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
