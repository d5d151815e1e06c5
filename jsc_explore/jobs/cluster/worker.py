"""The code that runs on a Dask worker: train one stack, and answer the engine's requests meanwhile.

A worker shares no files with the engine. Points and progress are sent as Dask events, which must be small, since a
scheduler keeps the last thousand of them. Checkpoints and outcomes wait in an outbox: an event announces them, and the
engine fetches them.
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
from jsc_explore.jobs.cluster.dataset_transfer import MissingDataError, load_split
from jsc_explore.results import Outcome, Point
from jsc_explore.training.callbacks import Callback, CollectingCallback

TOPIC = "jsc-explore"
# Seconds between two progress events of a stack.
PROGRESS_INTERVAL_S = 0.2


class _Exchange:
    """Data exchanged with the engine while a stack trains: cancelled runs in, outcomes and checkpoints out."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.checkpoints: dict[str, bytes] = {}


_exchanges: dict[str, _Exchange] = {}
_lock = threading.Lock()


def describe() -> dict[str, Any]:
    """Return the code version and the host name of this worker."""
    return {**asdict(CodeVersion.own()), "host": socket.gethostname()}


def cancel(stack: str, run_ids: Sequence[str]) -> None:
    """Cancel these runs of a stack, which may not have started yet."""
    with _lock:
        _exchanges.setdefault(stack, _Exchange()).cancelled |= set(run_ids)


def fetch(stack: str) -> dict[str, Any]:
    """Empty a stack's outbox and return its outcomes and checkpoints, each by run id."""
    with _lock:
        exchange = _exchanges.get(stack)
        if exchange is None:
            return {"outcomes": {}, "checkpoints": {}}
        content = {"outcomes": exchange.outcomes, "checkpoints": exchange.checkpoints}
        exchange.outcomes, exchange.checkpoints = {}, {}
        return content


def train(
    stack: str, runs: dict[str, dict[str, Any]], digest: str, checkpoints: dict[str, bytes], device: str
) -> dict[str, Any]:
    """Train a stack on the jets with this digest, from ``checkpoints`` by run id where there are any.

    Return ``{"outcomes": {run_id: ...}}``, after an exception with its traceback as ``"error"`` beside the outcomes so
    far; or ``{"needs_data": True}`` if this machine lacks the jets and nothing was trained.
    """
    from distributed import get_worker

    configs = {run_id: RunConfig.from_dict(values) for run_id, values in runs.items()}
    first = next(iter(configs.values()))
    with _lock:
        exchange = _exchanges.setdefault(stack, _Exchange())
    reporter = _Reporter(get_worker(), stack, set(configs), exchange)
    try:
        _configure_process()
        data = _load_data(first.dataset, first.validation, digest, device)
        from jsc_explore.training.trainer import train_stack

        train_stack(configs, data, reporter, device=device, checkpoints=_Checkpoints(checkpoints, reporter))
    except MissingDataError:
        return {"needs_data": True}
    except Exception:
        return {"outcomes": reporter.outcomes, "error": traceback.format_exc()}
    finally:
        with _lock:
            _exchanges.pop(stack, None)
    return {"outcomes": reporter.outcomes}


def warm_up(niceness: int, dataset: str, validation: str, digest: str, device: str) -> None:
    """Import everything, load the data and train briefly, so that the first request starts at once."""
    os.nice(niceness)
    _configure_process()
    from jsc_explore.training.trainer import train_stack

    try:
        few = _load_data(dataset, validation, digest, device).head(2000)
    except MissingDataError:  # The first stack that needs them has them sent.
        return
    train_stack({"warm": RunConfig(max_epochs=1)}, few, CollectingCallback(), device=device)


class _Checkpoints(dict[str, bytes]):
    """The checkpoints that a stack starts from; new ones go to the reporter."""

    def __init__(self, initial: dict[str, bytes], reporter: _Reporter) -> None:
        super().__init__(initial)
        self._reporter = reporter

    def __setitem__(self, key: str, data: bytes) -> None:
        self._reporter.add_checkpoint(key, data)


class _Reporter(Callback):
    """Sends points and progress as events; puts outcomes and checkpoints into the outbox and announces them."""

    def __init__(self, worker: Any, stack: str, keys: set[str], exchange: _Exchange) -> None:
        self._worker, self._stack, self._keys, self._exchange = worker, stack, keys, exchange
        self._task = worker.get_current_task()
        self._sent_at = 0.0
        self._points: list[tuple[str, Point]] = []
        self._has_outbox = False
        self.outcomes: dict[str, dict[str, Any]] = {}

    def on_point(self, key: str, point: Point) -> None:
        """Keep a point until the next progress event, so that all points of a stack are sent together."""
        self._points.append((key, point))

    def on_progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Send new points and steps: at once if there are points or an outbox, else every ``PROGRESS_INTERVAL_S``."""
        self._keys = set(keys)
        now = time.monotonic()
        if self._points or self._has_outbox or now - self._sent_at > PROGRESS_INTERVAL_S:
            self._sent_at = now
            total = dict(zip(keys, total_steps, strict=True))
            event = {"points": self._points, "step": step, "total_steps": total, "has_outbox": self._has_outbox}
            self._worker.log_event(TOPIC, {"stack": self._stack, **event})
            self._points, self._has_outbox = [], False

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Announce the outcome at once; the task returns it again, in case the connection is lost."""
        self.outcomes[key] = asdict(outcome)
        with _lock:
            self._exchange.outcomes[key] = self.outcomes[key]
            self._exchange.checkpoints.pop(key, None)
        self._worker.log_event(TOPIC, {"stack": self._stack, "has_outbox": True})

    def add_checkpoint(self, key: str, data: bytes) -> None:
        """Put a checkpoint into the outbox; the next progress event announces those of the whole stack."""
        with _lock:
            self._exchange.checkpoints[key] = data
        self._has_outbox = True

    def cancelled_keys(self) -> set[str]:
        """Return the cancelled runs: all runs once the engine is gone or has released this Dask task."""
        task = self._worker.state.tasks.get(self._task)
        if task is None or task.state != "executing":
            return self._keys
        return self._exchange.cancelled


@lru_cache(maxsize=4)
def _load_data(dataset: str, validation: str, digest: str, device: str) -> Any:
    from jsc_explore.training.backends.base import DeviceSplit
    from jsc_explore.training.trainer import resolve_device

    return DeviceSplit.of(load_split(dataset, validation, digest), resolve_device(device))


@lru_cache(maxsize=1)
def _configure_process() -> None:
    import torch

    # Small steps gain nothing from a second thread and wait for it; the parallelism is one process per core.
    torch.set_num_threads(1)
    logging.getLogger("lightning").setLevel(logging.ERROR)
