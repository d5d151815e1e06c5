"""What runs on a Dask worker, on whatever machine: one stack, and what the engine asks of it meanwhile.

A worker shares no file with the engine. Points and pulses go as events over the scheduler's connection, and are small,
for a scheduler keeps the last thousand. Checkpoints and outcomes are announced so, and fetched by the engine.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.cluster.dataset_transfer import AbsentError, split_of
from jsc_explore.results import Outcome, Point

TOPIC = "jsc-explore"
# How often a stack tells how far it is.
PULSE_S = 0.2


class _Box:
    """What passes between a stack and the engine while it trains: cancelled runs in, outcomes and checkpoints out."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.checkpoints: dict[str, bytes] = {}


_boxes: dict[str, _Box] = {}
_lock = threading.Lock()


def greet() -> dict[str, Any]:
    """Say which project this worker runs, and where."""
    return {**asdict(CodeVersion.own()), "host": socket.gethostname()}


def cancel(stack: str, run_ids: Sequence[str]) -> None:
    """Let these runs of a stack end, also if it has not begun."""
    with _lock:
        _boxes.setdefault(stack, _Box()).cancelled |= set(run_ids)


def fetch(stack: str) -> dict[str, Any]:
    """Hand over the outcomes and checkpoints that came since the last time."""
    with _lock:
        box = _boxes.get(stack)
        if box is None:
            return {"outcomes": {}, "checkpoints": {}}
        taken = {"outcomes": box.outcomes, "checkpoints": box.checkpoints}
        box.outcomes, box.checkpoints = {}, {}
        return taken


def train(
    stack: str, runs: dict[str, dict[str, Any]], digest: str, checkpoints: dict[str, bytes], device: str
) -> dict[str, Any]:
    """Train a stack on the jets of this digest; go on where ``checkpoints`` stand.

    Return ``{"outcomes": {run_id: ...}}``, with ``"error"``, a traceback, beside what was finished before; or
    ``{"needs": True}`` where the jets are not at hand: nothing was begun.
    """
    from distributed import get_worker

    configs = {run_id: RunConfig.from_dict(values) for run_id, values in runs.items()}
    first = next(iter(configs.values()))
    with _lock:
        box = _boxes.setdefault(stack, _Box())
    reporter = _Reporter(get_worker(), stack, set(configs), box)
    try:
        _quiet()
        data = _data(first.dataset, first.validation, digest, device)
        from jsc_explore.training.trainer import train_stack

        train_stack(configs, data, reporter, device=device, checkpoints=_Saved(checkpoints, reporter))
    except AbsentError:
        return {"needs": True}
    except Exception:
        return {"outcomes": reporter.outcomes, "error": traceback.format_exc()}
    finally:
        with _lock:
            _boxes.pop(stack, None)
    return {"outcomes": reporter.outcomes}


def warm(niceness: int, dataset: str, validation: str, digest: str, device: str) -> None:
    """Import everything, load the data and train a little, so that the first request finds it all ready."""
    os.nice(niceness)
    _quiet()
    from jsc_explore.training.callbacks import CollectingCallback
    from jsc_explore.training.trainer import train_stack

    try:
        few = _data(dataset, validation, digest, device).head(2000)
    except AbsentError:  # They come with the first stack that wants them.
        return
    train_stack({"warm": RunConfig(max_epochs=1)}, few, CollectingCallback(), device=device)


class _Saved(dict[str, bytes]):
    """The checkpoints of a stack: those it begins with, and new ones, which are announced."""

    def __init__(self, begin: dict[str, bytes], reporter: _Reporter) -> None:
        super().__init__(begin)
        self._reporter = reporter

    def __setitem__(self, key: str, data: bytes) -> None:
        self._reporter.saved(key, data)


class _Reporter:
    """Sends points and pulses as events, puts what is large into the box and says that it is there."""

    def __init__(self, worker: Any, stack: str, keys: set[str], box: _Box) -> None:
        self._worker, self._stack, self._keys, self._box = worker, stack, keys, box
        self._task = worker.get_current_task()
        self._told = 0.0
        self._points: list[tuple[str, Point]] = []
        self._mail = False
        self.outcomes: dict[str, dict[str, Any]] = {}

    def point(self, key: str, point: Point) -> None:
        """Keep a point until the next pulse: the points of a stack come together."""
        self._points.append((key, point))

    def progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Send what has come since, several times a second."""
        self._keys = set(keys)
        now = time.monotonic()
        if self._points or self._mail or now - self._told > PULSE_S:
            self._told = now
            totals = dict(zip(keys, total_steps, strict=True))
            event = {"points": self._points, "step": step, "totals": totals, "mail": self._mail}
            self._worker.log_event(TOPIC, {"stack": self._stack, **event})
            self._points, self._mail = [], False

    def finished(self, key: str, outcome: Outcome) -> None:
        """Announce the outcome at once; the task returns it again, in case it is lost with a connection."""
        self.outcomes[key] = asdict(outcome)
        with _lock:
            self._box.outcomes[key] = self.outcomes[key]
            self._box.checkpoints.pop(key, None)
        self._worker.log_event(TOPIC, {"stack": self._stack, "mail": True})

    def saved(self, key: str, data: bytes) -> None:
        """Put a checkpoint into the box; the coming pulse announces those of the whole stack."""
        with _lock:
            self._box.checkpoints[key] = data
        self._mail = True

    def cancelled(self) -> set[str]:
        """Return the runs that shall end: all of them when the engine that wanted them has gone or given them up."""
        task = self._worker.state.tasks.get(self._task)
        if task is None or task.state != "executing":
            return self._keys
        return self._box.cancelled


@lru_cache(maxsize=4)
def _data(dataset: str, validation: str, digest: str, device: str) -> Any:
    from jsc_explore.training.backends.base import DeviceSplit
    from jsc_explore.training.trainer import device_of

    return DeviceSplit.of(split_of(dataset, validation, digest), device_of(device))


@lru_cache(maxsize=1)
def _quiet() -> None:
    import torch

    # Tiny steps gain nothing from a second thread and wait for it; parallel work is one process a core.
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
