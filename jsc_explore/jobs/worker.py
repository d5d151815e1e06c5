"""The code of a worker process, here or on a cluster: load the jets, train one stack, report to the engine."""

from __future__ import annotations

import logging
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.jobs.cluster.dataset_transfer import MissingDataError, load_split
from jsc_explore.results import Outcome, Point
from jsc_explore.training.callbacks import Callback, CollectingCallback

# What the process that local workers are forked from loads, as JSON: data set, validation, whether with the kernel.
PRELOAD = "JSC_EXPLORE_PRELOAD"
# Seconds between two progress events of a stack.
PROGRESS_INTERVAL_S = 0.2


class Reporter(Callback, ABC):
    """Sends what a stack reports to the engine; subclasses know how. All calls come from the training thread."""

    def __init__(self) -> None:
        self.outcomes: dict[str, dict[str, Any]] = {}
        self._points: list[tuple[str, Point]] = []
        self._sent_at = 0.0

    def on_point(self, key: str, point: Point) -> None:
        """Keep a point until the next progress event, so that all points of a stack are sent together."""
        self._points.append((key, point))

    def on_progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Send new points and steps: at once if something waits, else every ``PROGRESS_INTERVAL_S``."""
        now = time.monotonic()
        if self._points or self.is_urgent() or now - self._sent_at > PROGRESS_INTERVAL_S:
            self._sent_at = now
            total = dict(zip(keys, total_steps, strict=True))
            self.send_progress({"points": self._points, "step": step, "total_steps": total})
            self._points = []

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Send the outcome at once; ``train`` returns it again, in case the message is lost."""
        self.outcomes[key] = asdict(outcome)
        self.send_outcome(key, self.outcomes[key])

    def is_urgent(self) -> bool:
        """Return whether the next progress must be sent at once."""
        return False

    @abstractmethod
    def send_progress(self, event: dict[str, Any]) -> None:
        """Send points, step and total steps by run id."""

    @abstractmethod
    def send_outcome(self, key: str, outcome: dict[str, Any]) -> None:
        """Send the outcome of a run that ended."""

    @abstractmethod
    def send_checkpoint(self, key: str, data: bytes) -> None:
        """Send a checkpoint of a run."""


class _Checkpoints(dict[str, bytes]):
    """The checkpoints that a stack starts from; new ones go to the reporter."""

    def __init__(self, initial: Mapping[str, bytes], reporter: Reporter) -> None:
        super().__init__(initial)
        self._reporter = reporter

    def __setitem__(self, key: str, data: bytes) -> None:
        self._reporter.send_checkpoint(key, data)


def train(
    runs: Mapping[str, dict[str, Any]], digest: str, checkpoints: Mapping[str, bytes], device: str, reporter: Reporter
) -> dict[str, Any]:
    """Train a stack on the jets with this digest, from ``checkpoints`` by run id where there are any.

    Return ``{"outcomes": {run_id: ...}}``, after an exception with its traceback as ``"error"`` beside the outcomes so
    far. Raises MissingDataError if this machine lacks the jets; then nothing was trained.
    """
    try:
        configs = {run_id: RunConfig.from_dict(values) for run_id, values in runs.items()}
        first = next(iter(configs.values()))
        _configure_process()
        data = _load_data(first.dataset, first.validation, digest, device)
        from jsc_explore.training.trainer import train_stack

        train_stack(configs, data, reporter, device=device, checkpoints=_Checkpoints(checkpoints, reporter))
    except MissingDataError:
        raise
    except Exception:
        return {"outcomes": reporter.outcomes, "error": traceback.format_exc()}
    return {"outcomes": reporter.outcomes}


def warm_up(dataset: str, validation: str, digest: str, device: str) -> None:
    """Import everything, load the data and train briefly, so that the first request starts at once."""
    _configure_process()
    from jsc_explore.training.trainer import train_stack

    try:
        few = _load_data(dataset, validation, digest, device).head(2000)
    except MissingDataError:  # The first stack that needs them reports it.
        return
    train_stack({"warm": RunConfig(max_epochs=1)}, few, CollectingCallback(), device=device)


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
