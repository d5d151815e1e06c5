"""Adam, AdamW and SGD on flat ``(K, P)`` parameters: torch.optim's arithmetic, with each replica's own settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jsc_explore.config import RunConfig

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class FlatOptimizer:
    """The optimizer state of a stack. ``m`` and ``v`` are ``(K, P) float32``, ``t`` counts steps ``(K, 1) float32``.

    SGD keeps its momentum buffer in ``m``. All replicas share the kind of optimizer.
    """

    def __init__(self, runs: Sequence[RunConfig], flat: Tensor) -> None:
        self.kind = runs[0].optimizer
        self.m, self.v = torch.zeros_like(flat), torch.zeros_like(flat)
        self.t = torch.zeros(len(runs), 1, device=flat.device)
        self.weight_decay = torch.tensor([[run.weight_decay] for run in runs], device=flat.device)
        self.momentum = torch.tensor([[run.momentum] for run in runs], device=flat.device)
        self.decays = any(run.weight_decay for run in runs)

    def step(self, flat: Tensor, grad: Tensor, rate: Tensor, live: Tensor | None = None) -> None:
        """Update ``flat`` in place with gradients ``(K, P)`` at rates ``(K, 1)``.

        ``live (K, 1) bool`` leaves the replicas that are False exactly as they were (overflow in 16-bit precision).
        """
        if live is None:
            self._apply(flat, grad, rate)
            return
        before = [tensor.clone() for tensor in (flat, self.m, self.v, self.t)]
        self._apply(flat, torch.where(live, grad, 0.0), rate)
        for tensor, old in zip((flat, self.m, self.v, self.t), before, strict=True):
            tensor.copy_(torch.where(live, tensor, old))

    def select(self, keep: Tensor) -> None:
        """Drop the replicas whose row numbers are not in ``keep``."""
        for name in ("m", "v", "t", "weight_decay", "momentum"):
            setattr(self, name, getattr(self, name)[keep])

    def _apply(self, flat: Tensor, grad: Tensor, rate: Tensor) -> None:
        self.t += 1
        if self.decays:
            if self.kind == "adamw":
                flat.mul_(1 - rate * self.weight_decay)
            else:
                grad = grad + self.weight_decay * flat
        if self.kind == "sgd":
            # torch starts the buffer at the first gradient; from zero, momentum * 0 + gradient is the same.
            self.m.mul_(self.momentum).add_(grad)
            flat.sub_(rate * (grad + self.momentum * self.m))
            return
        self.m.lerp_(grad, 1 - BETA1)
        self.v.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        # In float64: 1 - 0.999**t loses four digits in float32 at small t.
        t = self.t.double()
        root = (1 - BETA2**t).sqrt().float()
        scale = (rate / (1 - BETA1**t)).float()
        flat.sub_(scale * self.m / (self.v.sqrt().div_(root).add_(EPS)))
