"""Smoothing of a curve for the eye; the raw curve stays beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Return the exponential moving average of a curve, without the bias of its beginning.

    ``weight`` in [0, 1) is the share of the past; 0 returns the values. As in Kingma and Ba, arXiv:1412.6980,
    section 3, and TensorBoard's scalar charts.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight = {weight}: must lie in [0, 1)")
    raw = np.asarray(values, dtype=float)
    smoothed, past = np.empty_like(raw), 0.0
    for i, value in enumerate(raw):
        past = weight * past + (1 - weight) * value
        smoothed[i] = past / (1 - weight ** (i + 1))
    return [float(value) for value in smoothed]
