"""What a cell that nobody trained would likely metric, from the cells around it, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats
from threadpoolctl import threadpool_limits

from jsc_explore.analysis.encoding import Encoding, Numbers
from jsc_explore.config import DEFAULT_SEEDS, RunConfig

BAND_LEVEL = 0.8
# Fewer measured cells say nothing about how a metric changes along an axis.
MIN_CELLS = 8
# A Gaussian process costs the cube of its cells: of more than these, the nearest to what is asked for are taken.
MAX_CELLS = 150
FOLDS = 8
FEW_STEPS = 5
_LEVELS = tuple(step / 20 for step in range(2, 20))


@dataclass(frozen=True)
class Prediction:
    """The metric expected as the mean over the seeds of a missing cell, with its band of ``LEVEL``."""

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
class PredictionSet:
    """Predictions in the order asked for, None where nothing can be said; ``reason`` tells why none can."""

    predictions: list[Prediction | None] = field(default_factory=list)
    calibration: Calibration | None = None
    reason: str | None = None


def predict(
    cells: Sequence[Mapping[str, Any]], missing: Sequence[RunConfig], metric: str, *, seeds: int = DEFAULT_SEEDS
) -> PredictionSet:
    """Predict the mean ``metric`` over ``seeds`` seeds of configs that were not trained.

    ``cells`` are rows of ``store.cells.cell_table``: hyperparameters with ``mean``, ``sd``, ``n``. A Gaussian process
    (Rasmussen and Williams, 2006; scikit-learn) on logarithmic axes, given the noise of the seeds, which is itself a
    smooth function of the hyperparameters (Goldberg, Williams, Bishop, NIPS 10 (1998) 493): where classes die it is
    ten times what it is elsewhere. Every measured cell is held out once, and the bands are drawn as wide as those
    deviations ask for (split conformal, Vovk et al., 2005): seeds are shared between cells and metrics have two humps,
    so that a normal band would be too wide here and too narrow there.
    """
    encoding = Encoding(cells)
    asked = [run.to_dict() for run in missing]
    within = [index for index, row in enumerate(asked) if encoding.unseen(row) is None]
    # With nothing to predict the calibration is that around the default config.
    centres = [asked[index] for index in within] or [RunConfig().to_dict()]
    known = [cells[index] for index in _nearest(encoding, cells, centres)]
    predictions: list[Prediction | None] = [None] * len(asked)
    if len(known) < MIN_CELLS:
        return PredictionSet(predictions, reason=f"{len(known)} measured cells; a prediction needs {MIN_CELLS}")
    x = encoding.matrix(known)
    scale = _Scale(np.array([row["mean"] for row in known], float), metric.endswith("_acc"))
    # Matrices this small gain nothing from a second thread; on a busy machine its waiting cost 79 s instead of 4.
    with threadpool_limits(1):
        surface = _Surface(x, known, scale)
        trial = _held_out(x, known, surface)
    if within:
        mean, sd = surface.at(encoding.matrix([asked[index] for index in within]), np.full(len(within), float(seeds)))
        reach = _reach(trial.deviation, BAND_LEVEL) * sd
        ends = (scale.back(mean), scale.back(mean - reach), scale.back(mean + reach))
        for index, *figures in zip(within, *ends, strict=True):
            predictions[index] = Prediction(*map(float, figures))
    return PredictionSet(predictions, _calibration(trial))


class _Scale:
    """Scores as the process sees them: shares as they are, losses and times by their logarithm, unit spread."""

    def __init__(self, values: Numbers, share: bool) -> None:
        self.share = share
        self.centre, self.spread = 0.0, 1.0
        plain = self.to(values)
        self.centre, self.spread = float(plain.mean()), float(plain.std()) or 1.0

    def to(self, values: Numbers) -> Numbers:
        plain = values if self.share else np.log(np.maximum(values, 1e-12))
        return np.asarray((plain - self.centre) / self.spread)

    def back(self, values: Any) -> Any:
        plain = np.asarray(values) * self.spread + self.centre
        return np.clip(plain, 0.0, 1.0) if self.share else np.exp(plain)

    def variance(self, means: Numbers, variances: Numbers) -> Numbers:
        # The delta method, for logarithms.
        plain = variances if self.share else variances / np.maximum(means, 1e-12) ** 2
        return np.asarray(plain / self.spread**2)


class _Surface:
    """Two Gaussian processes over the same axes: the metric's mean, and the logarithm of the variance of a seed.

    They begin where those of ``near``, a surface of nearly the same cells, ended: there a third of the steps is left.
    """

    def __init__(
        self, x: Numbers, rows: Sequence[Mapping[str, Any]], scale: _Scale, near: _Surface | None = None
    ) -> None:
        self.scale = scale
        means = np.array([row["mean"] for row in rows], float)
        self.count = np.array([row["n"] for row in rows], float)
        variances = np.array([np.nan if row["sd"] is None else row["sd"] ** 2 for row in rows], float)
        self._fit_noise(x, scale.variance(means, variances), near._log_noise if near else None)
        self._mean: Any = _process(x, scale.to(means), self._noise_at(x) / self.count, near._mean if near else None)

    def at(self, x: Numbers, seeds: Numbers) -> tuple[Numbers, Numbers]:
        """Return mean and standard deviation of the mean over this many seeds, on the scale of the process."""
        mean, sd = self._mean.predict(x, return_std=True)
        return mean, np.sqrt(sd**2 + self._noise_at(x) / seeds)

    def _fit_noise(self, x: Numbers, variances: Numbers, near: Any) -> None:
        freedom = self.count - 1
        usable = (freedom >= 1) & (np.nan_to_num(variances) > 0)
        self._log_noise, self._noise = None, 1e-4
        if not usable.any():
            return
        # The logarithm of a sample variance lies below that of the variance, and scatters, by known amounts.
        half = freedom[usable] / 2
        logs = np.log(variances[usable]) - special.digamma(half) + np.log(half)
        self._noise = float(np.exp(np.average(logs, weights=half)))
        if usable.sum() >= MIN_CELLS:
            self._noise_centre = float(np.average(logs, weights=half))
            self._log_noise = _process(x[usable], logs - self._noise_centre, special.polygamma(1, half), near)

    def _noise_at(self, x: Numbers) -> Numbers:
        if self._log_noise is None:
            return np.full(len(x), self._noise)
        return np.asarray(np.exp(self._log_noise.predict(x) + self._noise_centre))


def _process(x: Numbers, y: Numbers, noise: Numbers, near: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    # The white part is what cells differ by although their neighbours do not tell it.
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(x.shape[1], 0.5), (0.1, 10.0), nu=2.5)
    kernel += WhiteKernel(1e-2, (1e-5, 1.0))
    start = kernel.theta if near is None else near.kernel_.theta
    alpha = np.maximum(noise, 1e-8)
    process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None).fit(x, y)

    def loss(theta: Numbers) -> tuple[float, Numbers]:
        value, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        return -value, -slope

    # Without scikit-learn's optimizer, which warns of a length at its bound: that means an axis without effect, and
    # warnings cannot be silenced in one thread alone. From an optimum next door more than few steps change nothing.
    steps = {} if near is None else {"maxiter": FEW_STEPS}
    found = optimize.minimize(loss, start, method="L-BFGS-B", jac=True, bounds=kernel.bounds, options=steps)
    return GaussianProcessRegressor(kernel.clone_with_theta(found.x), alpha=alpha, optimizer=None).fit(x, y)


def _nearest(encoding: Encoding, cells: Sequence[Mapping[str, Any]], centres: Sequence[Mapping[str, Any]]) -> list[int]:
    """Choose the ``MAX_CELLS`` cells that lie nearest to any of these configs, in the order they have."""
    if len(cells) <= MAX_CELLS:
        return list(range(len(cells)))
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(encoding.matrix(centres))
    distance = search.kneighbors(encoding.matrix(cells))[0][:, 0]
    return sorted(np.argsort(distance, kind="stable")[:MAX_CELLS].tolist())


@dataclass(frozen=True)
class _Trial:
    """What holding every cell out once gave: measured and predicted on the process's scale, and the fold of each."""

    scale: _Scale
    measured: Numbers
    mean: Numbers
    sd: Numbers
    fold: npt.NDArray[np.int64]

    @property
    def deviation(self) -> Numbers:
        return np.asarray(np.abs(self.measured - self.mean) / self.sd)


