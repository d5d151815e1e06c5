"""Predict the metric of untrained cells with a surrogate model, and measure its calibration on held-out cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from threadpoolctl import threadpool_limits

from jsc_explore.analysis.encoding import Encoding, Numbers
from jsc_explore.analysis.support import KINDS, Kind, find_support, rows_left_out
from jsc_explore.config import DEFAULT_SEEDS, RunConfig
from jsc_explore.data.jets import CLASSES

BAND_LEVEL = 0.8
# Fewer measured cells do not show how a metric changes along an axis.
MIN_CELLS = 8
# Fitting a Gaussian process takes time cubic in the cells: of more, those nearest to the predicted cells are used.
MAX_CELLS = 216
# A kind of cell is not predicted where fewer were held out, or where fewer of them lay inside than this share.
MIN_HELD_OUT = 20
MIN_SHARE = 0.7
CHANCE = 1 / len(CLASSES)
# More steps of the fit change nothing that is seen.
MAX_STEPS = 60
# Accuracies and losses this much better than the best measured one are never predicted.
_MARGIN = 0.05
_LEVELS = tuple(step / 20 for step in range(2, 20))


@dataclass(frozen=True)
class Prediction:
    """The predicted median over the seeds of an untrained cell without a silent class, with its band.

    ``kind`` says how measured cells lie around it, ``silent`` which share of the seeds there have a silent class.
    """

    value: float
    low: float
    high: float
    kind: Kind = "between"
    silent: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """How many held-out predictions of one kind of cell had the measured median inside their band at ``BAND_LEVEL``.

    ``low`` and ``high`` are the 95% interval of the share inside, from how it differs between the rows that were held
    out: cells of one row fail together. ``width`` is the median width of the bands, ``error`` the median absolute
    error of the predictions. ``levels`` pairs nominal levels with the shares found inside.
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
        """Share of the held-out predictions with the measured median inside their band."""
        return self.inside / self.held_out

    @property
    def holds(self) -> bool:
        """Whether bands of this kind of cell may be drawn."""
        return self.held_out >= MIN_HELD_OUT and self.share >= MIN_SHARE


@dataclass(frozen=True)
class PredictionSet:
    """Predictions in the order of the request, None where none is possible; ``reason`` says why all are None."""

    predictions: list[Prediction | None] = field(default_factory=list)
    calibrations: Mapping[Kind, Calibration] = field(default_factory=dict)
    reason: str | None = None


def predict(
    cells: Sequence[Mapping[str, Any]], missing: Sequence[RunConfig], metric: str, *, seeds: int = DEFAULT_SEEDS
) -> PredictionSet:
    """Predict the median ``metric`` over ``seeds`` seeds of configs that were not trained.

    ``cells`` are rows of ``store.query.aggregates.prediction_cells``: hyperparameters with ``metric``, ``sd``, ``n``
    of the seeds without a silent class, and ``n_silent``. A config without measured neighbours (``find_support``) is
    not predicted. The surrogate model is a Gaussian process (Rasmussen and Williams, 2006; scikit-learn) on logarithmic
    axes. The noise of the seeds is a smooth function of the hyperparameters, too (Goldberg, Williams, Bishop, NIPS 10
    (1998) 493). Measured cells are held out in the same way as those to predict are missing (alone, with their row, or
    with all that lies beyond it; of all networks or of one), and their deviations set the width of the bands of this
    kind of cell (split conformal by groups: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005).
    """
    configs = [run.to_dict() for run in missing]
    predictions: list[Prediction | None] = [None] * len(configs)
    if len(cells) < MIN_CELLS:
        return PredictionSet(predictions, reason=f"{len(cells)} measured cells; a prediction needs {MIN_CELLS}")
    encoding = Encoding(cells)
    supports = find_support(encoding, cells, configs)
    chosen = [index for index, support in enumerate(supports) if support]
    if configs and not chosen:
        return PredictionSet(predictions, reason="no measured cells lie near enough on any axis")
    # Without a cell to predict, the calibration is measured around the default config.
    centres = [configs[index] for index in chosen] or [RunConfig().to_dict()]
    known = [cells[index] for index in _nearest(encoding, cells, centres)]
    scale = _Scale(np.array([row["metric"] for row in known], float), metric)
    # Matrices this small gain nothing from a second thread; on a busy machine waiting for it took 79 s, not 4.
    with threadpool_limits(1):
        surrogate = _Surrogate(encoding, known, scale)
        held_out = _hold_out(encoding, known, surrogate)
        calibrations = {kind: _calibration(held, scale) for kind, held in held_out.items()}
        for index in chosen:
            support = supports[index]
            if support and support.kind in calibrations and calibrations[support.kind].holds:
                around = [cells[place] for place in support.cells]
                factor = _conformal_factor(held_out[support.kind].deviation, BAND_LEVEL)
                predictions[index] = _predict_one(surrogate, scale, configs[index], support.kind, around, factor, seeds)
    return PredictionSet(predictions, calibrations)


