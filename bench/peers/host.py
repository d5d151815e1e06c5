"""Run each peer in its own process, so that threads, caches and settings of one do not disturb another."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from multiprocessing.connection import Connection

from bench.peers.task import AbsentError, Loop, Task


class Host:
    """A process that trains with one module of ``bench.peers``, one task per number of replicas. Close it when done."""

    def __init__(self, module: str) -> None:
        self.module = module
        # Read when the process imports its libraries. JAX sees one device per core and may spread replicas over them.
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.cpu_count() or 1}"
        context = multiprocessing.get_context("spawn")
        self._link, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, module))
        self._process.start()
        there.close()

    def prepare(self, task: Task, budget_s: float) -> int:
        """Prepare a task in place of the last one with as many replicas; return the steps per measurement.

        Raises AbsentError.
        """
        return int(self._request("prepare", task, budget_s))

    def epoch_s(self, replicas: int) -> float:
        """Measure seconds per epoch of all replicas together, of the task with so many replicas."""
        return self._request("epoch_s", replicas)

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self._process.join()

    def _request(self, *message: object) -> float:
        self._link.send(message)
        try:
            answer = self._link.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.module} ended; its traceback is above") from None
        if isinstance(answer, AbsentError):
            raise answer
        return float(answer)


def _serve(link: Connection, module: str) -> None:
    make: type[Loop] = importlib.import_module(f"bench.peers.{module}").Loop
    loops: dict[int, Loop] = {}
    try:
        while True:
            message, *values = link.recv()
            if message == "epoch_s":
                link.send(loops[values[0]].epoch_s())
                continue
            task, budget_s = values
            if task.replicas in loops:
                loops.pop(task.replicas).close()
            try:
                loops[task.replicas] = make(task)
                link.send(loops[task.replicas].plan(budget_s))
            except AbsentError as error:
                link.send(error)
    except EOFError:
        for loop in loops.values():
            loop.close()
