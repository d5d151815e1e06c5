"""Predict the metric of untrained cells with a surrogate model, and measure its calibration on held-out cells."""

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
# Fewer measured cells do not show how a metric changes along an axis.
MIN_CELLS = 8
# Fitting a Gaussian process takes time cubic in the cells: of more, those nearest to the predicted cells are used.
MAX_CELLS = 150
FOLDS = 8
WARM_STEPS = 5
_LEVELS = tuple(step / 20 for step in range(2, 20))


@dataclass(frozen=True)
class Prediction:
    """The predicted mean over the seeds of an untrained cell, with its band at ``BAND_LEVEL``."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """How many of the measured cells, each held out once, lay inside their predicted band.

    ``low`` and ``high`` are the 95% interval (Clopper and Pearson, Biometrika 26 (1934) 404) of the share inside,
    ``width`` is the median width of the bands, ``error`` the median absolute error of the predicted mean. ``levels``
    pairs nominal levels with the shares found inside.
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
    """Predictions in the order of the request, None where none is possible; ``reason`` says why all are None."""

    predictions: list[Prediction | None] = field(default_factory=list)
    calibration: Calibration | None = None
    reason: str | None = None


def predict(
    cells: Sequence[Mapping[str, Any]], missing: Sequence[RunConfig], metric: str, *, seeds: int = DEFAULT_SEEDS
) -> PredictionSet:
    """Predict the mean ``metric`` over ``seeds`` seeds of configs that were not trained.

    ``cells`` are rows of ``store.query.aggregates.cell_table``: hyperparameters with ``mean``, ``sd``, ``n``. The
    surrogate model is a Gaussian process (Rasmussen and Williams, 2006; scikit-learn) on logarithmic axes. The noise of
    the seeds is a smooth function of the hyperparameters, too (Goldberg, Williams, Bishop, NIPS 10 (1998) 493): where
    classes fall silent it is ten times that of elsewhere. Every measured cell is held out once, and the deviations set
    the width of the bands (split conformal, Vovk et al., 2005): cells share seeds and metrics are bimodal, so that a
    normal band would be too wide in places and too narrow in others.
    """
    encoding = Encoding(cells)
    configs = [run.to_dict() for run in missing]
    predictable = [index for index, row in enumerate(configs) if encoding.unknown_field(row) is None]
    # Without a cell to predict, the calibration is measured around the default config.
    centres = [configs[index] for index in predictable] or [RunConfig().to_dict()]
    known = [cells[index] for index in _nearest(encoding, cells, centres)]
    predictions: list[Prediction | None] = [None] * len(configs)
    if len(known) < MIN_CELLS:
        return PredictionSet(predictions, reason=f"{len(known)} measured cells; a prediction needs {MIN_CELLS}")
    x = encoding.matrix(known)
    scale = _Standardizer(np.array([row["mean"] for row in known], float), metric.endswith("_acc"))
    # Matrices this small gain nothing from a second thread; on a busy machine waiting for it took 79 s, not 4.
    with threadpool_limits(1):
        surrogate = _Surrogate(x, known, scale)
        held = _cross_validate(x, known, surrogate)
    if predictable:
        mean, sd = surrogate.predict(
            encoding.matrix([configs[index] for index in predictable]), np.full(len(predictable), float(seeds))
        )
        factor = _conformal_factor(held.deviation, BAND_LEVEL) * sd
        ends = (scale.inverse(mean), scale.inverse(mean - factor), scale.inverse(mean + factor))
        for index, *figures in zip(predictable, *ends, strict=True):
            predictions[index] = Prediction(*map(float, figures))
    return PredictionSet(predictions, _calibration(held))


class _Standardizer:
    """Standardize metrics to zero mean and unit spread: accuracies as they are, losses and times by their logarithm."""

    def __init__(self, values: Numbers, share: bool) -> None:
        self.share = share
        self.centre, self.spread = 0.0, 1.0
        plain = self.transform(values)
        self.centre, self.spread = float(plain.mean()), float(plain.std()) or 1.0

    def transform(self, values: Numbers) -> Numbers:
        plain = values if self.share else np.log(np.maximum(values, 1e-12))
        return np.asarray((plain - self.centre) / self.spread)

    def inverse(self, values: Any) -> Any:
        plain = np.asarray(values) * self.spread + self.centre
        return np.clip(plain, 0.0, 1.0) if self.share else np.exp(plain)

    def transform_variance(self, means: Numbers, variances: Numbers) -> Numbers:
        # The delta method, for logarithms.
        plain = variances if self.share else variances / np.maximum(means, 1e-12) ** 2
        return np.asarray(plain / self.spread**2)