def _predict_one(
    surrogate: _Surrogate,
    scale: _Scale,
    config: Mapping[str, Any],
    kind: Kind,
    around: Sequence[Mapping[str, Any]],
    factor: float,
    seeds: int,
) -> Prediction | None:
    runs, silent = (sum(row[name] for row in around) for name in ("n", "n_silent"))
    share = silent / (runs + silent)
    mean, sd = surrogate.predict([config], max(1.0, seeds * (1 - share)))
    metrics = [row["metric"] for row in around]
    least, most = scale.limits(min(metrics), max(metrics))
    low, middle, high = scale.interval(mean[0], factor * sd[0])
    if not least < middle < most:
        return None  # A mean beyond the limits is extrapolated from a trend that ends before it.
    return Prediction(float(middle), float(max(low, least)), float(min(high, most)), kind, share)


class _Scale:
    """Metrics as the surrogate sees them: the logarithm of the distance to a value a little better than the best.

    Metrics saturate: near the best ones a point means more than elsewhere. Standardized to zero mean and unit spread.
    """

    def __init__(self, values: Numbers, metric: str) -> None:
        self.is_share, self.is_loss = metric.endswith("_acc"), metric.endswith("_loss")
        self.sign = -1.0 if self.is_share else 1.0
        self.best = 0.0
        if self.is_share or self.is_loss:
            self.best = self.sign * float((self.sign * values).min() - _MARGIN)
        self.centre, self.spread = 0.0, 1.0
        plain = self.transform(values)
        self.centre, self.spread = float(plain.mean()), float(plain.std()) or 1.0

    def transform(self, values: Numbers) -> Numbers:
        return np.asarray((np.log(np.maximum(self.sign * (values - self.best), 1e-12)) - self.centre) / self.spread)

    def inverse(self, values: Any) -> Any:
        return self.best + self.sign * np.exp(np.asarray(values) * self.spread + self.centre)

    def transform_variance(self, means: Numbers, variances: Numbers) -> Numbers:
        # The delta method, for logarithms.
        return np.asarray(variances / (np.maximum(self.sign * (means - self.best), 1e-12) * self.spread) ** 2)

    def interval(self, mean: Any, half: Any) -> Numbers:
        """Return the lower end, the middle and the upper end in the units of the metric."""
        return np.sort([self.inverse(mean - half), self.inverse(mean), self.inverse(mean + half)], axis=0)

    def limits(self, lowest: float, highest: float) -> tuple[float, float]:
        """Return the least and the greatest prediction: chance, or the neighbours where they are worse, and one."""
        if self.is_share:
            return min(CHANCE, lowest), 1.0
        return 0.0, max(math.log(len(CLASSES)), highest) if self.is_loss else math.inf


class _Surrogate:
    """Two Gaussian processes over the same axes: the mean of the metric, and the logarithm of its seeds' variance."""

    def __init__(self, encoding: Encoding, rows: Sequence[Mapping[str, Any]], scale: _Scale) -> None:
        self.encoding = encoding
        x = encoding.matrix(rows)
        metrics, self.count = (np.array([row[name] for row in rows], float) for name in ("metric", "n"))
        variances = np.array([np.nan if row["sd"] is None else row["sd"] ** 2 for row in rows], float)
        self._fit_noise(x, scale.transform_variance(metrics, variances))
        self.y = scale.transform(metrics)
        self._mean: Any = _fit_process(x, self.y, self._noise_at(x) / self.count, _own_curve(encoding))
        from scipy.linalg import cho_solve

        self._inverse: Numbers = cho_solve((self._mean.L_, True), np.eye(len(x)))

    def predict(self, rows: Sequence[Mapping[str, Any]], seeds: float) -> tuple[Numbers, Numbers]:
        """Return the mean over this many seeds and its standard deviation, both standardized."""
        x = self.encoding.matrix(rows)
        mean, sd = self._mean.predict(x, return_std=True)
        return mean, np.sqrt(sd**2 + self._noise_at(x) / seeds)

    def leave_out(self, group: npt.NDArray[np.int64]) -> tuple[Numbers, Numbers]:
        """Return mean and standard deviation of measured cells as predicted without any of them.

        Source: Rasmussen and Williams, 2006, section 5.4.2, for groups of cells.
        """
        covariance = np.linalg.inv(self._inverse[np.ix_(group, group)])
        return self.y[group] - covariance @ self._mean.alpha_[group], np.sqrt(np.diag(covariance))

    def _fit_noise(self, x: Numbers, variances: Numbers) -> None:
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
            self._log_noise = _fit_process(x[usable], logs - self._noise_centre, special.polygamma(1, half))

    def _noise_at(self, x: Numbers) -> Numbers:
        if self._log_noise is None:
            return np.full(len(x), self._noise)
        return np.asarray(np.exp(self._log_noise.predict(x) + self._noise_centre))