def _held_out(x: Numbers, rows: Sequence[Mapping[str, Any]], whole: _Surface) -> _Trial:
    scale, count = whole.scale, whole.count
    values = np.array([row["mean"] for row in rows], float)
    fold = np.random.default_rng(0).permutation(len(rows)) % min(FOLDS, len(rows))
    mean, sd = np.zeros(len(rows)), np.zeros(len(rows))
    for one in range(fold.max() + 1):
        out = fold == one
        # A held-out cell has the seeds it has, and is judged by them.
        surface = _Surface(x[~out], [row for row, held in zip(rows, out, strict=True) if not held], scale, whole)
        mean[out], sd[out] = surface.at(x[out], count[out])
    return _Trial(scale, scale.to(values), mean, sd, fold)


def _reach(deviation: Numbers, level: float) -> float:
    """Return how many standard deviations a band of this level reaches, from the deviations of held-out cells."""
    # The +1 is the cell to come: with few cells the greatest deviation seen is all there is to go by.
    place = min(len(deviation), math.ceil(level * (len(deviation) + 1)))
    return float(np.sort(deviation)[place - 1])


def _calibration(trial: _Trial) -> Calibration:
    """Count the held-out cells inside bands whose reach comes from the cells of the other folds alone."""
    shares, count = [], len(trial.fold)
    reaches = {}
    for level in (*_LEVELS, BAND_LEVEL):
        reach = np.zeros(count)
        for one in range(trial.fold.max() + 1):
            reach[trial.fold == one] = _reach(trial.deviation[trial.fold != one], level)
        reaches[level] = reach
        shares.append((level, float((trial.deviation <= reach).mean())))
    inside = int((trial.deviation <= reaches[BAND_LEVEL]).sum())
    found = stats.binomtest(inside, count).proportion_ci(0.95, "exact")
    half = reaches[BAND_LEVEL] * trial.sd
    width = trial.scale.back(trial.mean + half) - trial.scale.back(trial.mean - half)
    error = np.abs(trial.scale.back(trial.measured) - trial.scale.back(trial.mean))
    return Calibration(
        count, inside, float(found.low), float(found.high), float(np.median(width)), float(np.median(error)),
        tuple(shares[:-1]),
    )  # fmt: skip
