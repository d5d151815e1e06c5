"""Compare how often two configs have a silent class: rates, their intervals, and a test of their difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special

from jsc_explore.analysis.paired import REPEATED_LEVEL
from jsc_explore.analysis.selection import LEVEL, MIN_SEEDS
from jsc_explore.analysis.statistics import proportion_interval

# Fewer seeds do not show how often a class is silent: 5 of 5 is compatible with a rate of one half.
MIN_RATE_SEEDS = 10


@dataclass(frozen=True)
class RateDifference:
    """In ``silent`` of ``seeds`` seeds of A and of B some class is silent.

    ``p`` is that of McNemar's exact test on the ``n`` common seeds if ``paired``, otherwise of Fisher's exact test, and
    ``n`` the smaller number of seeds.
    """

    silent: tuple[int, int]
    seeds: tuple[int, int]
    n: int
    p: float
    paired: bool


def compare_rates(a: Mapping[int, bool], b: Mapping[int, bool]) -> RateDifference:
    """Compare two configs by whether each seed has a silent class.

    Sources: McNemar, Psychometrika 12 (1947) 153, with the exact binomial distribution; Fisher, JRSS 98 (1935) 39.
    """
    common = sorted(a.keys() & b.keys())
    silent, seeds = (sum(a.values()), sum(b.values())), (len(a), len(b))
    if len(common) >= MIN_SEEDS:
        only_a, only_b = (sum(one[seed] and not other[seed] for seed in common) for one, other in ((a, b), (b, a)))
        p = min(1.0, 2 * float(special.bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
        return RateDifference(silent, seeds, len(common), p, paired=True)
    from scipy.stats import fisher_exact  # scipy.stats takes 45 MB and half a second, and is seldom needed.

    table = [[count, n - count] for count, n in zip(silent, seeds, strict=True)]
    return RateDifference(silent, seeds, min(seeds), float(fisher_exact(table).pvalue), paired=False)


def rates_text(rates: RateDifference) -> str:
    """Return in one line the rates of the sides that have seeds and, from ``MIN_RATE_SEEDS`` seeds on, their test."""
    parts = []
    for side, count, n in zip("AB", rates.silent, rates.seeds, strict=True):
        if not n:
            continue
        low, high = proportion_interval(count, n)
        parts.append(f"{count} of {n} seeds of {side} ({100 * low:.0f} to {100 * high:.0f}%)")
    text = f"A class is silent in {' and in '.join(parts)}; Clopper–Pearson intervals, at least 95%"
    if rates.n < MIN_RATE_SEEDS:
        return f"{text}."
    test = f"{'McNemar' if rates.paired else 'Fisher'}, p = {rates.p:.2g}"
    if rates.p <= REPEATED_LEVEL:
        return f"{text}. The rates differ ({test})."
    if rates.p <= LEVEL:
        return f"{text}. The rates differ if this number of seeds was planned and is looked at once ({test})."
    return f"{text}. The rates are not distinguishable ({test})."
