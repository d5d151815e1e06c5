"""This project as a peer: ``train_stack``, the engine's own entry point, in as many processes as the engine would use.

The only file of the benchmark that depends on how the project trains.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

import numpy as np
import torch
from safetensors.torch import load

from bench.peers import task
from bench.peers.task import Task
from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.jobs.packing import pack
from jsc_explore.jobs.queue import BULK, Job
from jsc_explore.results import Outcome
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.callbacks import Callback
from jsc_explore.training.trainer import train_stack

# Rows evaluated at each point. The peers evaluate nothing; this project cannot train without points.
_EVALUATED = 1000
# More epochs than any measurement takes.
_EPOCHS = 1000
_TRIED_STEPS, _TRIED_SHARE = 100, 0.2


class Loop(task.Loop):
    """See ``task.Loop``; processes are started for ``plan`` and end with ``close``."""

    def __init__(self, work: Task) -> None:
        super().__init__(work)
        torch.set_num_threads(1)
        self.links: list[Connection] = []
        self.processes: list[ForkServerProcess] = []

    def plan(self, budget_s: float) -> int:
        """Set and return the number of steps that fit into the budget: whole epochs, or the start of the first."""
        self._start()
        steps, epoch = _TRIED_STEPS, self.task.steps_per_epoch
        tried = self._time(steps)
        # A few steps of a small network take no longer than the progress callback: try more.
        while steps < epoch and tried.step_s * steps < _TRIED_SHARE * budget_s:
            steps = min(8 * steps, epoch)
            tried = self._time(steps)
        afford = int(budget_s / tried.step_s)
        self.steps = afford // epoch * epoch if afford >= epoch else max(_TRIED_STEPS, afford)
        return self.steps

    def epoch_s(self) -> float:
        """Measure seconds per epoch of all replicas, those of the slowest process.

        Set-up before the first progress callback (Trainer, point before the first step) is not counted. A measurement
        of whole epochs contains the drawing of the orders; where less than an epoch was timed, it is added.
        """
        timed = self._time(self.steps)
        drawn = 0.0 if timed.whole_epochs else self.draw_s() / len(self.links)
        return drawn + timed.step_s * self.task.steps_per_epoch

    def train(self, steps: int) -> float:
        """Train in this process for whole epochs, because only those return weights; return the seconds."""
        epochs, rest = divmod(steps, self.task.steps_per_epoch)
        if rest:
            raise ValueError(f"steps = {steps}: must be whole epochs of {self.task.steps_per_epoch} steps")
        timer = _Timer(None)
        runs = {str(seed): self.task.run(seed).with_(max_epochs=epochs) for seed in range(self.task.replicas)}
        begin = time.perf_counter()
        train_stack(runs, _split(self.task), timer, device="cpu")
        seconds = time.perf_counter() - begin
        for key, module in zip(runs, self.modules, strict=True):
            module.load_state_dict(load(timer.outcomes[key].weights))
        return seconds

    def close(self) -> None:
        """End the processes."""
        for link in self.links:
            link.close()
        for process in self.processes:
            process.join()

    def _start(self) -> None:
        # Forked from a server that has imported everything, as the engine's workers are: a start takes moments.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        for part in _parts([self.task.run(seed) for seed in range(self.task.replicas)]):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, self.task, part))
            process.start()
            there.close()
            self.links.append(here)
            self.processes.append(process)
        for link in self.links:
            link.recv()

    def _time(self, steps: int) -> _Timed:
        for link in self.links:
            link.send(steps)
        return max((_answer(link) for link in self.links), key=lambda timed: timed.step_s)


@dataclass(frozen=True)
class _Timed:
    """Seconds per step of all replicas of a process; with ``whole_epochs`` they include the other costs of an epoch."""

    step_s: float
    whole_epochs: bool


class _Timer(Callback):
    """A callback that times ``steps`` steps from the first progress call (or first epoch end), then cancels."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.outcomes: dict[str, Outcome] = {}
        self._keys: set[str] = set()
        self._begin: tuple[int, float] | None = None
        self._timed: _Timed | None = None

    @property
    def timed(self) -> _Timed:
        """The measurement; RuntimeError if the training ended too early."""
        if self._timed is None:
            raise RuntimeError(f"the training ended before {self.steps} steps were timed")
        return self._timed

    def on_progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Read the clock."""
        now, epoch = time.perf_counter(), total_steps[0] // _EPOCHS if total_steps else 0
        self._keys = set(keys)
        if self.steps is None or self._timed is not None or not epoch:
            return
        whole = self.steps >= epoch - 1  # the project keeps the short last batch, as the lab does
        if self._begin is None:
            if not whole or step % epoch == 0:
                self._begin = step, now
            return
        first, begin = self._begin
        if step - first >= self.steps and (not whole or step % epoch == 0):
            self._timed = _Timed((now - begin) / (step - first), whole)

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Keep the outcome of a run."""
        self.outcomes[key] = outcome

    def cancelled_keys(self) -> set[str]:
        """Return every run once the steps are timed."""
        return self._keys if self._timed is not None else set()


def _answer(link: Connection) -> _Timed:
    try:
        timed: _Timed = link.recv()
    except EOFError:
        raise RuntimeError("a training process of the project ended; its traceback is above") from None
    return timed


def _serve(link: Connection, work: Task, runs: dict[str, RunConfig]) -> None:
    torch.set_num_threads(1)
    split = _split(work)
    longer = {key: run.with_(max_epochs=_EPOCHS) for key, run in runs.items()}
    link.send("ready")
    while True:
        try:
            steps = link.recv()
        except EOFError:
            return
        timer = _Timer(steps)
        train_stack(longer, split, timer, device="cpu")
        link.send(timer.timed)


def _split(work: Task) -> DeviceSplit:
    """Place the jets in memory as a worker of the engine does."""
    x, y = (part.numpy() for part in work.jets)
    few = x[:_EVALUATED], y[:_EVALUATED]
    return DeviceSplit.of(Split(x, y, *few, *few, np.zeros(16), np.ones(16), "train", ""), torch.device("cpu"))


def _parts(runs: Sequence[RunConfig]) -> list[dict[str, RunConfig]]:
    """Divide the runs among processes as the engine does."""
    jobs = [
        Job(str(run.seed), "", run, "queued", BULK, 1, False, 0, 0, float(run.seed), None, None, None) for run in runs
    ]
    plans = pack(jobs, os.cpu_count() or 1)
    return [{job.run_id: job.config for job in plan.jobs} for plan in plans]
