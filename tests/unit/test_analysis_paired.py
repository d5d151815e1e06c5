"""Two configs compared by seed: against scipy's paired test, against simulated power, and the verdict's sentence."""

import numpy as np
import pytest
from scipy import stats

from jsc_explore.analysis.cells import pareto_front
from jsc_explore.analysis.paired import MAX_SEEDS, Difference, compare, seeds_needed, verdict_text


def metrics(seed, n=5, shift=0.0, sd=0.01):
    rng = np.random.default_rng(seed)
    return {place: 0.6 + shift + float(value) for place, value in enumerate(rng.normal(0, sd, n))}


@pytest.mark.parametrize("n", [3, 5, 20])
def test_the_difference_is_that_of_the_paired_t_test(n):
    a, b = metrics(1, n), metrics(2, n, 0.02)
    found = compare(a, b, higher_is_better=True)
    expected = stats.ttest_rel(list(b.values()), list(a.values()))
    interval = expected.confidence_interval(0.95)
    assert found.mean == pytest.approx((interval.low + interval.high) / 2)
    assert found.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert (found.verdict in ("better", "worse")) == (expected.pvalue < 0.05)
    assert (found.n, found.paired) == (n, True)


def test_only_common_seeds_are_paired_and_the_effect_of_the_seed_cancels():
    a = {0: 0.5, 1: 0.7, 2: 0.6, 8: 0.1}
    b = {0: 0.51, 1: 0.71, 2: 0.61, 9: 0.9}
    found = compare(a, b, higher_is_better=True)
    assert found.n == 3
    assert found.mean == pytest.approx(0.01)
    assert found.verdict == "better"


def test_without_a_common_seed_the_means_are_compared_as_welch_does():
    a, b = {0: 0.60, 1: 0.62, 2: 0.61}, {5: 0.64, 6: 0.65}
    found = compare(a, b, higher_is_better=True)
    interval = stats.ttest_ind(list(b.values()), list(a.values()), equal_var=False).confidence_interval(0.95)
    assert not found.paired
    assert found.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert found.mean == pytest.approx((interval.high + interval.low) / 2)


def test_of_losses_the_lower_is_better():
    a, b = {0: 1.0, 1: 1.1, 2: 0.9}, {0: 0.8, 1: 0.91, 2: 0.7}
    assert compare(a, b, higher_is_better=False).verdict == "better"
    assert compare(a, b, higher_is_better=True).verdict == "worse"


@pytest.mark.parametrize(("mean", "sd"), [(1.0, 1.0), (0.5, 1.0), (0.3, 1.0), (2.0, 1.0)])
def test_the_seeds_needed_are_the_fewest_with_a_power_of_80_percent(mean, sd):
    needed = seeds_needed(mean, sd)

    def power(n):
        critical = stats.t.ppf(0.975, n - 1)
        shift = mean / sd * np.sqrt(n)
        return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)

    assert power(needed) >= 0.8 - 1e-4
    assert needed == 2 or power(needed - 1) < 0.8


def test_the_power_is_what_experiments_find():
    needed = seeds_needed(0.8, 1.0)
    draws = np.random.default_rng(0).normal(0.8, 1.0, (20_000, needed))
    found = float((stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean())
    assert found == pytest.approx(0.8, abs=0.04)
    assert found >= 0.8 - 0.01


def test_some_differences_are_too_small_for_any_number_of_seeds():
    assert seeds_needed(0.01, 1.0) is None
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.5, 0.0) == 2
    # In the tail, where scipy's noncentral t loses all digits.
    assert seeds_needed(3.0, 1.0) <= 4
    assert seeds_needed(0.2, 1.0) <= MAX_SEEDS


def test_a_verdict_is_one_sentence():
    a = {0: 0.600, 1: 0.610, 2: 0.590}
    said = [
        (compare(a, {0: 0.620, 1: 0.632, 2: 0.611}, higher_is_better=True), "B is better than A by 2.1 ± 0.2 points"),
        (compare(a, {0: 0.580, 1: 0.588, 2: 0.569}, higher_is_better=True), "A is better than B by 2.1 ± 0.2 points"),
        (compare(a, a, higher_is_better=True), "A and B score the same in all 3 seeds"),
        (compare(a, {0: 0.61}, higher_is_better=True), "B − A is +1.0 points in 1 seed: one seed gives no interval"),
        (compare(a, {}, higher_is_better=True), "nothing to compare yet: A or B has no finished run"),
    ]
    for difference, words in said:
        assert verdict_text(difference, " points", 100) == words


def test_an_inconclusive_verdict_says_how_many_seeds_would_decide():
    a = {0: 0.600, 1: 0.610, 2: 0.590}
    found = compare(a, {0: 0.610, 1: 0.605, 2: 0.600}, higher_is_better=True)
    text = verdict_text(found, " points", 100)
    assert text.startswith("not distinguishable with 3 seeds (B − A: +0.5 ± 2.2 points): about ")
    assert found.more_seeds == seeds_needed(found.mean, np.std([0.01, -0.005, 0.01], ddof=1)) - 3
    assert f"about {found.more_seeds} more seeds would detect" in text
    hopeless = Difference(3, 0.0001, 0.02, "inconclusive", None, paired=True)
    assert "even 200 seeds would hardly detect" in verdict_text(hopeless, " points", 100)


def test_the_pareto_front_holds_the_points_that_no_other_beats():
    cost = [1, 2, 3, 4, 2, 1]
    metric = [0.5, 0.6, 0.55, 0.7, 0.6, 0.4]
    assert pareto_front(cost, metric).tolist() == [True, True, False, True, True, False]
    assert (
        pareto_front(cost, [-value for value in metric], higher_is_better=False).tolist()
        == pareto_front(cost, metric).tolist()
    )
    assert pareto_front([], []).tolist() == []


def test_the_pareto_front_follows_its_definition():
    rng = np.random.default_rng(3)
    cost, metric = rng.integers(0, 8, 60), rng.integers(0, 8, 60)
    beaten = [
        any(
            (cost[j] <= cost[i]) and (metric[j] >= metric[i]) and (cost[j] < cost[i] or metric[j] > metric[i])
            for j in range(60)
        )
        for i in range(60)
    ]
    assert pareto_front(cost, metric).tolist() == [not one for one in beaten]
