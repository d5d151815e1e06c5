"""The code that runs on a Dask worker: train one stack, and answer the engine's requests meanwhile.

A worker shares no files with the engine. Points and progress are sent as Dask events, which must be small, since a
scheduler keeps the last thousand of them. Checkpoints and outcomes wait in an outbox: an event announces them, and the
engine fetches them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsc_explore.jobs import worker
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.cluster.dataset_transfer import MissingDataError

TOPIC = "jsc-explore"


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
    """Train a stack as ``jobs.worker.train`` does; return ``{"needs_data": True}`` if this machine lacks the jets."""
    from distributed import get_worker

    with _lock:
        exchange = _exchanges.setdefault(stack, _Exchange())
    try:
        return worker.train(runs, digest, checkpoints, device, _Reporter(get_worker(), stack, set(runs), exchange))
    except MissingDataError:
        return {"needs_data": True}
    finally:
        with _lock:
            _exchanges.pop(stack, None)


class _Reporter(worker.Reporter):
    """Sends points and progress as events; puts outcomes and checkpoints into the outbox and announces them."""

    def __init__(self, dask_worker: Any, stack: str, keys: set[str], exchange: _Exchange) -> None:
        super().__init__()
        self._worker, self._stack, self._keys, self._exchange = dask_worker, stack, keys, exchange
        self._task = dask_worker.get_current_task()
        self._has_outbox = False

    def is_urgent(self) -> bool:
        """Return whether checkpoints wait in the outbox."""
        return self._has_outbox

    def send_progress(self, event: dict[str, Any]) -> None:
        """Send an event that also announces the outbox."""
        self._keys = set(event["total_steps"])
        self._worker.log_event(TOPIC, {"stack": self._stack, **event, "has_outbox": self._has_outbox})
        self._has_outbox = False

    def send_outcome(self, key: str, outcome: dict[str, Any]) -> None:
        """Put an outcome into the outbox and announce it at once."""
        with _lock:
            self._exchange.outcomes[key] = outcome
            self._exchange.checkpoints.pop(key, None)
        self._worker.log_event(TOPIC, {"stack": self._stack, "has_outbox": True})

    def send_checkpoint(self, key: str, data: bytes) -> None:
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
