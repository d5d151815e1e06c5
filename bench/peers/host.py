"""Each way of training in a process of its own, so that no threads, caches or settings of one disturb another."""

from __future__ import annotations

import importlib
import multiprocessing
import os
from multiprocessing.connection import Connection

from bench.peers.task import AbsentError, Loop, Task


class Host:
    """A process that trains in one way, a module of ``bench.peers``. Close it when done."""

    def __init__(self, way: str) -> None:
        self.way = way
        # Read when the libraries are imported over there. JAX sees a device a core, and may spread replicas over them.
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={os.cpu_count() or 1}"
        context = multiprocessing.get_context("spawn")
        self._link, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, way))
        self._process.start()
        there.close()

    def prepare(self, task: Task, budget_s: float) -> int:
        """Get ready for a task; return the steps that each measurement takes. Raises AbsentError."""
        return int(self._ask("prepare", task, budget_s))

    def epoch_s(self) -> float:
        """Measure seconds per epoch of the task's replicas together."""
        return self._ask("epoch_s")

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self._process.join()

    def _ask(self, *question: object) -> float:
        self._link.send(question)
        try:
            answer = self._link.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self.way} ended; its traceback is above") from None
        if isinstance(answer, AbsentError):
            raise answer
        return float(answer)


def _serve(link: Connection, way: str) -> None:
    make: type[Loop] = importlib.import_module(f"bench.peers.{way}").Loop
    loop: Loop | None = None
    try:
        while True:
            question, *values = link.recv()
            if question == "epoch_s" and loop is not None:
                link.send(loop.epoch_s())
                continue
            task, budget_s = values
            if loop is not None:
                loop.close()
            try:
                loop = make(task)
                link.send(loop.plan(budget_s))
            except AbsentError as error:
                link.send(error)
    except EOFError:
        if loop is not None:
            loop.close()
