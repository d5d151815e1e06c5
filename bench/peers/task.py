"""The work that every way of training does alike: same weights, same jets, same order of batches, same Adam."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.models import biases_before_batch_norm, build
from jsc_explore.training.stack import batch_order

RATE = 1e-3


class AbsentError(Exception):
    """A peer cannot be measured here; the message names what is missing and how to get it."""


@dataclass(frozen=True)
class Task:
    """Replicas of one network, seeds 0 to ``replicas - 1``, on ``rows`` jets in batches of ``batch_size``."""

    model: str
    batch_size: int
    replicas: int
    rows: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; the short last one is left out, which no peer gains by."""
        return self.rows // self.batch_size

    @cached_property
    def jets(self) -> tuple[Tensor, Tensor]:
        """Features ``(rows, 16) float32``, standardised, and labels ``(rows,) int64``."""
        return _jets(self.rows)

    def run(self, seed: int) -> RunConfig:
        """Return the run that a replica is."""
        return RunConfig(
            model=self.model, batch_size=self.batch_size, seed=seed, learning_rate=RATE, scheduler="constant"
        )

    def modules(self) -> list[nn.Sequential]:
        """Build the replicas with their initial weights.

        A bias that feeds a batch norm is frozen: its gradient is rounding noise, which Adam would scale to a drift
        (docs/decisions.md), and every peer's noise is another.
        """
        modules = [build(self.run(seed).network, seed) for seed in range(self.replicas)]
        for module in modules:
            frozen = biases_before_batch_norm(module)
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name not in frozen)
        return modules

    def orders(self, steps: int) -> Tensor:
        """Draw the first ``steps`` batches of the first epoch: row numbers ``(replicas, steps, batch_size) int64``.

        Every peer draws its orders here, within the time that is measured, and of all rows.
        """
        jets = steps * self.batch_size
        drawn = [batch_order(seed, 0, self.rows)[:jets] for seed in range(self.replicas)]
        return torch.stack(drawn).view(self.replicas, steps, self.batch_size)


class Loop(Protocol):
    """A way of training, prepared for one task: compiled, allocated, the jets in memory."""

    def __init__(self, task: Task) -> None: ...

    def train(self, steps: int) -> float:
        """Train every replica from its initial weights for ``steps`` steps; return the seconds they took."""

    def weights(self) -> list[dict[str, Tensor]]:
        """Return the ``state_dict`` of each replica as the last training left it."""


@lru_cache(maxsize=2)
def _jets(rows: int) -> tuple[Tensor, Tensor]:
    part = data.split(data.load("simulated"), "mase")
    # The shipped jets, again and again where they are too few: what a step costs does not depend on their values.
    index = np.arange(rows) % len(part.train_y)
    return torch.from_numpy(part.train_x[index]), torch.from_numpy(part.train_y[index].astype(np.int64))
