"""Formulas that stand for functions of scipy which the page does not import: they give the same numbers."""

import numpy as np
import pytest
from scipy import optimize, stats

from jsc_explore.analysis.paired import effect_interval
from jsc_explore.analysis.silent_rates import compare_rates
from jsc_explore.analysis.statistics import median_spread, proportion_interval
from jsc_explore.jobs.cost_model import nonnegative_least_squares


@pytest.mark.parametrize("n", [1, 5, 10, 200])
def test_the_interval_of_a_rate_is_that_of_clopper_and_pearson(n):
    for count in range(n + 1):
        expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
        assert proportion_interval(count, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [5, 6, 10, 31, 200])
def test_the_interval_of_a_median_covers_at_least_its_level_between_order_statistics(n):
    low, high = median_spread(np.arange(1.0, n + 1))
    rank = int(low)
    inside = 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5)
    assert inside >= 0.95 or n == 5  # The range of five covers 93.75%.
    assert 1 - 2 * stats.binom.cdf(rank, n, 0.5) < 0.95
    assert low + high == pytest.approx(n + 1)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 6), (3, 3), (2, 9)])
def test_mcnemars_p_is_that_of_the_exact_binomial_test(only_a, only_b):
    n = only_a + only_b + 4
    a = {seed: seed < only_a for seed in range(n)}
    b = {seed: only_a <= seed < only_a + only_b for seed in range(n)}
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert compare_rates(a, b).p == pytest.approx(expected)


@pytest.mark.parametrize("effect", [0.0, 0.5, -2.0])
def test_the_interval_of_an_effect_ends_where_the_noncentral_t_has_its_quantiles(effect):
    n = 12
    low, high = effect_interval(effect, n)
    for end, share in ((low, 0.975), (high, 0.025)):
        assert stats.nct.cdf(effect * n**0.5, n - 1, end * n**0.5) == pytest.approx(share, abs=2e-4)


def test_nonnegative_least_squares_are_those_of_scipy():
    rng = np.random.default_rng(0)
    zeros = 0
    for _ in range(200):
        system = np.vstack([rng.normal(size=(rng.integers(1, 30), 5)) * 10 ** rng.uniform(-2, 2, 5), 0.1 * np.eye(5)])
        target = np.concatenate([np.ones(len(system) - 5), np.full(5, 0.1)])
        found = nonnegative_least_squares(system, target)
        zeros += int((found == 0).sum())
        assert found == pytest.approx(optimize.nnls(system, target)[0], rel=1e-6, abs=1e-9)
    assert zeros > 50
