"""Cost model: predict training time as a sum of non-negative costs per kind of work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from jsc_explore import network

Numbers = npt.NDArray[np.float64]
# The columns of ``work_matrix``: amounts of work of one run, each with a time proportional to it. Products are the
# multiply-adds of one jet; launches are eager steps, on a GPU divided by the replicas of a stack, which share them.
# Products beyond what the cache holds cost more, and so do the parameters of networks so large that a chunk is a single
# step, before and after which they are copied. Activations count for trained and evaluated jets.
WORK = (
    "run", "steps", "steps x parameters", "jets", "jets x products", "evaluated", "evaluated x products", "launches",
    "steps x copied parameters", "jets x uncached products", "jets x activations",
)  # fmt: skip
CACHED_PRODUCTS, UNCOPIED_PARAMETERS = 250_000, 2_000_000
# Evaluations beside the one after each epoch: points within the first epoch, and the test part.
EARLY_POINTS = 10
# The weight of a measured run falls by 1/e for each factor of this size in steps or products.
_LENGTH_SCALE = 2.0
# Seconds per unit of work on one core of a cloud machine: those of the kernel are fitted to the first snapshot and, for
# large networks, to steps of 10,000 to 5,000,000 parameters at batch 16 to 1024; those of eager steps to the same, and
# of compiled ones to docs/decisions/training.md ("Compiled programs step one replica"). Steps on a GPU were not
# measured. What no run was measured for is predicted from them.
PRIOR_COSTS: Mapping[str, Numbers] = {
    "kernel": np.array([5e-3, 1.4e-6, 1.3e-9, 1.4e-8, 4e-11, 1.2e-8, 1.2e-11, 0.0, 2.5e-8, 8e-11, 0.0]),
    "compiled": np.array([1e-2, 8e-5, 6e-9, 1.9e-7, 1e-10, 1.2e-6, 2e-11, 2.2e-3, 0.0, 0.0, 6e-9]),
    "eager": np.array([1e-2, 5e-5, 7e-8, 6.6e-7, 1e-10, 1.2e-6, 2e-11, 2.2e-3, 0.0, 0.0, 8e-9]),
    "eager on GPU": np.array([1e-2, 5e-5, 1e-9, 3e-7, 3e-10, 1e-7, 5e-11, 3.5e-3, 0.0, 0.0, 0.0]),
}
# How strongly costs are regularised towards the ratios of the prior ones.
_REGULARISATION = 0.1
# Weight of the formula against measured runs of similar size, counted in runs.
_FORMULA_WEIGHT = 0.25


@lru_cache(maxsize=10_000)
def arithmetic(model: str) -> dict[str, int]:
    """Return a network's parameters, and the ``products`` (multiply-adds) and ``activations`` of one jet in it.

    A convolution uses its parameters at every position.
    """
    layers = network.parse(model).layers
    return {
        "parameters": sum(layer.parameters for layer in layers),
        "products": sum(layer.parameters * math.prod(layer.shape_out[1:]) for layer in layers),
        "activations": sum(math.prod(layer.shape_out) for layer in layers),
    }


def work_matrix(rows: Sequence[Mapping[str, Any]]) -> Numbers:
    """Return the work of runs, ``(n, len(WORK))``, given batch size, arithmetic, epochs, eager epochs, numbers of jets.

    ``eager_epochs`` is divided by the replicas that share the launches of a step.
    """

    def column(name: str) -> Numbers:
        return np.array([row[name] for row in rows], float)

    parameters, each, epochs, train = map(column, ("parameters", "products", "epochs_run", "train_rows"))
    steps_per_epoch = np.ceil(train / column("batch_size"))
    steps, jets, evaluated = epochs * steps_per_epoch, epochs * train, (epochs + EARLY_POINTS) * column("val_rows")
    columns = (
        np.ones_like(steps), steps, steps * parameters, jets, jets * each, evaluated, evaluated * each,
        column("eager_epochs") * steps_per_epoch, steps * np.maximum(0, parameters - UNCOPIED_PARAMETERS),
        jets * np.maximum(0, each - CACHED_PRODUCTS), (jets + evaluated) * column("activations"),
    )  # fmt: skip
    return np.stack(columns, axis=1)


class CostModel:
    """Costs per kind of work, corrected by the residuals of similar measured runs.

    Parameters
    ----------
    work: ``(n, len(WORK))`` of runs with known times; a row may stand for several runs of equal sizes.
    seconds: ``(n,)`` their times. ``count``: ``(n,)`` the number of runs of each row.
    prior: ``(len(WORK),)`` costs whose ratios are used for what the runs leave undetermined.
    """

    def __init__(self, work: Numbers, seconds: Numbers, count: Numbers, prior: Numbers = PRIOR_COSTS["kernel"]) -> None:
        self._work, self._log_seconds, self._prior = work, np.log(seconds), prior
        self._weight = np.minimum(count, 10.0)
        self._costs = _fit_costs(work, seconds, self._weight, prior)
        self._residual = self._log_seconds - np.log(self._formula(work))

    @property
    def sizes(self) -> int:
        """The number of different sizes of runs with known times."""
        return len(np.unique(np.round(_position(self._work), 6), axis=0))

    def seconds(self, work: Numbers) -> Numbers:
        """Return the predicted times of runs, ``(m,)``: the formula times a correction from similar measured runs."""
        distance = np.abs(_position(work)[:, None, :] - _position(self._work)[None, :, :]).sum(axis=2)
        weight = np.exp(-distance / np.log(_LENGTH_SCALE)) * self._weight
        correction = (weight * self._residual).sum(axis=1) / (weight.sum(axis=1) + _FORMULA_WEIGHT)
        return np.asarray(self._formula(work) * np.exp(correction))

    def errors(self) -> Numbers:
        """Return each row's relative error, ``(n,)``, when a model without all rows of its sizes predicts it."""
        positions, group = np.unique(np.round(_position(self._work), 6), axis=0, return_inverse=True)
        predicted = np.zeros(len(self._work))
        for i in range(len(positions)):
            held_out = group.ravel() == i
            if held_out.all():
                return np.full(len(predicted), np.inf)
            known = self._work[~held_out], np.exp(self._log_seconds[~held_out]), self._weight[~held_out]
            rest = CostModel(*known, self._prior)
            predicted[held_out] = rest.seconds(self._work[held_out])
        return np.abs(predicted / np.exp(self._log_seconds) - 1)

    def _formula(self, work: Numbers) -> Numbers:
        return np.asarray(np.maximum(work @ self._costs, 1e-6))


