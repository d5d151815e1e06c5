"""A worker process on this machine: it trains the stacks that arrive over its pipe, one at a time.

The engine sends ``("train", stack, runs, digest, checkpoints, device)``, ``("warm_up", dataset, validation, digest,
device)`` and ``("cancel", stack, run_ids)``; the worker sends events, and ``("done", stack, result)`` at the end of a
stack.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

from jsc_explore.jobs import worker
from jsc_explore.jobs.cluster.dataset_transfer import MissingDataError


def serve(connection: Connection[Any, Any], niceness: int) -> None:
    """Work until the engine closes its end of the pipe, or ends, however it ends; then this process ends at once."""
    # Ctrl-C reaches the whole process group; the engine decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(niceness)
    cancelled: dict[str, set[str]] = {}
    tasks: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, cancelled, tasks), name="receive", daemon=True).start()
    while True:
        kind, *arguments = tasks.get()
        if kind == "warm_up":
            worker.warm_up(*arguments)
            continue
        stack, runs, digest, checkpoints, device = arguments
        reporter = _Reporter(connection, stack, cancelled[stack])
        try:
            result = worker.train(runs, digest, checkpoints, device, reporter)
        except MissingDataError as error:
            result = {"outcomes": {}, "error": str(error)}
        del cancelled[stack]
        _send(connection, ("done", stack, result))


def _receive(
    connection: Connection[Any, Any], cancelled: dict[str, set[str]], tasks: queue.SimpleQueue[tuple[Any, ...]]
) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        if message[0] == "cancel":
            cancelled.get(message[1], set()).update(message[2])
            continue
        if message[0] == "train":
            cancelled[message[1]] = set()
        tasks.put(message)


def _send(connection: Connection[Any, Any], message: Any) -> None:
    try:
        connection.send(message)
    except OSError:  # The engine has ended.
        os._exit(0)


class _Reporter(worker.Reporter):
    """Sends every report over the pipe at once."""

    def __init__(self, connection: Connection[Any, Any], stack: str, cancelled: set[str]) -> None:
        super().__init__()
        self._connection, self._stack, self._cancelled = connection, stack, cancelled

    def send_progress(self, event: dict[str, Any]) -> None:
        """Send an event with points and progress."""
        _send(self._connection, {"stack": self._stack, **event})

    def send_outcome(self, key: str, outcome: dict[str, Any]) -> None:
        """Send an event with the outcome."""
        _send(self._connection, {"stack": self._stack, "finished": key, "outcome": outcome})

    def send_checkpoint(self, key: str, data: bytes) -> None:
        """Send an event with the checkpoint."""
        _send(self._connection, {"stack": self._stack, "checkpoints": {key: data}})

    def cancelled_keys(self) -> set[str]:
        """Return the runs whose cancellation has arrived."""
        return set(self._cancelled)
