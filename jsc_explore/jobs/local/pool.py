"""Local pool: worker processes on this machine that are forked when a stack needs one and end when they are idle."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from jsc_explore.jobs.engine.preload import start_fork_server, stop_fork_server
from jsc_explore.jobs.local import worker

log = logging.getLogger("jsc_explore.engine")
# Bulk training yields to the app and to interactive training on the same cores.
BULK_NICENESS, INTERACTIVE_NICENESS = 12, 6
# A worker without a stack ends after this time: it has 55 MB of its own, and the next one is forked in 0.1 s.
IDLE_S = 60.0
# Processes beyond one per core, for sessions that have none, on a machine with this memory for each.
MAX_EXTRA, _EXTRA_BYTES = 8, 1 << 30
_END_TIMEOUT_S = 5.0


@dataclass(eq=False)
class Task:
    """A stack in a worker: the result of ``jobs.worker.train``, or why the stack was lost."""

    stack: str
    result: dict[str, Any] | None = None
    lost: str = ""


@dataclass(eq=False)
class _Worker:
    name: str
    bulk: bool
    process: BaseProcess
    connection: Connection[Any, Any]
    task: Task | None
    idle_since: float
    listener: threading.Thread = field(init=False)


class LocalPool:
    """Trains stacks in processes of this machine, by default one per core.

    Bulk stacks take at most ``workers`` processes. Interactive stacks may take up to ``extra`` more, by default one to
    ``MAX_EXTRA`` by the memory of the machine: the operating system shares the cores, and nobody waits for a worker.
    Only the engine's thread may call the methods.
    """

    def __init__(self, workers: int | None = None, *, extra: int | None = None) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.workers = workers or os.cpu_count() or 1
        self._extra = min(MAX_EXTRA, max(1, memory // _EXTRA_BYTES)) if extra is None else extra
        self._context = multiprocessing.get_context("forkserver")
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._started = 0
        self._forked_at = time.monotonic()
        self._on_event: Callable[[dict[str, Any]], None] = lambda _: None

    def start(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        """Start the process from which workers are forked; ``on_event`` receives the workers' events."""
        self._on_event = on_event
        start_fork_server()

    def warm_up(self, dataset: str, validation: str, digest: str, device: str) -> None:
        """Fork a worker that warms up, so that the first click finds one; stacks may be submitted meanwhile."""
        try:
            self._send(self._fork(bulk=not self._extra), ("warm_up", dataset, validation, digest, device))
        except (OSError, EOFError) as error:
            log.warning("a worker cannot be started (%s)", error)

    def update(self) -> str:
        """End workers that were idle for a minute; return a problem in one line, here always an empty text."""
        now = time.monotonic()
        with self._lock:
            idle = [one for one in self._workers if one.task is None and now - one.idle_since > IDLE_S]
            self._workers = [one for one in self._workers if one not in idle]
        for one in idle:
            one.process.terminate()
        return ""

    def keep_ready(self, is_visited: bool) -> None:
        """Keep the process from which workers are forked while somebody looks at a page; later, end it when it is idle.

        Without it the next worker waits for its imports, and the engine takes 370 MB less.
        """
        if is_visited:
            start_fork_server()
        elif not self._workers and time.monotonic() - self._forked_at > IDLE_S:
            stop_fork_server()

    @property
    def gpu_stacks(self) -> int:
        """The number of stacks that may share the memory of a GPU."""
        return self.workers + self._extra

    def free_slots(self, bulk: bool) -> int:
        """Return how many bulk or interactive stacks may be submitted now."""
        with self._lock:
            busy = sum(one.task is not None for one in self._workers)
        return max(0, self.workers + (0 if bulk else self._extra) - busy)

    def submit(
        self, stack: str, runs: dict[str, dict[str, Any]], digest: str, checkpoints: dict[str, bytes], device: str,
        *, bulk: bool,
    ) -> Task:  # fmt: skip
        """Start a stack from ``checkpoints`` by run id, in an idle worker or a new one.

        If no worker can be started, the stack is lost.
        """
        task = Task(stack)
        with self._lock:
            chosen = next((one for one in self._workers if one.task is None and one.bulk == bulk), None)
            if chosen is not None:
                chosen.task = task
        if chosen is None:
            try:
                chosen = self._fork(bulk, task)
            except (OSError, EOFError) as error:
                task.lost = f"a worker cannot be started ({error})"
                return task
        self._send(chosen, ("train", stack, runs, digest, checkpoints, device))
        return task

    def cancel(self, task: Task, run_ids: Sequence[str]) -> None:
        """Cancel these runs of a stack."""
        for one in list(self._workers):
            if one.task is task:
                self._send(one, ("cancel", task.stack, list(run_ids)))

    def is_done(self, task: Task) -> bool:
        """Return whether a stack has ended or is lost."""
        return bool(task.lost) or task.result is not None

    def result(self, task: Task) -> dict[str, Any]:
        """Return a finished stack's result of ``worker.train``; ``"lost"`` gives the reason if there is none."""
        return task.result if task.result is not None else {"outcomes": {}, "lost": task.lost}

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            workers, self._workers = self._workers, []
        for one in workers:
            one.process.terminate()
        for one in workers:
            one.listener.join(_END_TIMEOUT_S)
            if one.listener.is_alive():
                one.process.kill()

    def _send(self, one: _Worker, message: tuple[Any, ...]) -> None:
        try:
            one.connection.send(message)
        except OSError:  # It has just ended; the thread that listens to it marks its stack as lost.
            log.debug("worker %s ended before a message", one.name)

    def _fork(self, bulk: bool, task: Task | None = None) -> _Worker:
        self._started, self._forked_at = self._started + 1, time.monotonic()
        name = f"{'bulk' if bulk else 'interactive'}-{self._started}"
        own, other = self._context.Pipe()
        niceness = BULK_NICENESS if bulk else INTERACTIVE_NICENESS
        process = self._context.Process(target=worker.serve, args=(other, niceness), name=name, daemon=True)
        process.start()
        other.close()
        made = _Worker(name, bulk, process, own, task, time.monotonic())
        with self._lock:
            self._workers.append(made)
        made.listener = threading.Thread(target=self._listen, args=(made,), name=f"listen-{name}", daemon=True)
        made.listener.start()
        return made

    def _listen(self, one: _Worker) -> None:
        """Forward the events of a worker until its end of the pipe is closed, and note the results of its stacks."""
        while True:
            try:
                message = one.connection.recv()
            except (EOFError, OSError):
                break
            if isinstance(message, dict):
                self._on_event(message)
                continue
            with self._lock:
                task, one.task, one.idle_since = one.task, None, time.monotonic()
            if task is not None:
                task.result = message[2]
        one.process.join()
        one.connection.close()
        with self._lock:
            if one in self._workers:
                self._workers.remove(one)
            if one.task is not None:
                one.task.lost = f"worker {one.name} ended with exit code {one.process.exitcode}"
