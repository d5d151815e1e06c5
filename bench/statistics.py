"""Simulations of the statistics that the pages show: coverage of intervals, false alarms and power of verdicts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from bench.frame import Bound, Report
from jsc_explore.analysis.paired import MAX_SEEDS, REPEATED_LEVEL, compare, effect_interval, seeds_needed
from jsc_explore.analysis.selection import LEVEL, MIN_SEEDS, corrected_p_values, expected_loss, p_values
from jsc_explore.analysis.silent_rates import MIN_RATE_SEEDS, compare_rates
from jsc_explore.analysis.statistics import median_spread, proportion_interval
from jsc_explore.config import DEFAULT_SEEDS, RunConfig
from jsc_explore.data import load, split
from jsc_explore.training.callbacks import CollectingCallback
from jsc_explore.training.trainer import train_stack

# Populations of seeds: many more of a config of the store than it holds. Pairs of them are compared seed by seed.
CONFIGS = {
    "jsc-tiny": RunConfig(learning_rate=1e-3),
    "jsc-tiny, no final ReLU": RunConfig(learning_rate=1e-3, final_relu=False),
    "jsc-toy": RunConfig(model="jsc-toy", learning_rate=1e-3),
    "jsc-toy, batch 512, 1e-2": RunConfig(model="jsc-toy", batch_size=512, learning_rate=1e-2),
    "jsc-toy, batch 512, 1e-1": RunConfig(model="jsc-toy", batch_size=512, learning_rate=1e-1),
}
PAIRS = (("jsc-tiny", "jsc-tiny, no final ReLU"), ("jsc-toy", "jsc-toy, batch 512, 1e-2"))
QUICK = 2
STACK = 50
# So many samples give a share near 95% to 0.15 points.
REPEATS = 20_000
SIZES = (5, 6, 7, 8, 10, 20, 50)
CELLS = 36
EFFECTS = (0.5, 1.0, 2.0)
Numbers = npt.NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True)
class Population:
    """Metrics ``(seeds,)`` and which seeds have a silent class."""

    metrics: Numbers
    silent: npt.NDArray[np.bool_]

    @property
    def complete(self) -> Numbers:
        """The metrics of the seeds without a silent class."""
        return self.metrics[~self.silent]

    def draw(self, rng: np.random.Generator, *shape: int) -> Numbers:
        """Draw metrics of seeds without a silent class, with replacement."""
        return self.complete[rng.integers(len(self.complete), size=shape)]


def run(quick: bool) -> Report:
    """Simulate every interval and verdict, on trained populations of seeds and on distributions that are known."""
    begin, rng = time.process_time(), np.random.default_rng(0)
    n = 1 if quick else 5
    populations = _populations(100 if quick else 200, QUICK if quick else len(CONFIGS))
    seconds = time.process_time() - begin
    intervals = [*_medians(populations, rng), *_effects(rng, 1_000 * n), *_held_back(populations, rng, 4_000)]
    rates = _rate_intervals(populations)
    alarms = [*_repeated(populations, rng, 2_000 * n), *_advice(rng, 400 * n), *_choices(populations, rng, 200 * n)]
    alarms += _rate_alarms(rng, 300 * n)
    power = [_power_row(effect, rng, 400 * n) for effect in EFFECTS]
    losses = list(_losses(populations, rng, 100 * n))
    coverages = [row["measured"] for row in intervals if row["rule"] == "interval"]
    verdicts = [row["measured"] for row in alarms if "verdict" in row["rule"]]
    figures = {
        "coverage_lowest": min(coverages),
        "coverage_highest": max(coverages),
        "rate_coverage_lowest": min(row["measured"] for row in rates),
        "false_alarms_highest": max(verdicts),
        "power_lowest": min(row["measured"] for row in power),
        "expected_loss_over_true_lowest": min(row["measured"] for row in losses),
        "expected_loss_over_true_highest": max(row["measured"] for row in losses),
        "seconds": time.process_time() - begin,
    }
    bounds = {
        "coverage_lowest": Bound(0.93, at_least=True),
        "coverage_highest": Bound(0.97, at_least=False),
        "rate_coverage_lowest": Bound(0.95, at_least=True),
        "false_alarms_highest": Bound(LEVEL, at_least=False),
        "power_lowest": Bound(0.78, at_least=True),
    }
    rows = [*intervals, *rates, *alarms, *power, *losses]
    sizes = ", ".join(
        f"{name} {len(one.metrics)} ({one.silent.mean():.0%} silent)" for name, one in populations.items()
    )
    notes = [
        f"Trained populations, drawn from with replacement: {sizes}; {seconds:.0f} s of one processor for them.",
        f"Silent: a class is silent. False alarms: {CELLS} equal configs, or A equal to B. A verdict asks "
        f"for p ≤ {REPEATED_LEVEL:g} and, among several configs, for a corrected p ≤ {LEVEL:g}.",
        "The bands of predictions have a benchmark of their own: python -m bench predictions.",
    ]
    return Report("statistics", figures, rows, bounds, notes, _summary(rows))


def _summary(rows: Sequence[Row]) -> list[Row]:
    """Return one row per figure and rule: the lowest and highest measured, with their populations."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["figure"], row["rule"], row["claimed"]), []).append(row)
    found = []
    for (what, rule, claimed), own in groups.items():
        low, high = (choose(own, key=lambda row: float(row["measured"])) for choose in (min, max))
        ends = {"lowest": low, "highest": high}
        texts = {name: f"{row['measured']:g} ({row['population']})" for name, row in ends.items()}
        found.append({"figure": what, "rule": rule, "claimed": claimed} | texts)
    return found