class _Surrogate:
    """Two Gaussian processes over the same axes: the mean of the metric, and the logarithm of the variance over seeds.

    Fitting starts from the parameters of ``start``, a surrogate of nearly the same cells: it takes a third of the
    steps.
    """

    def __init__(
        self, x: Numbers, rows: Sequence[Mapping[str, Any]], scale: _Standardizer, start: _Surrogate | None = None
    ) -> None:
        self.scale = scale
        means = np.array([row["mean"] for row in rows], float)
        self.count = np.array([row["n"] for row in rows], float)
        variances = np.array([np.nan if row["sd"] is None else row["sd"] ** 2 for row in rows], float)
        self._fit_noise(x, scale.transform_variance(means, variances), start._log_noise if start else None)
        self._mean: Any = _fit_process(
            x, scale.transform(means), self._noise_at(x) / self.count, start._mean if start else None
        )

    def predict(self, x: Numbers, seeds: Numbers) -> tuple[Numbers, Numbers]:
        """Return the mean over this many seeds and its standard deviation, both standardized."""
        mean, sd = self._mean.predict(x, return_std=True)
        return mean, np.sqrt(sd**2 + self._noise_at(x) / seeds)

    def _fit_noise(self, x: Numbers, variances: Numbers, start: Any) -> None:
        freedom = self.count - 1
        usable = (freedom >= 1) & (np.nan_to_num(variances) > 0)
        self._log_noise, self._noise = None, 1e-4
        if not usable.any():
            return
        # The logarithm of a sample variance has a known bias and a known variance.
        half = freedom[usable] / 2
        logs = np.log(variances[usable]) - special.digamma(half) + np.log(half)
        self._noise = float(np.exp(np.average(logs, weights=half)))
        if usable.sum() >= MIN_CELLS:
            self._noise_centre = float(np.average(logs, weights=half))
            self._log_noise = _fit_process(x[usable], logs - self._noise_centre, special.polygamma(1, half), start)

    def _noise_at(self, x: Numbers) -> Numbers:
        if self._log_noise is None:
            return np.full(len(x), self._noise)
        return np.asarray(np.exp(self._log_noise.predict(x) + self._noise_centre))


def _fit_process(x: Numbers, y: Numbers, noise: Numbers, start: Any) -> Any:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    # The white kernel takes the differences between cells that their neighbours do not explain.
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(x.shape[1], 0.5), (0.1, 10.0), nu=2.5)
    kernel += WhiteKernel(1e-2, (1e-5, 1.0))
    theta = kernel.theta if start is None else start.kernel_.theta
    alpha = np.maximum(noise, 1e-8)
    process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None).fit(x, y)

    def loss(theta: Numbers) -> tuple[float, Numbers]:
        value, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        return -value, -slope

    # scikit-learn's own optimizer warns of a length scale at its bound, which here means an axis without effect, and
    # Python cannot silence warnings in one thread alone. After a warm start more steps change nothing.
    steps = {} if start is None else {"maxiter": WARM_STEPS}
    found = optimize.minimize(loss, theta, method="L-BFGS-B", jac=True, bounds=kernel.bounds, options=steps)
    return GaussianProcessRegressor(kernel.clone_with_theta(found.x), alpha=alpha, optimizer=None).fit(x, y)


def _nearest(encoding: Encoding, cells: Sequence[Mapping[str, Any]], centres: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the indices, in order, of the ``MAX_CELLS`` cells nearest to any of these configs."""
    if len(cells) <= MAX_CELLS:
        return list(range(len(cells)))
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=1).fit(encoding.matrix(centres))
    distance = search.kneighbors(encoding.matrix(cells))[0][:, 0]
    return sorted(np.argsort(distance, kind="stable")[:MAX_CELLS].tolist())


@dataclass(frozen=True)
class _HeldOut:
    """Every cell, held out once: its measured and predicted mean, standardized, and its fold."""

    scale: _Standardizer
    measured: Numbers
    mean: Numbers
    sd: Numbers
    fold: npt.NDArray[np.int64]

    @property
    def deviation(self) -> Numbers:
        return np.asarray(np.abs(self.measured - self.mean) / self.sd)


def _cross_validate(x: Numbers, rows: Sequence[Mapping[str, Any]], whole: _Surrogate) -> _HeldOut:
    scale, count = whole.scale, whole.count
    values = np.array([row["mean"] for row in rows], float)
    fold = np.random.default_rng(0).permutation(len(rows)) % min(FOLDS, len(rows))
    mean, sd = np.zeros(len(rows)), np.zeros(len(rows))
    for one in range(fold.max() + 1):
        out = fold == one
        # The mean of a held-out cell is over its own number of seeds, and so is the prediction for it.
        surrogate = _Surrogate(x[~out], [row for row, held in zip(rows, out, strict=True) if not held], scale, whole)
        mean[out], sd[out] = surrogate.predict(x[out], count[out])
    return _HeldOut(scale, scale.transform(values), mean, sd, fold)


def _conformal_factor(deviation: Numbers, level: float) -> float:
    """Return the half-width, in standard deviations, of a band of this level, from the deviations of held-out cells."""
    # The +1 counts the predicted cell itself, as split conformal asks. With few cells this is the greatest deviation.
    place = min(len(deviation), math.ceil(level * (len(deviation) + 1)))
    return float(np.sort(deviation)[place - 1])


def _calibration(held: _HeldOut) -> Calibration:
    """Count the held-out cells inside their band, its width set by the cells of the other folds alone."""
    shares, count = [], len(held.fold)
    factors = {}
    for level in (*_LEVELS, BAND_LEVEL):
        factor = np.zeros(count)
        for one in range(held.fold.max() + 1):
            factor[held.fold == one] = _conformal_factor(held.deviation[held.fold != one], level)
        factors[level] = factor
        shares.append((level, float((held.deviation <= factor).mean())))
    inside = int((held.deviation <= factors[BAND_LEVEL]).sum())
    found = stats.binomtest(inside, count).proportion_ci(0.95, "exact")
    half = factors[BAND_LEVEL] * held.sd
    width = held.scale.inverse(held.mean + half) - held.scale.inverse(held.mean - half)
    error = np.abs(held.scale.inverse(held.measured) - held.scale.inverse(held.mean))
    return Calibration(
        count, inside, float(found.low), float(found.high), float(np.median(width)), float(np.median(error)),
        tuple(shares[:-1]),
    )  # fmt: skip
