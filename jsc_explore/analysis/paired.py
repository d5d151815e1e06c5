"""Compare two configs seed by seed: difference, interval, verdict and its sentence, seeds needed to detect it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from jsc_explore.analysis.selection import LEVEL, MIN_SEEDS, corrected_p_values, metric_table, p_values
from jsc_explore.analysis.statistics import MIN_INTERVAL_SEEDS, median_spread

CONFIDENCE = 1 - LEVEL
POWER = 0.8
# The largest number of seeds that the sentence of a verdict recommends.
MAX_SEEDS = 200
# At this level a test may be repeated after each added seed, from 3 up to MAX_SEEDS seeds, with at most 5% false alarms
# in all (`python -m bench statistics`); at a level of 5% there are 40%.
REPEATED_LEVEL = 0.0025

Verdict = Literal["better", "worse", "inconclusive", "equal", "unknown"]


@dataclass(frozen=True)
class Family:
    """The ``n_configs`` configs among which a pair was chosen; ``p`` is that of the pair, corrected for all pairs."""

    n_configs: int
    p: float

    @property
    def n_pairs(self) -> int:
        """How many pairs of configs there are."""
        return self.n_configs * (self.n_configs - 1) // 2


@dataclass(frozen=True)
class SeedsNeeded:
    """How many paired seeds detect a difference as large as ``measured``, and as the ends of its 95% interval.

    None: more than ``MAX_SEEDS``.
    """

    low: int | None
    measured: int | None
    high: int | None


@dataclass(frozen=True)
class Difference:
    """The metric of B minus that of A in ``n`` common seeds: its ``median``, and the 95% ``interval`` of that if any.

    ``verdict`` is about B: better, worse, inconclusive, equal (the same in every seed), unknown (no interval). ``p`` of
    Student's paired t test is for a pair and a number of seeds that were planned. The verdict is ``decided`` if it also
    holds for a pair chosen from its ``family`` and for a test that is repeated after each added seed.
    """

    n: int
    median: float | None = None
    interval: tuple[float, float] | None = None
    verdict: Verdict = "unknown"
    p: float = 1.0
    family: Family | None = None
    needed: SeedsNeeded | None = None

    @property
    def decided(self) -> bool:
        """Whether the verdict holds although seeds may have been added and the pair chosen by its results."""
        chosen = self.family is not None and self.family.p > LEVEL
        return self.verdict in ("better", "worse") and self.p <= REPEATED_LEVEL and not chosen


def compare(
    a: Mapping[int, float], b: Mapping[int, float], *, higher_is_better: bool, family: Family | None = None
) -> Difference:
    """Compare two configs by their metrics per seed, in the seeds that both have.

    Runs of one seed share the batch order and, for one network, the initial weights, so that the effect of the seed
    cancels. The median and its interval hold for any distribution, while the interval of a mean of seeds with two humps
    covers too rarely; the p value is right for configs that do not differ.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        return Difference(0)
    differences = np.array([b[seed] - a[seed] for seed in common])
    median = float(np.median(differences))
    if len(common) < MIN_INTERVAL_SEEDS:
        return Difference(len(common), median)
    low, high = map(float, median_spread(differences))
    p = float(p_values(metric_table({"A": a, "B": b}), 0)[1])
    if low == high == 0:
        verdict: Verdict = "equal"
    elif low <= 0 <= high or p > LEVEL:
        verdict = "inconclusive"
    else:
        verdict = "better" if (low > 0) == higher_is_better else "worse"
    sd = float(differences.std(ddof=1))
    level = min(REPEATED_LEVEL, LEVEL / (family.n_pairs if family else 1))
    needed = seeds_range(float(differences.mean()) / sd, len(common), level) if sd else None
    return Difference(len(common), median, (low, high), verdict, p, family, needed)


def family_of(metrics: Mapping[str, Mapping[int, float]], a: str, b: str) -> Family | None:
    """Return the family of two configs, by id, among ``metrics`` by config and seed; None if it is only these two."""
    names = [name for name, own in metrics.items() if len(own) >= MIN_SEEDS]
    if len(names) <= 2 or a == b or not {a, b} <= set(names):
        return None
    corrected = corrected_p_values(metric_table({name: metrics[name] for name in names}), names.index(a))
    return Family(len(names), float(corrected[names.index(b)]))


def effect_interval(effect: float, n: int) -> tuple[float, float]:
    """Return the 95% interval of an effect, mean / sd of ``n`` paired differences.

    Source: the noncentral t distribution, as in Steiger and Fouladi (1997), "Noncentrality interval estimation".
    """
    t = effect * math.sqrt(n)
    reach = 50 + 2 * abs(t)

    def end(probability: float) -> float:
        # The function falls with the shift. Bisection is exact to 1e-8; scipy's root finders would take 23 MB.
        low, high = t - reach, t + reach
        for _ in range(34):
            middle = (low + high) / 2
            low, high = (middle, high) if _noncentral_cdf(t, n - 1, middle) > probability else (low, middle)
        return low / math.sqrt(n)

    return end(0.5 + CONFIDENCE / 2), end(0.5 - CONFIDENCE / 2)


