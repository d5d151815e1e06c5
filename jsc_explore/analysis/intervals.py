"""Confidence intervals of a mean over seeds."""

from __future__ import annotations

import math
from functools import lru_cache


def half_width(sd: float | None, n: int, confidence: float = 0.95) -> float | None:
    """Return half the width of Student's t interval of a mean of ``n`` values; None for fewer than two.

    Raises nothing. Source: Student, Biometrika 6 (1908) 1, in any textbook.
    """
    if sd is None or n < 2:
        return None
    return _t_quantile(n - 1, 0.5 + confidence / 2) * sd / math.sqrt(n)


@lru_cache(maxsize=256)
def _t_quantile(freedom: int, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
