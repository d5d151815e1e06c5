"""Two configs compared by seed, silent rates, and the choice among many: against scipy, simulations and sentences."""

import numpy as np
import pytest
from scipy import stats

from jsc_explore.analysis.cells import pareto_front
from jsc_explore.analysis.paired import (
    MAX_SEEDS,
    REPEATED_LEVEL,
    Family,
    SeedsNeeded,
    compare,
    effect_interval,
    family_of,
    needed_text,
    reason_text,
    seeds_needed,
    seeds_range,
    verdict_text,
)
from jsc_explore.analysis.selection import corrected_p_values, expected_loss, find_best, p_values
from jsc_explore.analysis.silent_rates import compare_rates, rates_text
from jsc_explore.analysis.statistics import holm, median_spread


def metrics(seed, n=5, shift=0.0, sd=0.01):
    rng = np.random.default_rng(seed)
    return {place: 0.6 + shift + float(value) for place, value in enumerate(rng.normal(0, sd, n))}


@pytest.mark.parametrize("n", [5, 6, 20])
def test_the_p_value_is_that_of_the_paired_t_test_and_the_interval_that_of_the_median(n):
    a, b = metrics(1, n), metrics(2, n, 0.02)
    found = compare(a, b, higher_is_better=True)
    differences = np.array(list(b.values())) - np.array(list(a.values()))
    assert found.p == pytest.approx(stats.ttest_rel(list(b.values()), list(a.values())).pvalue)
    assert found.median == pytest.approx(np.median(differences))
    assert found.interval == pytest.approx(median_spread(differences))
    assert found.n == n


def test_only_common_seeds_are_paired_and_the_effect_of_the_seed_cancels():
    a = {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.4, 4: 0.55, 8: 0.1}
    b = {seed: value + 0.01 + seed / 10_000 for seed, value in a.items() if seed != 8} | {9: 0.9}
    found = compare(a, b, higher_is_better=True)
    assert found.n == 5
    assert found.median == pytest.approx(0.0102)
    assert found.verdict == "better"
    assert compare({0: 0.5}, {1: 0.6}, higher_is_better=True).median is None


@pytest.mark.parametrize("n", [5, 6, 7, 10, 20])
def test_the_interval_of_the_median_covers_for_normal_skewed_and_two_humped_seeds(n):
    rng = np.random.default_rng(0)
    humps = rng.normal(0, 1, 100_000) - 12 * (rng.random(100_000) < 0.15)
    for population in (rng.normal(0, 1, 100_000), rng.exponential(1, 100_000), humps):
        low, high = median_spread(rng.choice(population, (20_000, n)))
        middle = np.median(population)
        assert 0.93 <= np.mean((low <= middle) & (middle <= high)) <= 0.97
    assert median_spread([2.0, 1.0, 4.0, 3.0]) == (1.0, 4.0), "below five it is the range, which claims nothing"
    assert compare(dict.fromkeys(range(4), 0.0), metrics(1, 4), higher_is_better=True).interval is None
    assert median_spread([3.0, 1.0, 5.0, 2.0, 4.0]) == (1.0, 5.0)


def test_of_losses_the_lower_is_better():
    a = {0: 1.0, 1: 1.1, 2: 0.9, 3: 1.0, 4: 1.2}
    b = {0: 0.8, 1: 0.91, 2: 0.7, 3: 0.82, 4: 0.99}
    assert compare(a, b, higher_is_better=False).verdict == "better"
    assert compare(a, b, higher_is_better=True).verdict == "worse"


@pytest.mark.parametrize("effect", [1.0, 0.5, 0.3, 2.0])
@pytest.mark.parametrize("level", [0.05, REPEATED_LEVEL])
def test_the_seeds_needed_are_the_fewest_with_a_power_of_80_percent(effect, level):
    needed = seeds_needed(effect, level)

    def power(n):
        critical = stats.t.isf(level / 2, n - 1)
        shift = effect * np.sqrt(n)
        return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)

    assert power(needed) >= 0.8 - 1e-3
    assert needed == 3 or power(needed - 1) < 0.8