def seeds_range(effect: float, n: int, level: float = REPEATED_LEVEL) -> SeedsNeeded:
    """Return the seeds needed for an ``effect`` measured with ``n`` seeds, and for the ends of its 95% interval."""
    low, high = effect_interval(abs(effect), n)
    smallest = max(low, 0.0)
    return SeedsNeeded(seeds_needed(max(-low, high), level), seeds_needed(effect, level), seeds_needed(smallest, level))


def seeds_needed(effect: float, level: float = REPEATED_LEVEL) -> int | None:
    """Return how many paired seeds detect an effect (mean / sd), two-sided at this level, with a power of 80%.

    None: more than ``MAX_SEEDS``. Source: the noncentral t distribution, as in Cohen (1988), chapter 2.
    """
    # The power grows with n: bisect.
    low, high = MIN_SEEDS, MAX_SEEDS
    if _power(abs(effect), high, level) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if _power(abs(effect), middle, level) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def verdict_text(difference: Difference, unit: str, scale: float = 1.0, names: tuple[str, str] = ("A", "B")) -> str:
    """Return the verdict as one line; ``unit`` and ``scale`` are those of the metric, e.g. points and 100."""
    a, b = names
    d = difference
    if d.median is None:
        return f"nothing to compare yet: {a} and {b} have no seed in common"
    seeds = f"{d.n} seed{'s' if d.n > 1 else ''}"
    if d.interval is None:
        signed = f"{format_difference(d.median * scale, signed=True)}{unit}"
        return f"{b} − {a} is {signed} in {seeds}: fewer than {MIN_INTERVAL_SEEDS} give no interval"
    if d.verdict == "equal":
        return f"{a} and {b} score the same in all {seeds}"
    if d.verdict == "inconclusive":
        return f"not distinguishable with {seeds} ({b} − {a}: {_interval_text(d, unit, scale, signed=True)})"
    better, worse = (b, a) if d.verdict == "better" else (a, b)
    spread = _interval_text(d, unit, scale)
    if d.decided:
        return f"{better} is better than {worse} by {spread}"
    return f"{better} scored better than {worse} by {spread} in {seeds}: not enough for a verdict"


def reason_text(difference: Difference) -> str:
    """Return what a verdict allows for: the p value, the configs looked at, and tests that are repeated."""
    d = difference
    if d.interval is None or d.verdict == "equal":
        return ""
    text = f"p = {d.p:.2g} for a pair and a number of seeds planned beforehand"
    if d.family is not None:
        text += (
            f", {d.family.p:.2g} for a pair chosen from {d.family.n_configs} configs by its results "
            f"(Holm, {d.family.n_pairs:,} pairs)"
        )
    return (
        f"{text}. A verdict needs p ≤ {REPEATED_LEVEL:g}"
        + (f" and a corrected p ≤ {LEVEL:g}" if d.family is not None else "")
        + f": then you may add seeds and look after each, up to {MAX_SEEDS}, with at most 5% false alarms. "
        "Looking again until p ≤ 0.05 would give up to 40%."
    )


def needed_text(difference: Difference) -> str:
    """Return how many seeds would decide, as a range; empty where a verdict is decided or cannot be."""
    d = difference
    if d.decided or d.needed is None:
        return ""
    low, measured, high = (
        f"more than {MAX_SEEDS}" if n is None else str(n) for n in (d.needed.low, d.needed.measured, d.needed.high)
    )
    if low == high:
        return f"Even {MAX_SEEDS} seeds of each would hardly detect so small a difference."
    return (
        f"Seeds of each needed in all for a verdict, with a power of {POWER:.0%}: {low} to {high} "
        f"by the 95% interval of the effect, that of normal differences; {measured} if it is as measured."
    )


def _interval_text(difference: Difference, unit: str, scale: float, *, signed: bool = False) -> str:
    """Format median and interval; without ``signed`` by how much the better one is better."""
    assert difference.median is not None
    assert difference.interval is not None
    values = [scale * value for value in (difference.median, *difference.interval)]
    if not signed:
        values = [abs(values[0]), *sorted(abs(end) for end in values[1:])]
    middle, low, high = (format_difference(value, signed=signed) for value in values)
    interval = f"95% interval {low} to {high}"
    return f"{middle}{unit}, {interval}" if signed else f"{middle}{unit} ({interval})"


def format_difference(value: float, *, signed: bool = False) -> str:
    """Format a difference with one decimal place, or two digits where it is small: 2.1, 0.05, 0.0012."""
    digits = 1 if abs(value) >= 0.1 or value == 0 else min(5, 1 - math.floor(math.log10(abs(value))))
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


@lru_cache(maxsize=4096)
def _power(effect: float, n: int, level: float) -> float:
    critical, shift = -float(special.stdtrit(n - 1, level / 2)), effect * math.sqrt(n)
    return 1 - _noncentral_cdf(critical, n - 1, shift) + _noncentral_cdf(-critical, n - 1, shift)


def _noncentral_cdf(t: float, freedom: int, shift: float) -> float:
    # scipy's noncentral t returns 0 or nan in its tails; averaging the normal distribution over that of the sample
    # spread does not.
    return float(np.mean(special.ndtr(t * _spreads(freedom) - shift)))


@lru_cache(maxsize=256)
def _spreads(freedom: int) -> npt.NDArray[np.float64]:
    places = (np.arange(2000) + 0.5) / 2000
    return np.asarray(np.sqrt(special.gammaincinv(freedom / 2, places) * 2 / freedom))
