"""Statistics of seeds and curves: medians, intervals of a median and of a rate, correction for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special

# Fewer values have no interval of their median: the range of four covers 87.5%.
MIN_INTERVAL_SEEDS = 5


def median_spread(values: npt.ArrayLike, confidence: float = 0.95) -> tuple[Any, Any]:
    """Return the ends of what is shown with the median of ``(..., n)`` values: its interval, for n < 5 their range.

    The interval is that of the median of the population. It lies between order statistics, so that it holds for any
    distribution, with two humps, too, where Student's covers as little as 42% (`python -m bench statistics`). Of five
    values it is their range, which covers 93.75%; the range of fewer claims nothing.
    Source: Hettmansperger and Sheather, Statistics and Probability Letters 4 (1986) 75.
    """
    ordered = np.sort(np.asarray(values, float), axis=-1)
    n = ordered.shape[-1]
    if n < MIN_INTERVAL_SEEDS:
        return ordered[..., 0], ordered[..., -1]
    rank, share = _ranks(n, confidence)
    low = (1 - share) * ordered[..., rank - 1] + share * ordered[..., rank]
    high = (1 - share) * ordered[..., n - rank] + share * ordered[..., n - rank - 1]
    return low, high


def summarize(lists: pa.ChunkedArray, *, interval: bool = True) -> dict[str, npt.NDArray[np.float64]]:
    """Return ``median``, ``low`` and ``high`` of each list of numbers, ``(rows,) float64``; NaN for an empty one.

    ``low`` and ``high`` are those of ``median_spread``, or without ``interval`` the range.
    """
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    values = pc.list_flatten(lists).to_numpy()
    first = np.cumsum(counts) - counts
    found = {name: np.full(len(counts), np.nan) for name in ("median", "low", "high")}
    for n in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == n)
        own = values[first[rows, None] + np.arange(n)]
        found["median"][rows] = np.median(own, axis=1)
        found["low"][rows], found["high"][rows] = median_spread(own) if interval else (own.min(1), own.max(1))
    return found


@lru_cache(maxsize=256)
def _ranks(n: int, confidence: float) -> tuple[int, float]:
    """Return the rank, from 1, of the outer order statistic, and the share of the next one inside."""
    below = special.bdtr(np.arange(n + 1), n, 0.5)
    rank = max(1, int(np.searchsorted(below, (1 - confidence) / 2)))
    outer, inner = (1 - 2 * float(below[at - 1]) for at in (rank, rank + 1))
    part = max(0.0, (outer - confidence) / (outer - inner))
    return rank, (n - rank) * part / (rank + (n - 2 * rank) * part)


@lru_cache(maxsize=4096)
def proportion_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact confidence interval of a rate seen as ``count`` of ``n``.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404, its ends as quantiles of the beta distribution.
    """
    tail = (1 - confidence) / 2
    low = special.betaincinv(count, n - count + 1, tail) if count else 0.0
    high = special.betaincinv(count + 1, n - count, 1 - tail) if count < n else 1.0
    return float(low), float(high)


def holm(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the p values ``(n,)`` corrected for their number: at most 5% of such families have a false one below 0.05.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    values = np.asarray(p, float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return corrected


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Return the exponential moving average of a curve, corrected for the bias of its start.

    ``weight`` in [0, 1) is the share of the past; 0 returns the values. ValueError for another weight. As in Kingma
    and Ba, arXiv:1412.6980, section 3, and TensorBoard's scalar charts.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight = {weight}: must lie in [0, 1)")
    raw = np.asarray(values, dtype=float)
    smoothed, past = np.empty_like(raw), 0.0
    for i, value in enumerate(raw):
        past = weight * past + (1 - weight) * value
        smoothed[i] = past / (1 - weight ** (i + 1))
    return [float(value) for value in smoothed]
