"""The task that every peer trains: same initial weights, same jets, same order of batches, same Adam."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import batch_order
from jsc_explore.training.models import biases_before_batch_norm, build

RATE = 1e-3


class AbsentError(Exception):
    """A peer cannot run here; the message names what is missing and how to install it."""


@dataclass(frozen=True)
class Task:
    """Replicas of one network, seeds 0 to ``replicas - 1``, on ``rows`` jets in batches of ``batch_size``."""

    model: str
    batch_size: int
    replicas: int
    rows: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; the short last batch is left out for all peers."""
        return self.rows // self.batch_size

    @cached_property
    def jets(self) -> tuple[Tensor, Tensor]:
        """Features ``(rows, 16) float32``, standardised, and labels ``(rows,) int64``."""
        return _jets(self.rows)

    def run(self, seed: int) -> RunConfig:
        """Return the config of one replica."""
        return RunConfig(
            model=self.model, batch_size=self.batch_size, seed=seed, learning_rate=RATE, scheduler="constant"
        )

    def modules(self) -> list[nn.Sequential]:
        """Build the replicas with their initial weights.

        A bias that feeds a batch norm is frozen: its gradient is rounding noise, which Adam would scale to a drift
        (docs/decisions/training.md), and the noise differs between peers.
        """
        modules = [build(self.run(seed).network, seed) for seed in range(self.replicas)]
        for module in modules:
            freeze(module)
        return modules

    def orders(self, steps: int) -> Tensor:
        """Draw the first ``steps`` batches of the first epoch: row numbers ``(replicas, steps, batch_size) int64``.

        Drawing is timed separately (``Loop.epoch_s``): it permutes all rows, whatever the number of steps.
        """
        jets = steps * self.batch_size
        drawn = [batch_order(seed, 0, self.rows)[:jets].long() for seed in range(self.replicas)]
        return torch.stack(drawn).view(self.replicas, steps, self.batch_size)


def freeze(module: nn.Module) -> None:
    """Freeze the biases that feed a batch norm."""
    frozen = biases_before_batch_norm(module)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)


class Loop(ABC):
    """A peer prepared for one task: compiled, allocated, the jets in memory.

    ``tried_steps`` are timed to plan a measurement; ``is_warm`` says that ``__init__`` has trained already.
    """

    tried_steps = 100

    def __init__(self, task: Task) -> None:
        self.task, self.modules, self.steps, self.is_warm = task, task.modules(), 1, False

    @abstractmethod
    def train(self, steps: int) -> float:
        """Train every replica from its initial weights for ``steps`` steps; return the seconds of the steps alone."""

    def weights(self) -> list[dict[str, Tensor]]:
        """Return the ``state_dict`` of each replica as the last training left it."""
        return [module.state_dict() for module in self.modules]

    def plan(self, budget_s: float) -> int:
        """Set and return the number of steps, at most an epoch, that fit into the budget; warm everything up."""
        tried = min(self.tried_steps, self.task.steps_per_epoch)
        if not self.is_warm:
            self.train(tried)
        afford = int(budget_s * tried / self.train(tried))
        self.steps = max(tried, min(afford, self.task.steps_per_epoch))
        if self.steps != tried:  # another number of steps may compile another program
            self.train(self.steps)
        return self.steps

    def epoch_s(self) -> float:
        """Measure seconds per epoch of all replicas: the planned steps scaled to an epoch, plus drawing the orders."""
        return self.draw_s() + self.train(self.steps) * self.task.steps_per_epoch / self.steps

    def draw_s(self) -> float:
        """Measure the seconds to draw the replicas' orders of one epoch."""
        begin = time.perf_counter()
        for seed in range(self.task.replicas):
            batch_order(seed, 0, self.task.rows)
        return time.perf_counter() - begin

    def close(self) -> None:
        """End processes, if any were started."""
        return


@lru_cache(maxsize=2)
def _jets(rows: int) -> tuple[Tensor, Tensor]:
    part = data.split(data.load("simulated"), "train")
    # The shipped jets, repeated if there are too few: the cost of a step does not depend on their values.
    index = np.arange(rows) % len(part.train_y)
    return torch.from_numpy(part.train_x[index]), torch.from_numpy(part.train_y[index].astype(np.int64))
