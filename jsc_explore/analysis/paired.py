"""Two configs compared seed by seed: the difference, its interval, and what it would take to tell them apart."""

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
# Beyond this nobody trains more seeds to settle a question.
MAX_SEEDS = 200

Verdict = Literal["better", "worse", "open", "equal", "unknown"]


@dataclass(frozen=True)
class Difference:
    """Metric of B less that of A: ``mean`` ± ``half`` (95%) over ``n`` seeds, ``paired`` or not.

    ``verdict`` is B's: better, worse, open (not distinguishable), equal (the same in every seed), unknown (no interval
    can be had). ``more`` seeds of each would tell a difference of this size with a power of 80%; None: more than
    ``MAX_SEEDS`` in all, or not known.
    """

    n: int
    mean: float | None
    half: float | None
    verdict: Verdict
    more: int | None
    paired: bool


def compare(a: Mapping[int, float], b: Mapping[int, float], *, higher_is_better: bool) -> Difference:
    """Compare two configs by their metrics per seed.

    Seeds that both have are paired: they share batch order and, for one network, initial weights, so that what the seed
    does to both cancels (Student's t on the differences). Without a common seed the means are compared as they are
    (Welch, Biometrika 34 (1947) 28).
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
    """Return how many paired seeds tell a difference of this mean and spread, two-sided at 5%, with a power of 80%.

    None if that takes more than ``MAX_SEEDS``. Source: the noncentral t distribution, as in Cohen (1988), chapter 2.
    """
    if mean == 0:
        return None
    if sd == 0:
        return 2
    # The power grows with n: halve the range.
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
    """Say in one line what a difference tells: ``unit`` and ``scale`` are those of the metric, e.g. points and 100."""
    a, b = names
    d = difference
    if d.n == 0 or d.mean is None:
        return f"nothing to compare yet: {a} or {b} has no finished run"
    seeds = f"{d.n} seed{'s' if d.n > 1 else ''}"
    if d.half is None:
        return f"{b} − {a} is {_figure(d.mean * scale, signed=True)}{unit} in {seeds}: one is not enough to tell"
    spread = f"{_figure(abs(d.mean) * scale)} ± {_figure(d.half * scale)}{unit}"
    if d.verdict == "equal":
        return f"{a} and {b} score the same in all {seeds}"
    if d.verdict == "open":
        signed = f"{_figure(d.mean * scale, signed=True)} ± {_figure(d.half * scale)}{unit}"
        return f"not distinguishable with {seeds} (B − A: {signed}): {_remedy(d)}".replace("B − A", f"{b} − {a}")
    better, worse = (b, a) if d.verdict == "better" else (a, b)
    return f"{better} is better than {worse} by {spread}"


def _remedy(difference: Difference) -> str:
    if difference.more is not None:
        more = max(1, difference.more)
        return f"about {more} more would tell a difference of this size"
    if difference.paired:
        return f"even {MAX_SEEDS} seeds would hardly tell so small a difference"
    return "train the same seeds of both to pair them"


def _figure(value: float, *, signed: bool = False) -> str:
    digits = 1 if abs(value) >= 0.1 or value == 0 else 2
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def _verdict(mean: float, half: float | None, higher_is_better: bool) -> Verdict:
    if half is None:
        return "unknown"
    if mean == 0 and half == 0:
        return "equal"
    if abs(mean) <= half:
        return "open"
    return "better" if (mean > 0) == higher_is_better else "worse"


def _more(mean: float, sd: float, n: int) -> int | None:
    needed = seeds_needed(mean, sd)
    return None if needed is None else max(0, needed - n)


@lru_cache(maxsize=4096)
def _power(effect: float, n: int) -> float:
    # scipy's noncentral t returns 0 or nan far out; the mean over the spread's distribution does not.
    freedom, places = n - 1, (np.arange(2000) + 0.5) / 2000
    critical, shift = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom), effect * math.sqrt(n)
    reach = critical * np.sqrt(stats.chi2.ppf(places, freedom) / freedom)
    return float(np.mean(special.ndtr(shift - reach) + special.ndtr(-shift - reach)))
