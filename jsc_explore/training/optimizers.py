"""Adam, AdamW and SGD on flat ``(K, P)`` parameters: torch.optim's arithmetic, with each replica's own settings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc_explore.config import RunConfig

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class FlatOptimizer:
    """The optimizer state of K replicas: ``m`` and ``v (K, P) float32``, step counts ``t (K, 1) float32``.

    ``m`` is the momentum buffer of SGD. All replicas have the same kind of optimizer.
    """

    def __init__(self, runs: Sequence[RunConfig], flat: Tensor) -> None:
        self.kind = runs[0].optimizer
        self.m, self.v = torch.zeros_like(flat), torch.zeros_like(flat)
        self.t = torch.zeros(len(runs), 1, device=flat.device)
        self.weight_decay = torch.tensor([[run.weight_decay] for run in runs], device=flat.device)
        self.momentum = torch.tensor([[run.momentum] for run in runs], device=flat.device)

    def select(self, keep: Tensor) -> None:
        """Keep only the replicas in these rows."""
        for name in ("m", "v", "t", "weight_decay", "momentum"):
            setattr(self, name, getattr(self, name)[keep])


class Moments(NamedTuple):
    """The state that an optimizer step changes: parameters, ``m`` and ``v`` ``(K, P)``, step counts ``t (K, 1)``."""

    flat: Tensor
    m: Tensor
    v: Tensor
    t: Tensor


def bias_corrections(t: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ``1 - BETA1**t`` and ``1 / sqrt(1 - BETA2**t)`` for step numbers ``t`` from 1.

    In float64: 1 - 0.999**t loses four digits in float32 at small t.
    """
    first, second = _bias_corrections()
    return first[np.minimum(t, len(first) - 1)], second[np.minimum(t, len(second) - 1)]


@lru_cache(maxsize=1)
def _bias_corrections() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # As many terms as differ from the limit in float64; the term of step 0 is never used.
    first, second = 1 - BETA1 ** np.arange(400.0), 1 - BETA2 ** np.arange(1, 40_000.0)
    return first, np.append(np.inf, 1 / np.sqrt(second))


def step(kind: str, decay: Tensor, momentum: Tensor, state: Moments, grad: Tensor, rate: Tensor) -> Moments:
    """Return the state after one step with gradients ``(K, P)`` and learning rates ``(K, 1)``; change nothing in place.

    ``decay (K, 1)`` is the weight decay of each replica, ``momentum (K, 1)`` that of SGD.
    """
    flat, m, v, t = state
    t = t + 1
    if kind == "adamw":
        flat = flat * (1 - rate * decay)
    else:
        grad = grad + decay * flat
    if kind == "sgd":
        # torch starts the buffer with the first gradient; starting with zero gives the same: momentum * 0 + gradient.
        m = m * momentum + grad
        return Moments(flat - rate * (grad + momentum * m), m, v, t)
    m = m.lerp(grad, 1 - BETA1)
    v = (v * BETA2).addcmul(grad, grad, value=1 - BETA2)
    # In float64: 1 - 0.999**t loses four digits in float32 at small t.
    count = t.double()
    root = (1 - BETA2**count).sqrt().float()
    scale = (rate / (1 - BETA1**count)).float()
    return Moments(flat - scale * m / (v.sqrt() / root + EPS), m, v, t)
