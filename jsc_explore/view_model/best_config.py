"""The best config of a slice: how many it was chosen from, what it is expected to lose, and its held-back seeds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

from jsc_explore.analysis.paired import format_difference
from jsc_explore.analysis.selection import MIN_SEEDS, Best, find_best, metric_table
from jsc_explore.charts.style import difference_scale, format_metric, format_seeds, is_percentage, is_time
from jsc_explore.config import FIELDS, RunConfig, display_value
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, seed_metrics
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice

# The interval of a median of so many seeds is two thirds as wide as that of five.
HELD_BACK_SEEDS = 10
# Of more runs the comparison would delay the page.
MAX_RUNS = 20_000


@dataclass(frozen=True)
class BestConfig:
    """The config with the best median ``value``, over those of the first ``slice.seeds`` seeds without a silent class.

    Its later seeds did not choose it: ``held_back`` are the metrics of those without a silent class,
    ``n_held_back_silent`` counts the others. ``seeds`` are all its stored seeds.
    """

    config: RunConfig
    config_id: str
    best: Best
    value: float
    held_back: tuple[float, ...]
    n_held_back_silent: int
    seeds: frozenset[int]

    def next_held_back(self, first: int, active: Collection[int]) -> list[RunConfig]:
        """Return the runs that are missing to ``HELD_BACK_SEEDS`` seeds from ``first`` on, besides the active seeds."""
        seeds = range(first, first + HELD_BACK_SEEDS)
        return [self.config.with_(seed=seed) for seed in seeds if seed not in self.seeds and seed not in active]


def find_best_config(repository: Repository, slice: Slice) -> BestConfig | None:
    """Return the best config of a slice; None where fewer than two have enough seeds, and for times."""
    if is_time(slice.metric):
        return None
    table = seed_metrics(repository.store, slice.metric, slice.filters, slice.text)
    if table.num_rows > MAX_RUNS:
        return None
    rows = table.to_pylist()
    metrics: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["seed"] < slice.seeds and not row["silent"]:
            metrics.setdefault(row["config_id"], {})[row["seed"]] = row["metric"]
    best = find_best(metric_table(metrics), higher_is_better=is_percentage(slice.metric)) if metrics else None
    if best is None:
        return None
    config_id = list(metrics)[best.index]
    later = [row for row in rows if row["config_id"] == config_id and row["seed"] >= slice.seeds]
    fields = repository.store.runs({"config_id": [config_id]}, list(CONFIG_FIELDS)).slice(0, 1).to_pylist()[0]
    return BestConfig(
        RunConfig.from_dict({name: fields[name] for name in CONFIG_FIELDS}),
        config_id,
        best,
        median(metrics[config_id].values()),
        tuple(row["metric"] for row in later if not row["silent"]),
        sum(row["silent"] for row in later),
        frozenset(repository.seeds((config_id,)).get(config_id, ())),
    )


def best_text(found: BestConfig, slice: Slice) -> str:
    """Describe the best config in some sentences: of how many, what chance adds, and its held-back seeds if any."""
    names = [name for name in (*slice.axes, *slice.several) if found.config.is_relevant(name)]
    values = ", ".join(
        f"{FIELDS[name].inline_label} {display_value(name, getattr(found.config, name))}" for name in names
    )
    factor, unit = difference_scale(slice.metric)
    n = found.best.n_similar
    similar = (
        "Every other one is worse beyond chance (Holm, 5%)"
        if not n
        else f"{n} other{'s are' if n > 1 else ' is'} not distinguishable from it (Holm, 5%)"
    )
    loss = found.best.expected_loss * factor
    again = (
        f"Trained again, the best of so many is expected to score {format_difference(loss)}{unit} worse"
        if loss
        else "Trained again, it is not expected to score worse"
    )
    text = (
        f"Best of {found.best.n_configs} configurations with at least {MIN_SEEDS} of the seeds 0 to {slice.seeds - 1} "
        f"without a silent class: {values}, median "
        f"{format_metric(slice.metric, found.value)}. {similar}. {again}."
    )
    return f"{text} {_held_back_text(found, slice.metric)}".rstrip()


def _held_back_text(found: BestConfig, metric: str) -> str:
    held_back, silent = found.held_back, found.n_held_back_silent
    if not held_back and not silent:
        return ""
    parts = [f"median {format_seeds(metric, held_back)}"] if held_back else []
    if silent:
        parts.append(f"in {silent} of them a class is silent")
    n = len(held_back) + silent
    return f"Measured with {n} held-back seed{'s' if n > 1 else ''}, which did not choose it: {', '.join(parts)}."
