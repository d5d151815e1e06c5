"""Rank hyperparameters by how much a metric depends on them: permutation importance of a forest on held-out cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from jsc_explore import network
from jsc_explore.analysis.encoding import Encoding, Numbers
from jsc_explore.config import FIELDS

MIN_CELLS = 20
# A forest on more cells takes seconds longer and gives the same ranking.
MAX_CELLS = 600
FOLDS, REPEATS, SHUFFLES, TREES = 5, 3, 5, 60


@dataclass(frozen=True)
class Importance:
    """How much the error on held-out cells grows when one hyperparameter is shuffled, ± ``half_width`` (about 95%)."""

    field: str
    mean: float
    half_width: float


@dataclass(frozen=True)
class Ranking:
    """Hyperparameters, most important first, in units of the metric.

    ``error`` is the forest's root mean square error on held-out cells, ``baseline_error`` that of predicting their
    mean, ``seed_noise`` the standard error of a cell's median over seeds (None with one seed each). ``reason`` says why
    there is no ranking.
    """

    fields: list[Importance]
    cells: int
    error: float | None = None
    baseline_error: float | None = None
    seed_noise: float | None = None
    reason: str | None = None

    @property
    def beats_mean(self) -> bool:
        """Whether the forest predicts clearly better than the mean does."""
        return self.error is not None and self.baseline_error is not None and self.error < 0.9 * self.baseline_error


def importance(cells: Sequence[Mapping[str, Any]]) -> Ranking:
    """Rank the hyperparameters that vary among cells (rows of ``store.query.aggregates.cell_table``).

    Permutation importance (Breiman, Machine Learning 45 (2001) 5; scikit-learn) on held-out cells, in five folds
    repeated three times. The interval allows for folds that share training cells (Nadeau and Bengio, Machine Learning
    52 (2003) 239). Hyperparameters that were varied together share their importance.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import RepeatedKFold

    chosen = [cells[int(place)] for place in np.linspace(0, len(cells) - 1, min(len(cells), MAX_CELLS))]
    names = list(Encoding(chosen).varied)
    if len(chosen) < MIN_CELLS or not names:
        return Ranking([], len(chosen), reason=f"{len(chosen)} configurations; a ranking needs {MIN_CELLS}")
    x = np.stack([_codes(name, [row[name] for row in chosen]) for name in names], axis=1)
    y = np.array([row["metric"] for row in chosen], float)
    increases, errors, baselines = [], [], []
    for train, test in RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(x):
        forest = RandomForestRegressor(TREES, random_state=0, min_samples_leaf=1).fit(x[train], y[train])
        found = permutation_importance(
            forest, x[test], y[test], scoring="neg_root_mean_squared_error", n_repeats=SHUFFLES, random_state=0
        )
        increases.append(found.importances_mean)
        errors.append(_rms(forest.predict(x[test]) - y[test]))
        baselines.append(_rms(y[test] - y[train].mean()))
    per_fold = np.array(increases)
    # Folds share training cells, so that their spread understates the error of the mean by this factor.
    widen = math.sqrt(1 + len(increases) / (FOLDS - 1))
    half = widen * stdtrit(len(increases) - 1, 0.975) * per_fold.std(axis=0, ddof=1) / math.sqrt(len(increases))
    fields = [Importance(*row) for row in zip(names, per_fold.mean(axis=0).tolist(), half.tolist(), strict=True)]
    fields.sort(key=lambda one: -one.mean)
    return Ranking(fields, len(chosen), float(np.mean(errors)), float(np.mean(baselines)), _seed_noise(chosen))


def _codes(name: str, values: Sequence[Any]) -> Numbers:
    if FIELDS[name].kind in ("int", "float"):
        return np.array(values, float)
    size = (lambda value: (network.parse(value, True).parameters, value)) if name == "model" else str
    order = {value: place for place, value in enumerate(sorted(set(values), key=size))}
    return np.array([order[value] for value in values], float)


def _seed_noise(cells: Sequence[Mapping[str, Any]]) -> float | None:
    # The variance of a median of normal values is π/2 times that of their mean.
    squares = [math.pi / 2 * row["sd"] ** 2 / row["n"] for row in cells if row["sd"] is not None]
    return math.sqrt(sum(squares) / len(squares)) if squares else None


def _rms(values: Numbers) -> float:
    return float(np.sqrt(np.mean(values**2)))