def _own_curve(encoding: Encoding) -> Numbers | None:
    """Return length scales that join configs which differ in their epochs alone; None where epochs do not vary."""
    if "max_epochs" not in encoding.varied:
        return None
    return np.array([0.5 if name == "max_epochs" else 1e-3 for name in encoding.columns])


def _fit_process(x: Numbers, y: Numbers, noise: Numbers, own: Numbers | None = None) -> Any:
    from scipy.optimize import minimize
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    # The white kernel takes the differences between cells that their neighbours do not explain.
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(x.shape[1], 0.5), (0.1, 10.0), nu=2.5)
    kernel += WhiteKernel(1e-2, (1e-5, 1.0))
    if own is not None:
        # What tells a config from its neighbours at few epochs tells it from them at more.
        kernel += ConstantKernel(0.1, (1e-4, 1e1)) * Matern(own, "fixed", nu=2.5)
    alpha = np.maximum(noise, 1e-8)
    process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None).fit(x, y)

    def loss(theta: Numbers) -> tuple[float, Numbers]:
        value, slope = process.log_marginal_likelihood(theta, eval_gradient=True, clone_kernel=False)
        return -value, -slope

    # scikit-learn's own optimizer warns of a length scale at its bound, which here means an axis without effect, and
    # Python cannot silence warnings in one thread alone.
    steps = {"maxiter": MAX_STEPS}
    found = minimize(loss, kernel.theta, method="L-BFGS-B", jac=True, bounds=kernel.bounds, options=steps)
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
    """Held-out predictions of one kind of cell: measured and predicted mean, standardized, and the row of each."""

    measured: Numbers
    mean: Numbers
    sd: Numbers
    row: npt.NDArray[Any]

    @property
    def deviation(self) -> Numbers:
        return np.asarray(np.abs(self.measured - self.mean) / self.sd)


def _hold_out(encoding: Encoding, rows: Sequence[Mapping[str, Any]], surrogate: _Surrogate) -> dict[Kind, _HeldOut]:
    """Predict measured cells of every kind without them."""
    parts: dict[Kind, list[tuple[Numbers, ...]]] = {kind: [] for kind in KINDS}
    for place, support in enumerate(find_support(encoding, rows, rows, leave_out=True)):
        if support and support.kind == "surrounded":
            alone = np.array([place])
            parts["surrounded"].append((surrogate.y[alone], *surrogate.leave_out(alone), np.array([str(place)])))
    for kind, name, group, wanted in rows_left_out(encoding, rows):
        mean, sd = surrogate.leave_out(group)
        row = np.full(int(wanted.sum()), name)
        parts[kind].append((surrogate.y[group][wanted], mean[wanted], sd[wanted], row))
    return {
        kind: _HeldOut(*(np.concatenate(column) for column in zip(*found, strict=True)))
        for kind, found in parts.items()
        if len({row for *_, names in found for row in names}) > 1
    }


def _conformal_factor(deviation: Numbers, level: float) -> float:
    """Return the half-width, in standard deviations, of a band of this level, from the deviations of held-out cells."""
    # The +1 counts the predicted cell itself, as split conformal asks. With few cells this is the greatest deviation.
    place = min(len(deviation), math.ceil(level * (len(deviation) + 1)))
    return float(np.partition(deviation, place - 1)[place - 1])


def _calibration(held: _HeldOut, scale: _Scale) -> Calibration:
    """Count the held-out predictions that hold, the width of their bands set by the other rows alone."""
    deviation, names, of_row = held.deviation, *np.unique(held.row, return_inverse=True)
    others = [deviation[of_row != row] for row in range(len(names))]
    inside = {
        level: deviation <= np.array([_conformal_factor(other, level) for other in others])[of_row]
        for level in (*_LEVELS, BAND_LEVEL)
    }
    half = np.array([_conformal_factor(other, BAND_LEVEL) for other in others])[of_row] * held.sd
    low, middle, high = scale.interval(held.mean, half)
    share = inside[BAND_LEVEL].mean()
    by_row = np.bincount(of_row, inside[BAND_LEVEL]) / np.bincount(of_row)
    reach = special.stdtrit(len(names) - 1, 0.975) * by_row.std(ddof=1) / math.sqrt(len(names))
    return Calibration(
        len(deviation), int(inside[BAND_LEVEL].sum()), max(0.0, share - reach), min(1.0, share + reach),
        float(np.median(high - low)), float(np.median(np.abs(middle - scale.inverse(held.measured)))),
        tuple((level, float(inside[level].mean())) for level in _LEVELS),
    )  # fmt: skip
