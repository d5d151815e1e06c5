"""What a cell that nobody trained would likely score, from the cells around it, and how far that can be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jsc_explore.analysis.encoding import Encoding, Numbers
from jsc_explore.config import DEFAULT_SEEDS, RunConfig

LEVEL = 0.8
# Fewer measured cells say nothing about how a score changes along an axis.
MIN_CELLS = 8
# A Gaussian process costs the cube of its cells: of more than these, the nearest to what is asked for are taken.
MAX_CELLS = 300
FOLDS = 8


@dataclass(frozen=True)
class Prediction:
    """The score expected as the mean over the seeds of a missing cell, with its band of ``LEVEL``."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How many of the measured cells, each held out once, lay inside their band: a measurement, not a promise.

    ``low`` and ``high`` are the 95% interval (Clopper and Pearson, Biometrika 26 (1934) 404) of the share inside,
    ``width`` is the median width of the bands, ``error`` the median distance of the mean from what was measured.
    ``levels`` pairs nominal levels with the shares found inside.
    """

    held_out: int
    inside: int
    low: float
    high: float
    width: float
    error: float
    levels: tuple[tuple[float, float], ...] = ()

    @property
    def share(self) -> float:
        """Share of the held-out cells inside their band."""
        return self.inside / self.held_out


@dataclass(frozen=True)
class Forecast:
    """Predictions in the order asked for, None where nothing can be said; ``reason`` tells why none can."""

    predictions: list[Prediction | None] = field(default_factory=list)
    calibration: Calibration | None = None
    reason: str | None = None


def predict(
    cells: Sequence[Mapping[str, Any]],
    missing: Sequence[RunConfig],
    score: str,
    *,
    seeds: int = DEFAULT_SEEDS,
    calibrate: bool = True,
) -> Forecast:
    """Predict the mean ``score`` over ``seeds`` seeds of configs that were not trained.

    ``cells`` are rows of ``store.cells.cell_table``: hyperparameters with ``mean``, ``sd``, ``n``. A Gaussian process
    (Rasmussen and Williams, 2006; scikit-learn) on logarithmic axes, the noise of the seeds given, itself a smooth
    function of the hyperparameters (Goldberg, Williams, Bishop, NIPS 10 (1998) 493). ``calibrate`` holds every cell out
    once, fits anew and counts: eight times the cost.
    """
    raise NotImplementedError
