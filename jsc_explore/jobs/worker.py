"""What runs on a Dask worker: one stack, its events sent back over the scheduler's connection."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.record import Outcome, Point

TOPIC = "jsc-explore"
# How often a stack asks whether to end, and tells how far it is. A question costs a round trip to the scheduler.
PULSE_S = 0.2


def cancel_variable(stack: str) -> str:
    """Return the name of the Dask variable that lists the runs of a stack to be cancelled."""
    return f"cancel-{stack}"


def train(stack: str, runs: dict[str, dict[str, Any]], checkpoints: str | None, device: str) -> dict[str, Any]:
    """Train a stack; return ``{"outcomes": {run_id: ...}}`` or ``{"error": traceback}`` beside what was finished."""
    from distributed import get_worker

    from jsc_explore.training.train import train_stack

    configs = {run_id: RunConfig.from_dict(values) for run_id, values in runs.items()}
    reporter = _Reporter(get_worker(), stack)
    first = next(iter(configs.values()))
    try:
        _quiet()
        where = Path(checkpoints) if checkpoints else None
        train_stack(configs, _data(first.dataset, first.protocol, device), reporter, device=device, checkpoints=where)
    except Exception:
        return {"outcomes": reporter.outcomes, "error": traceback.format_exc()}
    return {"outcomes": reporter.outcomes}


def warm(niceness: int, dataset: str, protocol: str, device: str) -> str:
    """Import everything, load the data and train a little, so that the first request finds it all ready."""
    os.nice(niceness)
    _quiet()
    from jsc_explore.training.train import train_stack

    few = _data(dataset, protocol, device).head(2000)
    train_stack({"warm": RunConfig(max_epochs=1)}, few, _Silent(), device=device)
    return str(few.train_x.device)


class _Silent:
    """An observer that wants nothing: what is trained to warm up is thrown away."""

    def point(self, key: str, point: Point) -> None:
        pass

    def progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        pass

    def finished(self, key: str, outcome: Outcome) -> None:
        pass

    def cancelled(self) -> set[str]:
        return set()


class _Reporter:
    """Sends points and pulses as events, and asks now and then which runs are cancelled."""

    def __init__(self, worker: Any, stack: str) -> None:
        from distributed import Variable

        self._worker, self._stack = worker, stack
        self._variable = Variable(cancel_variable(stack))
        self._asked = self._told = 0.0
        self._points: list[tuple[str, Point]] = []
        self.outcomes: dict[str, dict[str, Any]] = {}

    def point(self, key: str, point: Point) -> None:
        """Keep a point until the next pulse: the points of a stack come together."""
        self._points.append((key, point))

    def progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Send what has come since, several times a second."""
        now = time.monotonic()
        if self._points or now - self._told > PULSE_S:
            self._told = now
            totals = dict(zip(keys, total_steps, strict=True))
            self._worker.log_event(
                TOPIC, {"stack": self._stack, "points": self._points, "step": step, "totals": totals}
            )
            self._points = []

    def finished(self, key: str, outcome: Outcome) -> None:
        """Send the outcome at once; the task returns it again, in case the event is lost with a connection."""
        self.outcomes[key] = asdict(outcome)
        self._worker.log_event(TOPIC, {"stack": self._stack, "finished": key, "outcome": self.outcomes[key]})

    def cancelled(self) -> set[str]:
        """Return the runs that shall end."""
        now = time.monotonic()
        if now - self._asked < PULSE_S:
            return set()
        self._asked = now
        try:
            return set(self._variable.get(timeout="10s"))
        except TimeoutError:
            # A scheduler too busy to answer is no reason to lose the training; the next pulse asks again.
            return set()


@lru_cache(maxsize=4)
def _data(dataset: str, protocol: str, device: str) -> Any:
    from jsc_explore import data
    from jsc_explore.training.replicas import DeviceSplit
    from jsc_explore.training.train import device_of

    return DeviceSplit.of(data.split(data.load(dataset), protocol), device_of(device))


@lru_cache(maxsize=1)
def _quiet() -> None:
    import torch

    # Tiny steps gain nothing from a second thread and wait for it; parallel work is one process a core.
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
