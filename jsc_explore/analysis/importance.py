"""Which hyperparameters a metric hangs on: permutation importance of a forest, on cells it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jsc_explore import network
from jsc_explore.analysis.encoding import Encoding, Numbers
from jsc_explore.analysis.statistics import half_width
from jsc_explore.config import FIELDS

MIN_CELLS = 20
# A forest on more cells takes seconds and says the same.
MAX_CELLS = 600
FOLDS, REPEATS, SHUFFLES, TREES = 5, 3, 5, 60


@dataclass(frozen=True)
class Importance:
    """How much the error on unseen cells grows when one hyperparameter is shuffled among them, ± ``half`` (95%)."""

    field: str
    mean: float
    half: float


@dataclass(frozen=True)
class Ranking:
    """Hyperparameters, most important first, in units of the metric.

    ``error`` is the forest's root mean square error on unseen cells, ``plain`` that of knowing the mean alone,
    ``noise`` what the seeds leave of uncertainty in a cell's mean (None with one seed each). ``reason`` tells why there
    is no ranking.
    """

    fields: list[Importance]
    cells: int
    error: float | None = None
    plain: float | None = None
    noise: float | None = None
    reason: str | None = None

    @property
    def beats_mean(self) -> bool:
        """Whether the forest knows anything: whether it beats the mean."""
        return self.error is not None and self.plain is not None and self.error < 0.9 * self.plain


def importance(cells: Sequence[Mapping[str, Any]]) -> Ranking:
    """Rank the hyperparameters that vary among cells (rows of ``store.cells.cell_table``) by what the metric owes them.

    Permutation importance (Breiman, Machine Learning 45 (2001) 5; scikit-learn) on the held-out fifth of the cells,
    three times five folds; the interval allows for folds that share their training cells (Nadeau and Bengio, Machine
    Learning 52 (2003) 239). Hyperparameters that were varied together share their importance.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import RepeatedKFold

    chosen = [cells[int(place)] for place in np.linspace(0, len(cells) - 1, min(len(cells), MAX_CELLS))]
    names = list(Encoding(chosen).varied)
    if len(chosen) < MIN_CELLS or not names:
        return Ranking([], len(chosen), reason=f"{len(chosen)} configurations; a ranking needs {MIN_CELLS}")
    x = np.stack([_codes(name, [row[name] for row in chosen]) for name in names], axis=1)
    y = np.array([row["mean"] for row in chosen], float)
    drops, errors, plain = [], [], []
    for train, test in RepeatedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0).split(x):
        forest = RandomForestRegressor(TREES, random_state=0, min_samples_leaf=1).fit(x[train], y[train])
        found = permutation_importance(
            forest, x[test], y[test], scoring="neg_root_mean_squared_error", n_repeats=SHUFFLES, random_state=0
        )
        drops.append(found.importances_mean)
        errors.append(_rms(forest.predict(x[test]) - y[test]))
        plain.append(_rms(y[test] - y[train].mean()))
    every = np.array(drops)
    # Folds share training cells: their spread understates the error of the mean by this factor.
    widen = math.sqrt(1 + len(drops) / (FOLDS - 1))
    fields = [
        Importance(name, float(column.mean()), widen * (half_width(float(column.std(ddof=1)), len(column)) or 0.0))
        for name, column in zip(names, every.T, strict=True)
    ]
    fields.sort(key=lambda one: -one.mean)
    return Ranking(fields, len(chosen), float(np.mean(errors)), float(np.mean(plain)), _noise(chosen))


def _codes(name: str, values: Sequence[Any]) -> Numbers:
    if FIELDS[name].kind in ("int", "float"):
        return np.array(values, float)
    size = (lambda value: (network.parse(value, True).parameters, value)) if name == "model" else str
    order = {value: place for place, value in enumerate(sorted(set(values), key=size))}
    return np.array([order[value] for value in values], float)


def _noise(cells: Sequence[Mapping[str, Any]]) -> float | None:
    squares = [row["sd"] ** 2 / row["n"] for row in cells if row["sd"] is not None]
    return math.sqrt(sum(squares) / len(squares)) if squares else None


def _rms(values: Numbers) -> float:
    return float(np.sqrt(np.mean(values**2)))
