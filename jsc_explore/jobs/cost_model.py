"""How long a training takes, as a function of what is computed: a sum of costs, each of them never negative."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
# What is done in a run of one replica, in the columns of ``work``: whatever takes time is in proportion to one of them.
WORK = ("run", "steps", "steps x parameters", "jets", "jets x parameters", "evaluated", "evaluated x parameters")
# Evaluations beside those after each epoch: the points inside the first epoch, and the test part.
EARLY_POINTS = 10
# How fast a measured neighbour's word loses its weight against the formula: by 1/e where a step, or a network, differs
# by this factor.
_NEAR = 2.0
# Seconds of each kind of work on the machine of the first snapshot, and how strongly costs are drawn to their ratios.
_USUAL = np.array([5e-3, 1.4e-6, 1.3e-9, 1.4e-8, 4e-11, 1.2e-8, 1.2e-11])
_PULL = 0.1
# Neighbours speak with the weight of this many of the formula's own.
_FORMULA = 0.25


def work(batch_size: Numbers, parameters: Numbers, epochs: Numbers, train_rows: Numbers, val_rows: Numbers) -> Numbers:
    """Return what runs do, one row each, ``(n, len(WORK))``."""
    steps = epochs * np.ceil(train_rows / batch_size)
    jets, evaluated = epochs * train_rows, (epochs + EARLY_POINTS) * val_rows
    each = (np.ones_like(steps), steps, steps * parameters, jets, jets * parameters, evaluated, evaluated * parameters)
    return np.stack(each, axis=1)


class CostModel:
    """Costs of a second of each kind of work, and how runs alike deviate from them.

    Parameters
    ----------
    done: ``(n, len(WORK))`` of runs whose time is known; rows of one kind may be summed up in one.
    seconds: ``(n,)`` their times. ``count``: ``(n,)`` how many runs each row stands for.
    """

    def __init__(self, done: Numbers, seconds: Numbers, count: Numbers) -> None:
        self._done, self._log_seconds = done, np.log(seconds)
        self._weight = np.minimum(count, 10.0)
        self._costs = _costs(done, seconds, self._weight)
        self._residual = self._log_seconds - np.log(self._formula(done))

    def seconds(self, wanted: Numbers, without: npt.NDArray[np.bool_] | None = None) -> Numbers:
        """Return the expected times of runs, ``(m,)``; the rows ``without[i]`` of the known ones are not asked about i.

        The formula, corrected by what runs near in step, network and length took beside it.
        """
        distance = np.abs(_place(wanted)[:, None, :] - _place(self._done)[None, :, :]).sum(axis=2)
        near = np.exp(-distance / np.log(_NEAR)) * self._weight
        if without is not None:
            near = np.where(without, 0.0, near)
        correction = (near * self._residual).sum(axis=1) / (near.sum(axis=1) + _FORMULA)
        return np.asarray(self._formula(wanted) * np.exp(correction))

    def errors(self) -> Numbers:
        """Return the relative error of each known row, predicted from the rows of other work alone, ``(n,)``."""
        places, group = np.unique(np.round(_place(self._done), 6), axis=0, return_inverse=True)
        found = np.zeros(len(self._done))
        for one in range(len(places)):
            out = group.ravel() == one
            if out.all():
                return np.full(len(found), np.inf)
            rest = CostModel(self._done[~out], np.exp(self._log_seconds[~out]), self._weight[~out])
            found[out] = rest.seconds(self._done[out])
        return np.abs(found / np.exp(self._log_seconds) - 1)

    def _formula(self, wanted: Numbers) -> Numbers:
        return np.asarray(np.maximum(wanted @ self._costs, 1e-6))


def _place(done: Numbers) -> Numbers:
    """Return where runs lie: logarithms of steps, of jets a step, of parameters (twice: it matters more)."""
    steps, jets = done[:, 1], done[:, 3]
    return np.stack([np.log(steps) / 4, np.log(jets / steps), 2 * np.log(done[:, 2] / steps)], axis=1)


def _costs(done: Numbers, seconds: Numbers, weight: Numbers) -> Numbers:
    """Return non-negative costs with the least sum of relative deviations, by least squares weighted anew."""
    from scipy.optimize import nnls

    usual = _USUAL * float(np.exp(np.average(np.log(seconds / (done @ _USUAL)), weights=weight)))
    # In units of the usual costs, so that a pull towards them decides what a few runs leave open, and nothing else.
    relative = done * usual / seconds[:, None]
    pull = np.full(len(usual), np.sqrt(_PULL))
    trust = np.sqrt(weight)
    costs: Numbers = np.ones(done.shape[1])
    for _ in range(10):
        costs = nnls(np.vstack([relative * trust[:, None], np.diag(pull)]), np.concatenate([trust, pull]))[0]
        deviation = np.abs(relative @ costs - 1)
        trust = np.sqrt(weight / np.maximum(deviation, 0.02))
    return np.asarray(costs * usual)
