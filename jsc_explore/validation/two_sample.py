"""Two-sample tests: moments, Kolmogorov-Smirnov distances, total variation, a discriminator's AUC."""

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
# Below this many jets the AUC depends on the split into folds, so it is averaged over several splits.
_FEW_JETS, _REPEATS = 5_000, 5


def ks_distance(sample: Array, other: Array) -> float:
    """Return the two-sample Kolmogorov-Smirnov distance: the largest gap between the two distribution functions."""
    sample, other = np.sort(sample), np.sort(other)
    values = np.concatenate([sample, other])
    gap = np.searchsorted(sample, values, "right") / len(sample) - np.searchsorted(other, values, "right") / len(other)
    return float(np.abs(gap).max())


def ks_to_quantiles(sample: Array, quantiles: Floats, probabilities: Floats) -> float:
    """Return the Kolmogorov-Smirnov distance to a distribution of which only quantiles are known.

    It is evaluated at the quantiles only, and so too small by at most one step of ``probabilities``. At a value that
    several quantiles share (an atom) any value between their probabilities has distance zero.
    """
    ordered = np.sort(sample)
    values, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    at = np.searchsorted(ordered, values, "right") / len(ordered)
    below = np.searchsorted(ordered, values, "left") / len(ordered)
    deficit = probabilities[first + count - 1] - at
    excess = below - probabilities[first]
    return float(max(deficit.max(), excess.max(), 0.0))


def total_variation(counts: Array, others: Array) -> Floats:
    """Return the total variation distance of two arrays of counts, over their last axis."""
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
    """Return one row per feature and class, and one for all classes: counts, means, standard deviations, KS distance.

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
    """The result of a discriminator: AUC of each class and their mean, with standard errors, and feature importance.

    ``importance``: the drop of the mean AUC when the feature is permuted within each class.
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
    """Train gradient boosting to distinguish two sets of jets, given the class; cross-validated in five folds.

    One model gets features and class; the scores of its test jets are ranked within each class, so that class
    frequencies do not matter. 0.5 means indistinguishable. The error is DeLong's standard error of each class and
    fold, combined in quadrature over folds, which share no test jets; it does not include that of the training. Sets
    of fewer than 5,000 jets are split five times, and the results are means.
    """
    from threadpoolctl import threadpool_limits

    x = np.concatenate([np.column_stack([sample, labels]), np.column_stack([other, others])]).astype(np.float32)
    is_other = np.repeat([0, 1], [len(sample), len(other)])
    repeats = _REPEATS if min(len(sample), len(other)) < _FEW_JETS else 1
    # On a busy machine two OpenMP threads wait for each other: 60 s instead of 3 s.
    with threadpool_limits(1):
        folds = [fold for repeat in range(repeats) for fold in _folds(x, is_other, repeat, classes)]
    auc, variance = (np.array([fold[part] for fold in folds]) for part in (0, 1))
    error = np.sqrt(variance.mean(axis=0) / _FOLDS)
    drops = np.mean([fold[2] for fold in folds if fold[2] is not None], axis=0)
    return Discrimination(
        auc=auc.mean(axis=0).tolist(),
        error=error.tolist(),
        mean=float(auc.mean()),
        mean_error=float(np.sqrt((error**2).sum()) / classes),
        jets=min(len(sample), len(other)),
        importance=dict(zip(features, drops.tolist(), strict=True)),
    )


_Fold = tuple[Floats, Floats, Floats | None]


def _folds(x: Array, is_other: Array, repeat: int, classes: int) -> list[_Fold]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    kinds = x[:, -1].astype(int)
    groups = is_other * classes + kinds
    few = np.bincount(is_other).min() < _FEW_JETS
    found: list[_Fold] = []
    for train, test in StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED + repeat).split(x, groups):
        # No sample weights: scikit-learn would compute weighted percentiles, which is slow, and ranks do not need them.
        model = HistGradientBoostingClassifier(
            max_iter=40 if few else 200,
            max_leaf_nodes=6 if few else 31,
            categorical_features=[x.shape[1] - 1],
            early_stopping=not few,
            random_state=_SEED,
        ).fit(x[train], is_other[train])
        figures = _aucs(model.decision_function(x[test]), is_other[test], kinds[test], classes)
        # One fold is enough to rank the features.
        drops = None if found else _importance(model, x[test], is_other[test], classes, figures[0])
        found.append((*figures, drops))
    return found


def _aucs(scores: Array, is_other: Array, kinds: Array, classes: int) -> tuple[Floats, Floats]:
    pairs = [
        auc_and_variance(scores[(kinds == k) & (is_other == 0)], scores[(kinds == k) & (is_other == 1)])
        for k in range(classes)
    ]
    return np.array([auc for auc, _ in pairs]), np.array([variance for _, variance in pairs])


def _importance(model: Any, x: Array, is_other: Array, classes: int, auc: Floats) -> Floats:
    rng, kinds = np.random.default_rng(_SEED), x[:, -1].astype(int)
    drops = []
    for column in range(x.shape[1] - 1):
        mixed = x.copy()
        for k in range(classes):
            rows = np.flatnonzero(kinds == k)
            mixed[rows, column] = x[rng.permutation(rows), column]
        drops.append(auc.mean() - _aucs(model.decision_function(mixed), is_other, kinds, classes)[0].mean())
    return np.array(drops)


def auc_and_variance(low: Array, high: Array) -> tuple[float, float]:
    """Return the AUC, the share of pairs in which ``high`` is larger (ties count half), and its variance.

    DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988) 837, computed from ranks.
    """
    from scipy.stats import rankdata

    m, n = len(high), len(low)
    together = rankdata(np.concatenate([high, low]))
    above = (together[:m] - rankdata(high)) / n
    below = 1 - (together[m:] - rankdata(low)) / m
    return float(above.mean()), float(above.var(ddof=1) / m + below.var(ddof=1) / n)