def _position(work: Numbers) -> Numbers:
    """Return runs as points: logarithms of steps, of jets per step, and of products, which matter twice as much."""
    steps, jets = work[:, 1], work[:, 3]
    return np.stack([np.log(steps) / 4, np.log(jets / steps), 2 * np.log(work[:, 4] / jets)], axis=1)


def speed_factor(work: Numbers, seconds: Numbers, weight: Numbers, prior: Numbers = PRIOR_COSTS["kernel"]) -> float:
    """Return how many times longer the runs took than the prior costs predict, as a weighted geometric mean."""
    return float(np.exp(np.average(np.log(seconds / (work @ prior)), weights=weight)))


def nonnegative_least_squares(system: Numbers, target: Numbers) -> Numbers:
    """Return the ``x >= 0``, ``(n,)``, with the least ``|system @ x - target|``, for ``n`` independent columns.

    As ``scipy.optimize.nnls``, whose package takes 20 MB in the page's process. Source: Murty, Opsearch 11 (1974) 1:
    moving the last variable that is wrong, between those that are zero and the others, ends for such systems.
    """
    gram, moment = system.T @ system, system.T @ target
    tolerance = 1e-9 * float(np.abs(moment).max(initial=1e-300))
    positive = np.ones(len(moment), bool)
    while True:
        x = np.zeros(len(moment))
        x[positive] = np.linalg.solve(gram[np.ix_(positive, positive)], moment[positive])
        wrong = np.flatnonzero(np.where(positive, x < 0, gram @ x - moment < -tolerance))
        if not len(wrong):
            return x
        positive[wrong[-1]] ^= True


def _fit_costs(work: Numbers, seconds: Numbers, weight: Numbers, prior: Numbers) -> Numbers:
    """Return the non-negative costs with the least sum of relative deviations, by reweighted least squares."""
    prior = prior * speed_factor(work, seconds, weight, prior)
    # In units of the prior, so that the regularisation decides only what few runs leave undetermined.
    relative = work * prior / seconds[:, None]
    ridge = np.full(len(prior), np.sqrt(_REGULARISATION))
    row_weight = np.sqrt(weight)
    costs: Numbers = np.ones(work.shape[1])
    for _ in range(10):
        system = np.vstack([relative * row_weight[:, None], np.diag(ridge)])
        costs = nonnegative_least_squares(system, np.concatenate([row_weight, ridge]))
        deviation = np.abs(relative @ costs - 1)
        row_weight = np.sqrt(weight / np.maximum(deviation, 0.02))
    return np.asarray(costs * prior)
