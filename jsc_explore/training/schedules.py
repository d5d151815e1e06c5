"""Learning rates per step, in NumPy, so that every backend and every test uses the same numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from jsc_explore.config import COSINE_FLOOR, RunConfig

# torch.optim.lr_scheduler.OneCycleLR's defaults.
WARMUP_SHARE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4


def learning_rates(run: RunConfig, epoch: int, steps_per_epoch: int) -> NDArray[np.float64]:
    """Return the learning rate of each step of ``epoch`` (from 0): ``(steps_per_epoch,) float64``."""
    peak = run.learning_rate
    match run.scheduler:
        case "constant":
            return np.full(steps_per_epoch, peak)
        case "cosine":
            floor = COSINE_FLOOR[run.optimizer]
            share = (1 + math.cos(math.pi * epoch / run.max_epochs)) / 2
            return np.full(steps_per_epoch, floor + (peak - floor) * share)
        case "warmup":
            if epoch > 0:
                return np.full(steps_per_epoch, peak)
            return peak * np.arange(1, steps_per_epoch + 1) / steps_per_epoch
        case "onecycle":
            steps = np.arange(steps_per_epoch, dtype=np.float64) + epoch * steps_per_epoch
            return _one_cycle(peak, steps, run.max_epochs * steps_per_epoch)
        case other:
            raise AssertionError(f"no schedule {other!r}")


def _one_cycle(peak: float, steps: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    start, end = peak / START_DIVISOR, peak / START_DIVISOR / END_DIVISOR
    top, last = max(WARMUP_SHARE * total - 1, 0.0), total - 1
    rising = _anneal(start, peak, steps / top if top > 0 else np.ones(len(steps)))
    falling = _anneal(peak, end, (steps - top) / max(last - top, 1e-12))
    return np.where(steps <= top, rising, falling)


def _anneal(start: float, end: float, share: NDArray[np.float64]) -> NDArray[np.float64]:
    return end + (start - end) / 2 * (1 + np.cos(np.pi * np.clip(share, 0, 1)))
