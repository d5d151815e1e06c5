"""Compare two configs seed by seed: difference, interval, verdict and its sentence, seeds needed to detect it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special, stats

from jsc_explore.analysis.statistics import half_width

CONFIDENCE = 0.95
POWER = 0.8
# The largest number of seeds that the sentence of a verdict recommends.
MAX_SEEDS = 200

Verdict = Literal["better", "worse", "inconclusive", "equal", "unknown"]


@dataclass(frozen=True)
class Difference:
    """The metric of B minus that of A: ``mean`` ± ``half_width`` (95%) over ``n`` seeds, ``paired`` or not.

    ``verdict`` is about B: better, worse, inconclusive (not distinguishable), equal (the same in every seed), unknown
    (no interval). ``more_seeds`` of each would detect a difference of this size with a power of 80%; None: more than
    ``MAX_SEEDS`` in all, or not known.
    """

    n: int
    mean: float | None
    half_width: float | None
    verdict: Verdict
    more_seeds: int | None
    paired: bool


def compare(a: Mapping[int, float], b: Mapping[int, float], *, higher_is_better: bool) -> Difference:
    """Compare two configs by their metrics per seed.

    Seeds that both have are paired (Student's t on the differences): runs of one seed share the batch order and, for
    one network, the initial weights, so that the effect of the seed cancels. Without a common seed the means are
    compared unpaired (Welch, Biometrika 34 (1947) 28).
    """
    common = sorted(a.keys() & b.keys())
    if common:
        differences = np.array([b[seed] - a[seed] for seed in common])
        sd = float(differences.std(ddof=1)) if len(common) > 1 else None
        mean, half = float(differences.mean()), half_width(sd, len(common), CONFIDENCE)
        more = None if sd is None else _more(mean, sd, len(common))
        return Difference(len(common), mean, half, _verdict(mean, half, higher_is_better), more, paired=True)
    if not a or not b:
        return Difference(0, None, None, "unknown", None, paired=False)
    first, second = np.array(list(a.values())), np.array(list(b.values()))
    mean, half = float(second.mean() - first.mean()), None
    if min(len(first), len(second)) > 1 and first.std() + second.std() > 0:
        interval = stats.ttest_ind(second, first, equal_var=False).confidence_interval(CONFIDENCE)
        half = float(interval.high - interval.low) / 2
    return Difference(min(len(a), len(b)), mean, half, _verdict(mean, half, higher_is_better), None, paired=False)


def seeds_needed(mean: float, sd: float) -> int | None:
    """Return how many paired seeds detect a difference of this mean and spread, two-sided at 5%, with a power of 80%.

    None: more than ``MAX_SEEDS``. Source: the noncentral t distribution, as in Cohen (1988), chapter 2.
    """
    if mean == 0:
        return None
    if sd == 0:
        return 2
    # The power grows with n: bisect.
    low, high = 2, MAX_SEEDS
    if _power(abs(mean) / sd, high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if _power(abs(mean) / sd, middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def verdict_text(difference: Difference, unit: str, scale: float = 1.0, names: tuple[str, str] = ("A", "B")) -> str:
    """Return the verdict as one line; ``unit`` and ``scale`` are those of the metric, e.g. points and 100."""
    a, b = names
    d = difference
    if d.n == 0 or d.mean is None:
        return f"nothing to compare yet: {a} or {b} has no finished run"
    seeds = f"{d.n} seed{'s' if d.n > 1 else ''}"
    if d.half_width is None:
        return f"{b} − {a} is {_number(d.mean * scale, signed=True)}{unit} in {seeds}: one seed gives no interval"
    spread = f"{_number(abs(d.mean) * scale)} ± {_number(d.half_width * scale)}{unit}"
    if d.verdict == "equal":
        return f"{a} and {b} score the same in all {seeds}"
    if d.verdict == "inconclusive":
        signed = f"{_number(d.mean * scale, signed=True)} ± {_number(d.half_width * scale)}{unit}"
        return f"not distinguishable with {seeds} (B − A: {signed}): {_remedy(d)}".replace("B − A", f"{b} − {a}")
    better, worse = (b, a) if d.verdict == "better" else (a, b)
    return f"{better} is better than {worse} by {spread}"


def _remedy(difference: Difference) -> str:
    if difference.more_seeds is not None:
        more = max(1, difference.more_seeds)
        return f"about {more} more seeds would detect a difference of this size"
    if difference.paired:
        return f"even {MAX_SEEDS} seeds would hardly detect so small a difference"
    return "train the same seeds of both to pair them"


def _number(value: float, *, signed: bool = False) -> str:
    digits = 1 if abs(value) >= 0.1 or value == 0 else 2
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _verdict(mean: float, half: float | None, higher_is_better: bool) -> Verdict:
    if half is None:
        return "unknown"
    if mean == 0 and half == 0:
        return "equal"
    if abs(mean) <= half:
        return "inconclusive"
    return "better" if (mean > 0) == higher_is_better else "worse"


def _more(mean: float, sd: float, n: int) -> int | None:
    needed = seeds_needed(mean, sd)
    return None if needed is None else max(0, needed - n)


@lru_cache(maxsize=4096)
def _power(effect: float, n: int) -> float:
    # scipy's noncentral t returns 0 or nan in its tails; averaging the normal power over the distribution of the
    # sample spread does not.
    freedom, places = n - 1, (np.arange(2000) + 0.5) / 2000
    critical, shift = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom), effect * math.sqrt(n)
    reach = critical * np.sqrt(stats.chi2.ppf(places, freedom) / freedom)
    return float(np.mean(special.ndtr(shift - reach) + special.ndtr(-shift - reach)))