def _row(what: str, where: str, rule: str, claimed: float | str, measured: float) -> Row:
    return {"figure": what, "population": where, "rule": rule, "claimed": claimed, "measured": round(measured, 3)}


# ---- populations


def _populations(seeds: int, count: int) -> dict[str, Population]:
    found = {}
    for name, config in list(CONFIGS.items())[:count]:
        jets, callback = split(load(config.dataset), config.validation), CollectingCallback()
        for first in range(0, seeds, STACK):
            runs = {str(seed): config.with_(seed=seed) for seed in range(first, min(seeds, first + STACK))}
            train_stack(runs, jets, callback, device="cpu")
        outcomes = [callback.outcomes[str(seed)] for seed in range(seeds)]
        found[name] = Population(
            np.array([one.val_acc for one in outcomes], float), np.array([bool(one.silent_classes) for one in outcomes])
        )
    return found


def _known(populations: dict[str, Population]) -> dict[str, Population]:
    """Return the trained populations and large samples of known ones: normal, skewed, and mixtures of two humps.

    The lower hump of a mixture has a silent class, or is one of seeds that have learned less.
    """
    rng, size = np.random.default_rng(1), 20_000
    normal, silent = rng.normal(0.7, 0.005, size), rng.random(size)
    humps = {
        f"normal, {share:.0%} silent": Population(np.where(silent < share, normal - 0.12, normal), silent < share)
        for share in (0.1, 0.5)
    }
    none = np.zeros(size, bool)
    skewed = 0.7 - 0.005 * rng.gamma(4, 0.5, size)
    return (
        populations
        | {"normal": Population(normal, none), "skewed (gamma, skewness 1)": Population(skewed, none)}
        | {"two humps, 10% lower": Population(humps["normal, 10% silent"].metrics, none)}
        | humps
    )


# ---- intervals


def _medians(populations: dict[str, Population], rng: np.random.Generator) -> Iterable[Row]:
    """Cover medians of seeds without a silent class, and of paired differences; beside them Student's t for means."""
    cases = {name: one.complete for name, one in _known(populations).items()}
    for a, b in PAIRS:
        if a in populations and b in populations:
            both = ~(populations[a].silent | populations[b].silent)
            cases[f"{b} − {a}"] = (populations[b].metrics - populations[a].metrics)[both]
    for name, complete in cases.items():
        for n in SIZES:
            values = complete[rng.integers(len(complete), size=(REPEATS, n))]
            yield _row(f"median, {n} seeds", name, "interval", 0.95, _covered(values, complete))
            error = np.abs(values.mean(axis=1) - complete.mean()) / values.std(axis=1, ddof=1) * math.sqrt(n)
            covered = float((error <= stats.t.isf(LEVEL / 2, n - 1)).mean())
            yield _row(f"mean, {n} seeds", name, "Student's t (shown nowhere)", 0.95, covered)