def test_the_power_is_what_experiments_find():
    needed = seeds_needed(0.8)
    draws = np.random.default_rng(0).normal(0.8, 1.0, (20_000, needed))
    found = float((stats.ttest_1samp(draws, 0, axis=1).pvalue < REPEATED_LEVEL).mean())
    assert found == pytest.approx(0.8, abs=0.04)
    assert found >= 0.8 - 0.01


def test_some_differences_are_too_small_for_any_number_of_seeds():
    assert seeds_needed(0.01) is None
    assert seeds_needed(0.0) is None
    # In the tail, where scipy's noncentral t loses all digits.
    assert seeds_needed(3.0) <= 6
    assert seeds_needed(0.3) <= MAX_SEEDS


def test_the_range_of_seeds_needed_is_that_of_an_interval_that_covers_the_true_effect():
    draws = np.random.default_rng(0).normal(1.2, 1.0, (1500, 6))
    ends = [effect_interval(float(one), 6) for one in draws.mean(axis=1) / draws.std(axis=1, ddof=1)]
    assert np.mean([low <= 1.2 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.015)
    low, high = effect_interval(2.0, 10)
    assert seeds_range(2.0, 10) == SeedsNeeded(seeds_needed(high), seeds_needed(2.0), seeds_needed(low))
    assert seeds_range(-2.0, 10) == seeds_range(2.0, 10)


A = {0: 0.600, 1: 0.610, 2: 0.590, 3: 0.600, 4: 0.605}


def shifted(*points):
    return {seed: value + by / 100 for (seed, value), by in zip(A.items(), points, strict=True)}


def test_a_verdict_is_one_sentence():
    sentences = [
        (shifted(2.0, 2.2, 2.1, 2.1, 2.1), "B is better than A by 2.1 points (95% interval 2.0 to 2.2)"),
        (shifted(-2.0, -2.2, -2.1, -2.1, -2.1), "A is better than B by 2.1 points (95% interval 2.0 to 2.2)"),
        (A, "A and B score the same in all 5 seeds"),
        ({0: 0.61}, "B − A is +1.0 points in 1 seed: fewer than 5 give no interval"),
        ({}, "nothing to compare yet: A and B have no seed in common"),
    ]
    for b, text in sentences:
        assert verdict_text(compare(A, b, higher_is_better=True), " points", 100) == text


def test_a_difference_that_repeated_looks_or_a_choice_can_explain_is_no_verdict():
    once = compare(A, shifted(3.0, 2.2, 1.1, 1.5, 2.5), higher_is_better=True)
    assert REPEATED_LEVEL < once.p < 0.05
    assert not once.decided
    assert verdict_text(once, " points", 100) == (
        "B scored better than A by 2.2 points (95% interval 1.1 to 3.0) in 5 seeds: not enough for a verdict"
    )
    assert f"needs p ≤ {REPEATED_LEVEL}" in reason_text(once)
    sure = shifted(2.0, 2.2, 2.1, 2.1, 2.1)
    chosen = compare(A, sure, higher_is_better=True, family=Family(36, 0.2))
    assert not chosen.decided
    assert "0.2 for a pair chosen from 36 configs by its results (Holm, 630 pairs)" in reason_text(chosen)
    assert compare(A, sure, higher_is_better=True, family=Family(36, 0.04)).decided


def test_an_inconclusive_verdict_says_as_a_range_how_many_seeds_would_decide():
    points = (1.0, -0.5, 1.0, 0.4, 0.2)
    found = compare(A, shifted(*points), higher_is_better=True)
    assert (
        verdict_text(found, " points", 100)
        == "not distinguishable with 5 seeds (B − A: +0.4 points, 95% interval −0.5 to +1.0)"
    )
    effect = np.mean(points) / np.std(points, ddof=1)
    assert found.needed == seeds_range(effect, 5)
    assert found.needed.measured == seeds_needed(effect)
    assert f"{found.needed.low} to more than 200 by the 95% interval of the effect" in needed_text(found)
    assert f"{found.needed.measured} if it is as measured" in needed_text(found)


# ---- seeds with a silent class


def test_rates_are_compared_by_mcnemar_where_seeds_are_common_and_by_fisher_elsewhere():
    a = {seed: seed < 9 for seed in range(12)}
    b = {seed: seed == 11 for seed in range(12)}
    paired = compare_rates(a, b)
    assert (paired.silent, paired.seeds, paired.n, paired.paired) == ((9, 1), (12, 12), 12, True)
    assert paired.p == pytest.approx(stats.binomtest(9, 10).pvalue)
    unpaired = compare_rates(a, {seed + 100: value for seed, value in b.items()})
    assert not unpaired.paired
    assert unpaired.p == pytest.approx(stats.fisher_exact([[9, 3], [1, 11]]).pvalue)
    text = rates_text(paired)
    assert "9 of 12 seeds of A (43 to 95%) and in 1 of 12 seeds of B (0 to 38%)" in text
    assert "McNemar, p = 0.021" in text


def test_a_side_without_seeds_has_no_rate():
    text = rates_text(compare_rates({}, {0: True, 1: False}))
    assert text.startswith("A class is silent in 1 of 2 seeds of B (1 to 99%); Clopper")


def test_below_ten_seeds_nothing_is_said_of_the_difference_of_rates():
    assert "p =" not in rates_text(compare_rates(dict.fromkeys(range(9), True), dict.fromkeys(range(9), False)))


# ---- the choice among many


def test_holm_is_that_of_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_p_values_of_many_pairs_are_those_of_scipy():
    rng = np.random.default_rng(4)
    table = rng.normal(size=(8, 9))
    table[rng.random(table.shape) < 0.35] = np.nan
    for row in range(len(table)):
        found = p_values(table, row)
        for other in range(len(table)):
            if row != other:
                common = np.isfinite(table[row]) & np.isfinite(table[other])
                few = common.sum() < 3
                expected = 1.0 if few else stats.ttest_rel(table[row][common], table[other][common]).pvalue
                assert found[other] == pytest.approx(expected)


def test_of_equal_configs_the_best_is_rarely_called_better_and_its_expected_loss_is_right():
    rng, n_similar, worst, losses, lost = np.random.default_rng(5), [], [], [], []
    for _ in range(150):
        table = rng.normal(size=(36, 5))
        best = find_best(table, higher_is_better=True)
        n_similar.append(best.n_similar)
        losses.append(best.expected_loss)
        lost.append(np.median(table, axis=1).max())
        worst.append(p_values(table, table.mean(axis=1).argmax())[table.mean(axis=1).argmin()] < 0.05)
    assert np.mean(worst) > 0.5
    assert np.mean(np.array(n_similar) < 35) <= 0.05
    assert np.mean(losses) == pytest.approx(np.mean(lost), rel=0.1)


def test_a_best_that_stands_out_loses_nothing_and_resembles_nothing():
    table = np.random.default_rng(6).normal(0, 0.01, (6, 10))
    table[2] -= 1
    best = find_best(table, higher_is_better=False)
    assert (best.index, best.n_configs, best.n_similar) == (2, 6, 0)
    assert best.expected_loss == pytest.approx(0, abs=0.003)
    assert find_best(table[:1], higher_is_better=True) is None
    assert expected_loss(np.full((3, 5), np.nan)) == 0


def test_a_family_is_the_configs_with_enough_seeds():
    rng = np.random.default_rng(7)
    metrics = {name: dict(enumerate(rng.normal(size=5))) for name in "abcd"} | {"e": {0: 1.0}}
    found = family_of(metrics, "a", "c")
    table = np.array([list(metrics[name].values()) for name in "abcd"])
    assert (found.n_configs, found.n_pairs) == (4, 6)
    assert found.p == corrected_p_values(table, 0)[2]
    assert family_of({"a": metrics["a"], "b": metrics["b"]}, "a", "b") is None
    assert family_of(metrics, "a", "e") is None


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
