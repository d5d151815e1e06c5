"""The Pareto front: what nothing else beats at once in cost and in score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def front(cost: npt.ArrayLike, score: npt.ArrayLike, *, higher_is_better: bool = True) -> npt.NDArray[np.bool_]:
    """Return which points no other point beats: none is as cheap and as good, and cheaper or better.

    ``cost`` and ``score`` are ``(n,)`` and finite. Points that are equal in both stand or fall together.
    """
    costs = np.asarray(cost, float)
    goods = np.asarray(score, float) * (1 if higher_is_better else -1)
    order = np.lexsort((-goods, costs))
    kept = np.zeros(len(costs), bool)
    best, at = -np.inf, np.nan
    for index in order:
        if goods[index] > best:
            best, at = goods[index], costs[index]
            kept[index] = True
        elif goods[index] == best and costs[index] == at:
            kept[index] = True
    return kept
