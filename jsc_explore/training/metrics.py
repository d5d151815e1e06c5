"""Figures of merit from logits and labels, for many replicas at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jsc_explore.data.jets import CLASSES

N = len(CLASSES)


@dataclass(frozen=True)
class Scores:
    """What an evaluation measured: ``loss (K,) float64`` and ``confusion (K, 5, 5) int64``, true class first."""

    loss: Tensor
    confusion: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Share of jets recognised, ``(K,) float64``."""
        return self.confusion.diagonal(dim1=1, dim2=2).sum(1).double() / self.confusion.sum((1, 2))

    @property
    def recall(self) -> Tensor:
        """Share of each class's jets recognised, ``(K, 5) float64``; NaN for a class without jets."""
        return self.confusion.diagonal(dim1=1, dim2=2).double() / self.confusion.sum(2)


def confusion_counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Count ``(K, 5, 5) int64`` pairs of true and predicted class from ``(K, n, 5)`` logits and ``(n,)`` labels."""
    replicas = logits.shape[0]
    cell = labels * N + logits.argmax(2)
    offset = torch.arange(replicas, device=logits.device).unsqueeze(1) * N * N
    return torch.bincount((cell + offset).flatten(), minlength=replicas * N * N).view(replicas, N, N)


def roc_summary(scores: Tensor, is_signal: Tensor) -> tuple[float | None, float | None]:
    """Return area under the ROC curve and background rejection at 50% signal efficiency of ``(n,)`` scores.

    Tied scores share a threshold, as in scikit-learn. The rejection is 1 / false positive rate, interpolated between
    thresholds; None where it is infinite, both None where a class is missing.
    """
    signals, total = int(is_signal.sum()), is_signal.numel()
    if signals in (0, total):
        return None, None
    ordered, order = scores.sort(descending=True)
    hits = is_signal[order].double().cumsum(0)
    last_of_tie = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool, device=scores.device)])
    hits = hits[last_of_tie]
    seen = torch.arange(1, total + 1, device=scores.device)[last_of_tie]
    zero = hits.new_zeros(1)
    efficiency = torch.cat([zero, hits / signals])
    background = torch.cat([zero, (seen - hits) / (total - signals)])
    area = float(torch.trapezoid(background, efficiency))
    index = int(torch.searchsorted(efficiency, torch.tensor(0.5, dtype=torch.float64, device=scores.device)))
    low, high = float(efficiency[index - 1]), float(efficiency[index])
    share = (0.5 - low) / (high - low)
    mistaken = float(background[index - 1]) * (1 - share) + float(background[index]) * share
    return 1.0 - area, 1.0 / mistaken if mistaken > 0 else None
