"""How close two sets of jets are: moments, Kolmogorov-Smirnov distances, total variation, a discriminator's AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

ALL = "all"
_FOLDS = 5
_SEED = 0
# Below this many jets a split into folds is a lottery of its own; the mean over several splits evens it out.
_FEW, _REPEATS = 5_000, 5


def ks_distance(sample: Array, other: Array) -> float:
    """Return the two-sample Kolmogorov-Smirnov distance: the largest gap between the two distribution functions."""
    sample, other = np.sort(sample), np.sort(other)
    values = np.concatenate([sample, other])
    gap = np.searchsorted(sample, values, "right") / len(sample) - np.searchsorted(other, values, "right") / len(other)
    return float(np.abs(gap).max())


def ks_to_quantiles(sample: Array, quantiles: Floats, probabilities: Floats) -> float:
    """Return the distance to a distribution of which only quantiles are known, each judged at its own value.

    Between two quantiles anything may happen, so this is too small by at most one step of ``probabilities``. A value
    that several quantiles share is an atom: there the function may be anywhere between their probabilities.
    """
    ordered = np.sort(sample)
    values, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    at = np.searchsorted(ordered, values, "right") / len(ordered)
    below = np.searchsorted(ordered, values, "left") / len(ordered)
    missing_seeds = probabilities[first + count - 1] - at
    excess = below - probabilities[first]
    return float(max(missing_seeds.max(), excess.max(), 0.0))


def total_variation(counts: Array, others: Array) -> Floats:
    """Return half the summed differences of relative frequencies, over the last axis of two arrays of counts."""
    a = counts / counts.sum(axis=-1, keepdims=True)
    b = others / others.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(a - b).sum(axis=-1) / 2, np.float64)


def level_counts(levels: Array, labels: Array, classes: int, count: int) -> npt.NDArray[np.int64]:
    """Count the jets of each class on each level of each feature: ``(classes, features, count)``."""
    features = levels.shape[1]
    place = (labels[:, None].astype(np.int64) * features + np.arange(features)) * count + levels.astype(np.int64)
    return np.bincount(place.ravel(), minlength=classes * features * count).reshape(classes, features, count)


def compare_features(
    sample: Array, labels: Array, other: Array, others: Array, features: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row per feature and class, and one for all classes: counts, means, spreads, KS distance.

    ``sample`` and ``other`` are ``(n, features)``; labels index into ``classes``.
    """
    rows = []
    for name, mine, theirs in zip(features, sample.T, other.T, strict=True):
        for index, kind in ((None, ALL), *enumerate(classes)):
            a = mine if index is None else mine[labels == index]
            b = theirs if index is None else theirs[others == index]
            moments = {"mean": a.mean(dtype=float), "reference_mean": b.mean(dtype=float)}
            moments |= {"sd": a.std(dtype=float), "reference_sd": b.std(dtype=float)}
            figures = {key: float(value) for key, value in moments.items()} | {"ks": ks_distance(a, b)}
            rows.append({"feature": name, "class": kind, "jets": len(a), "reference_jets": len(b), **figures})
    return rows


@dataclass(frozen=True)
class Discrimination:
    """What a discriminator reached: AUC of each class and their mean, with standard errors; who gave it away.

    ``importance``: by how much the mean AUC falls when a feature is permuted within its class.
    """

    auc: list[float]
    error: list[float]
    mean: float
    mean_error: float
    jets: int
    importance: dict[str, float]


def discriminate(
    sample: Array, labels: Array, other: Array, others: Array, features: Sequence[str], classes: int
) -> Discrimination:
    """Train gradient boosting to tell two sets of jets apart, given the class; cross-validated in five folds.

    One model sees features and class, and its metrics of jets it was not trained on are ranked within each class; how
    common a class is plays no part. 0.5: cannot be told apart. The error is DeLong's standard error of each class and
    fold, added in quadrature over the folds, which share no test jet: that of the jets at hand, not of the training.
    Sets of fewer than 5,000 jets are split five times anew, and the figures are the means.
    """
    from threadpoolctl import threadpool_limits

    x = np.concatenate([np.column_stack([sample, labels]), np.column_stack([other, others])]).astype(np.float32)
    is_other = np.repeat([0, 1], [len(sample), len(other)])
    repeats = _REPEATS if min(len(sample), len(other)) < _FEW else 1
    # On a busy machine two OpenMP threads wait for each other: 60 s instead of 3.
    with threadpool_limits(1):
        folds = [fold for repeat in range(repeats) for fold in _folds(x, is_other, repeat, classes)]
    auc, variance = (np.array([fold[part] for fold in folds]) for part in (0, 1))
    error = np.sqrt(variance.mean(axis=0) / _FOLDS)
    falls = np.mean([fold[2] for fold in folds if fold[2] is not None], axis=0)
    return Discrimination(
        auc=auc.mean(axis=0).tolist(),
        error=error.tolist(),
        mean=float(auc.mean()),
        mean_error=float(np.sqrt((error**2).sum()) / classes),
        jets=min(len(sample), len(other)),
        importance=dict(zip(features, falls.tolist(), strict=True)),
    )


_Fold = tuple[Floats, Floats, Floats | None]


def _folds(x: Array, is_other: Array, repeat: int, classes: int) -> list[_Fold]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    kinds = x[:, -1].astype(int)
    groups = is_other * classes + kinds
    few = np.bincount(is_other).min() < _FEW
    found: list[_Fold] = []
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED + repeat).split(x, groups):
        # No weights: scikit-learn would bin by weighted percentiles, far slower, and ranks within a class need none.
        model = HistGradientBoostingClassifier(
            max_iter=40 if few else 200,
            max_leaf_nodes=6 if few else 31,
            categorical_features=[x.shape[1] - 1],
            early_stopping=not few,
            random_state=_SEED,
        ).fit(x[train], is_other[train])
        figures = _aucs(model.decision_function(x[test]), is_other[test], kinds[test], classes)
        # The first fold of each split is enough to name the features.
        falls = None if found else _falls(model, x[test], is_other[test], classes, figures[0])
        found.append((*figures, falls))
    return found


def _aucs(metrics: Array, is_other: Array, kinds: Array, classes: int) -> tuple[Floats, Floats]:
    pairs = [
        auc_and_variance(metrics[(kinds == k) & (is_other == 0)], metrics[(kinds == k) & (is_other == 1)])
        for k in range(classes)
    ]
    return np.array([auc for auc, _ in pairs]), np.array([variance for _, variance in pairs])


def _falls(model: Any, x: Array, is_other: Array, classes: int, auc: Floats) -> Floats:
    rng, kinds = np.random.default_rng(_SEED), x[:, -1].astype(int)
    falls = []
    for column in range(x.shape[1] - 1):
        mixed = x.copy()
        for k in range(classes):
            rows = np.flatnonzero(kinds == k)
            mixed[rows, column] = x[rng.permutation(rows), column]
        falls.append(auc.mean() - _aucs(model.decision_function(mixed), is_other, kinds, classes)[0].mean())
    return np.array(falls)


def auc_and_variance(low: Array, high: Array) -> tuple[float, float]:
    """Return the share of pairs in which ``high`` is the larger, ties half, and its variance.

    DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988) 837, by ranks.
    """
    from scipy.stats import rankdata

    m, n = len(high), len(low)
    together = rankdata(np.concatenate([high, low]))
    above = (together[:m] - rankdata(high)) / n
    below = 1 - (together[m:] - rankdata(low)) / m
    return float(above.mean()), float(above.var(ddof=1) / m + below.var(ddof=1) / n)