def _covered(values: Numbers, population: Numbers) -> float:
    """Return how often the interval of the median of a row holds that of the population."""
    truth = np.median(population)
    low, high = median_spread(values)
    return float(((low <= truth) & (truth <= high)).mean())


def _effects(rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Cover the true effect, mean over sd, by the interval that gives the range of seeds needed."""
    for effect, n in ((0.0, 5), (1.0, 5), (1.0, 20)):
        samples = rng.normal(effect, 1, (repeats, n))
        found = [effect_interval(float(sample.mean() / sample.std(ddof=1)), n) for sample in samples]
        covered = float(np.mean([low <= effect <= high for low, high in found]))
        where = f"normal, effect {effect:g}"
        yield _row(f"effect behind the seeds needed, {n} seeds", where, "interval", 0.95, covered)


def _held_back(populations: dict[str, Population], rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Cover the median of the config that five seeds chose out of many equal ones, by ten seeds that did not."""
    for name, one in _known(populations).items():
        chosen, later = (one.draw(rng, repeats, CELLS, n) for n in (DEFAULT_SEEDS, 10))
        best = np.median(chosen, axis=2).argmax(axis=1)
        values = later[np.arange(repeats), best]
        yield _row("held-back median, 10 seeds", name, "interval", 0.95, _covered(values, one.complete))


def _rate_intervals(populations: dict[str, Population]) -> list[Row]:
    """Cover rates of silent classes by Clopper and Pearson's interval; exactly, from the binomial distribution."""
    rates = {f"rate {rate:g}": rate for rate in (0.05, 0.1, 0.5)}
    rates |= {name: float(one.silent.mean()) for name, one in populations.items() if 0 < one.silent.mean() < 1}
    rows = []
    for name, rate in rates.items():
        for n in (DEFAULT_SEEDS, MIN_RATE_SEEDS, 50):
            ends = [proportion_interval(count, n) for count in range(n + 1)]
            inside = np.array([low <= rate <= high for low, high in ends])
            covered = float(stats.binom.pmf(np.arange(n + 1), n, rate)[inside].sum())
            rows.append(_row(f"silent rate, {n} seeds", name, "interval", "≥ 0.95", covered))
    return rows


# ---- false alarms


@cache
def _critical(level: float) -> Numbers:
    """Return the critical t by number of values, infinite below ``MIN_SEEDS``."""
    below = np.full(MIN_SEEDS, np.inf)
    return np.concatenate([below, stats.t.isf(level / 2, np.arange(MIN_SEEDS - 1, MAX_SEEDS))])


def _repeated(populations: dict[str, Population], rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Look after every added seed, from three up to ``MAX_SEEDS``, and stop at the first difference."""
    for name, one in _known(populations).items():
        a, b = (one.draw(rng, repeats, MAX_SEEDS) for _ in range(2))
        d, n = b - a, np.arange(1, MAX_SEEDS + 1)
        mean = np.cumsum(d, axis=1) / n
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = (np.cumsum(d**2, axis=1) - n * mean**2) / (n - 1)
            t = np.abs(mean) / np.sqrt(variance / n)
        for rule, level in (("interval without zero", LEVEL), ("verdict", REPEATED_LEVEL)):
            found = float((t > _critical(level)[1:]).any(axis=1).mean())
            yield _row(f"false alarms, a look after each of {MAX_SEEDS} seeds", name, rule, LEVEL, found)


def _advice(rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Train as many seeds as the page says would decide, look, and do so again, up to ten times."""
    for rule, level in (("interval without zero", LEVEL), ("verdict", REPEATED_LEVEL)):
        alarms = 0
        for sample in rng.normal(0, 1, (repeats, MAX_SEEDS)):
            n: int | None = DEFAULT_SEEDS
            for _ in range(10):
                if n is None:
                    break
                effect = float(sample[:n].mean() / sample[:n].std(ddof=1))
                if 2 * special.stdtr(n - 1, -abs(effect) * math.sqrt(n)) <= level:
                    alarms += 1
                    break
                needed = seeds_needed(effect, level)
                n = None if needed is None or n >= MAX_SEEDS else max(n + 1, needed)
        yield _row("false alarms, the advice followed each time", "normal", rule, LEVEL, alarms / repeats)


def _choices(populations: dict[str, Population], rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Compare the best with the worst of equal configs."""
    for name, one in _known(populations).items():
        plain, corrected = [], []
        for _ in range(repeats):
            table = one.draw(rng, CELLS, DEFAULT_SEEDS)
            best, worst = int(np.median(table, axis=1).argmax()), int(np.median(table, axis=1).argmin())
            plain.append(p_values(table, best)[worst] <= LEVEL)
            corrected.append(corrected_p_values(table, best).min() <= LEVEL)
        what = f"false alarms, best of {CELLS} against the worst"
        yield _row(what, name, "interval without zero", LEVEL, float(np.mean(plain)))
        yield _row(what, name, "verdict (Holm)", LEVEL, float(np.mean(corrected)))


def _rate_alarms(rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Compare equal silent rates after each of several additions of seeds."""
    sizes = (10, 15, 20, 30, 50, 100, MAX_SEEDS)
    for rate in (0.1, 0.5):
        for test in ("McNemar", "Fisher"):
            alarms = []
            for _ in range(repeats):
                a, b = rng.random((2, MAX_SEEDS)) < rate
                first = 0 if test == "McNemar" else MAX_SEEDS
                alarms.append(any(_rates_differ(a[:n], b[:n], first) for n in sizes))
            what = f"false alarms of rates, looks at {', '.join(map(str, sizes))} seeds"
            yield _row(what, f"rate {rate:g}", f"verdict ({test})", LEVEL, float(np.mean(alarms)))


def _rates_differ(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], first: int) -> bool:
    found = compare_rates(dict(enumerate(a.tolist())), dict(enumerate(b.tolist(), first)))
    return found.p <= REPEATED_LEVEL


# ---- power, and what the best loses


def _power_row(effect: float, rng: np.random.Generator, repeats: int) -> Row:
    """Train as many seeds as needed for a true effect, and look once."""
    n = seeds_needed(effect) or MAX_SEEDS
    decided = np.mean(
        [
            compare(dict.fromkeys(range(n), 0.0), dict(enumerate(sample.tolist())), higher_is_better=True).decided
            for sample in rng.normal(effect, 1, (repeats, n))
        ]
    )
    return _row(f"power with the {n} seeds needed", f"normal, effect {effect:g}", "verdict", 0.8, float(decided))


def _losses(populations: dict[str, Population], rng: np.random.Generator, repeats: int) -> Iterable[Row]:
    """Compare what the best of many is expected to lose with what it loses: estimate over truth."""
    few = np.concatenate([np.zeros(6), -np.linspace(0.02, 0.3, CELLS - 6)])
    cases: list[tuple[str, Callable[[], Numbers], Numbers]] = []
    for name, one in _known(populations).items():
        again = np.median(one.draw(rng, REPEATS, DEFAULT_SEEDS), axis=1)
        noise = one.complete - again.mean()
        for label, true in ((f"{CELLS} equal", np.zeros(CELLS)), (f"6 of {CELLS} equal", few)):
            draw = _drawer(noise, true, rng)
            cases.append((f"{name}, {label}", draw, true))
    for name, draw, true in cases:
        estimates, losses = [], []
        for _ in range(repeats):
            table = draw()
            medians = np.median(table, axis=1)
            best = int(medians.argmax())
            estimates.append(expected_loss(table))
            losses.append(medians[best] - true[best])
        ratio = float(np.mean(estimates) / np.mean(losses))
        yield _row("expected loss of the best over the true one", name, "estimate", 1.0, ratio)


def _drawer(noise: Numbers, true: Numbers, rng: np.random.Generator) -> Callable[[], Numbers]:
    return lambda: true[:, None] + noise[rng.integers(len(noise), size=(len(true), DEFAULT_SEEDS))]
