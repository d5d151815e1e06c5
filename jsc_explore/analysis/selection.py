"""Correct for choosing among many configs: p values of all pairs, and what the best is expected to lose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from jsc_explore.analysis.statistics import holm

# Fewer values show no spread: configs with fewer common seeds are not compared.
MIN_SEEDS = 3
LEVEL = 0.05
SPLITS = 200
# Holm needs the p values of all pairs: 0.1 s for so many configs.
MAX_HOLM_CONFIGS = 500

Metrics = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Best:
    """The best of ``n_configs`` configs that have at least ``MIN_SEEDS`` metrics.

    ``index`` is its row; ``n_similar`` others are not distinguishable from it (Holm over all pairs, 5%). Trained
    again it is expected to score ``expected_loss`` worse than the median by which it was chosen.
    """

    index: int
    n_configs: int
    n_similar: int
    expected_loss: float


def metric_table(metrics: Mapping[str, Mapping[int, float]]) -> Metrics:
    """Return ``(configs, seeds) float64`` of metrics by config and seed, NaN where a seed is missing."""
    column = {seed: place for place, seed in enumerate(sorted({seed for own in metrics.values() for seed in own}))}
    table = np.full((len(metrics), len(column)), np.nan)
    for row, own in enumerate(metrics.values()):
        for seed, value in own.items():
            table[row, column[seed]] = value
    return table


def p_values(metrics: Metrics, row: int) -> Metrics:
    """Return the two-sided p values ``(configs,)`` of the differences from one config, by Student's paired t test.

    ``metrics`` is ``(configs, seeds)`` with NaN for a missing seed; 1 with fewer than ``MIN_SEEDS`` common seeds.
    """
    differences = metrics - metrics[row]
    n = np.isfinite(differences).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(differences, axis=1) / n
        error = np.sqrt(np.nansum((differences - mean[:, None]) ** 2, axis=1) / (n - 1) / n)
        p = 2 * special.stdtr(n - 1, -np.abs(mean / error))
    return np.asarray(np.where(np.isnan(p) | (n < MIN_SEEDS), 1.0, p))


def corrected_p_values(metrics: Metrics, row: int) -> Metrics:
    """Return ``p_values`` corrected for the number of pairs of all configs: Holm, or Bonferroni for very many."""
    n = len(metrics)
    if n > MAX_HOLM_CONFIGS:
        return np.minimum(1.0, p_values(metrics, row) * (n * (n - 1) // 2))
    above = np.triu_indices(n, 1)
    corrected = np.ones((n, n))
    corrected[above] = holm(np.array([p_values(metrics, one) for one in range(n)])[above])
    return np.asarray(np.minimum(corrected, corrected.T)[row])


def find_best(metrics: Metrics, *, higher_is_better: bool) -> Best | None:
    """Return the config with the best median of ``(configs, seeds)`` metrics, NaN where a seed is missing.

    None if fewer than two configs have ``MIN_SEEDS`` metrics.
    """
    kept = np.flatnonzero(np.isfinite(metrics).sum(axis=1) >= MIN_SEEDS)
    if len(kept) < 2:
        return None
    goods = metrics[kept] * (1 if higher_is_better else -1)
    best = int(_medians(goods).argmax())
    n_similar = int((corrected_p_values(goods, best) > LEVEL).sum()) - 1
    return Best(int(kept[best]), len(kept), n_similar, expected_loss(goods))


def expected_loss(goods: Metrics) -> float:
    """Return by how much the best median of ``(configs, seeds)`` metrics is expected to exceed that of new seeds.

    Many times one half of the seeds chooses the best config and the other half measures it: the mean difference, less
    that of all configs (medians of unlike numbers of skewed values differ), is what a choice by that half loses, with
    all dependence between configs and whatever the distribution. The loss falls as the standard error does, so that of
    a choice by all seeds follows. At least 0; the higher a metric, the better.
    """
    n = goods.shape[1]
    half = (n + 1) // 2
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(n), (SPLITS, 1)), axis=1)
    losses = []
    for order in orders:
        first, second = goods[:, order[:half]], goods[:, order[half:]]
        usable = np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1)
        if usable.any():
            medians = _medians(first[usable])
            excess = medians - _medians(second[usable])
            losses.append(excess[medians.argmax()] - excess.mean())
    return max(0.0, float(np.mean(losses)) * math.sqrt(half / n)) if losses else 0.0


def _medians(metrics: Metrics) -> Metrics:
    """Return the median of each row without its NaNs, ``(rows,) float64``: ten times as fast as NumPy's."""
    rows, n = np.arange(len(metrics)), np.isfinite(metrics).sum(axis=1)
    ordered = np.sort(metrics, axis=1)  # NaN is sorted to the end.
    return np.asarray((ordered[rows, (n - 1) // 2] + ordered[rows, n // 2]) / 2)
