"""Validate a sample: compare it with the statistics of the real jets and, if given, with reference jets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jsc_explore import data
from jsc_explore.data import CLASSES, FEATURES, Jets
from jsc_explore.data.external import ExternalJets
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import Features, Labels
from jsc_explore.data.reference import LEVELS, quantise, reference
from jsc_explore.errors import DataError
from jsc_explore.validation import criteria as bounds
from jsc_explore.validation import two_sample
from jsc_explore.validation.criteria import Metric
from jsc_explore.validation.two_sample import Discrimination

# Largest numbers of jets used; larger sets are sampled with a fixed seed. With 40,000 jets per side the error of the
# AUC is 0.002.
MAX_COMPARED, MAX_DISCRIMINATED, MAX_TRAINED = 200_000, 40_000, 100_000
MAX_RATIO = 10
# Fewer jets are too few to train a network.
MIN_TRAINED = 5_000
SAMPLE, REFERENCE = "sample", "reference"
_SEED = 0
# What `data validate simulated --against` CERNBox's levels printed: those jets cannot be shipped, but the result can.
_RECORDED = Path(__file__).with_name("recorded.json")

Set = tuple[Features, Labels]


@dataclass
class Report:
    """The result of a validation; ``to_dict`` is what ``data validate --json`` prints.

    Attributes
    ----------
    features: a row per feature and class, and ``all``, against the reference jets; empty without reference jets.
    quantiles: a row per feature, over all classes, against OpenML's training part.
    levels: a row per feature and class against CERNBox's levels: total variation.
    accuracy: a row per pair of training set and test set.
    is_recorded: True if discriminator and accuracy were measured before, with reference jets that are not at hand.
    """

    source: str
    preset: str | None
    digest: str
    jets: int
    against: str | None
    kind: str | None
    quantiles: list[dict[str, Any]]
    levels: list[dict[str, Any]]
    features: list[dict[str, Any]] = field(default_factory=list)
    discriminator: Discrimination | None = None
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    criteria: list[bounds.CriterionResult] = field(default_factory=list)
    is_recorded: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the sample is within all bounds; None if none could be judged."""
        judged = [one.passed for one in self.criteria if one.passed is not None]
        return all(judged) if judged else None

    def to_dict(self) -> dict[str, Any]:
        """Return all results, ready for JSON."""
        return asdict(self) | {"passed": self.passed}


def check_sample(
    jets: Jets,
    preset: str | None,
    other: ExternalJets | None = None,
    *,
    against: str | None = None,
    kind: str | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Report:
    """Compare a source's jets with the statistics of the real ones and, if given, with ``other`` jets.

    ``preset`` names the release that the sample replaces. ``kind`` is ``real`` or ``simulated``, for the other jets; it
    is ``levels`` if those are on levels, and the sample is then converted too. Without ``other`` the comparison that
    was recorded for the shipped jets is used. ``log`` gets progress messages. Raises DataError if a class has no jets.
    """
    if missing := [CLASSES[k] for k in range(len(CLASSES)) if not (jets.labels == k).any()]:
        rule = "a validation compares class by class"
        raise DataError(f"{jets.name} has no jets of class {', '.join(missing)}; {rule}: use jets of all classes")
    if other is not None and other.are_levels:
        kind = bounds.LEVELS
    quantiles, levels = _against_quantiles(jets), _against_levels(jets)
    report = Report(jets.name, preset, jets.digest, len(jets), against, kind, quantiles, levels)
    if other is not None:
        mine = (quantise(jets.features) if other.are_levels else jets.features, jets.labels)
        _compare(report, mine, (other.features, other.labels), log)
    else:
        _read_recorded(report)
    report.criteria = bounds.evaluate(_metrics(report), preset, report.kind, len(jets))
    return report


def preset_of(name: str) -> str | None:
    """Return the public release that a source is, or that its simulation imitates; None if unknown."""
    if name in ("openml", "cernbox"):
        return name
    recipe = data.recipe(name)
    return str(recipe["preset"]) if recipe else None


def _read_recorded(report: Report) -> None:
    """Fill in the comparison with real jets that was recorded for these jets, if it was."""
    recorded = json.loads(_RECORDED.read_bytes())
    if recorded["digest"] == report.digest:
        report.against, report.kind, report.is_recorded = recorded["against"], recorded["kind"], True
        report.discriminator = Discrimination(**recorded["discriminator"])
        report.accuracy = recorded["accuracy"]


def drawn(jets: Set, most: int) -> Set:
    """Return at most ``most`` jets of a set, drawn with a fixed seed; all of them, shuffled, if there are fewer."""
    rows = np.random.default_rng(_SEED).permutation(len(jets[1]))[:most]
    return jets[0][rows], jets[1][rows]


def _compare(report: Report, mine: Set, theirs: Set, log: Callable[[str], object]) -> None:
    log("comparing features")
    sample, other = drawn(mine, MAX_COMPARED), drawn(theirs, MAX_COMPARED)
    report.features = two_sample.compare_features(*sample, *other, FEATURES, CLASSES)
    # If one set is small, its error dominates, and more jets of the other one do not help.
    most = min(MAX_DISCRIMINATED, MAX_RATIO * min(len(mine[1]), len(theirs[1])))
    sample, other = drawn(mine, most), drawn(theirs, most)
    log(f"training a discriminator on {len(sample[1]):,} and {len(other[1]):,} jets")
    report.discriminator = two_sample.discriminate(*sample, *other, FEATURES, len(CLASSES))
    report.accuracy = _accuracies(drawn(mine, MAX_TRAINED), drawn(theirs, MAX_TRAINED), log)


def _accuracies(sample: Set, other: Set, log: Callable[[str], object]) -> list[dict[str, Any]]:
    from jsc_explore.validation.transfer import binomial_error, transfer_accuracy

    train: dict[str, Set] = {}
    tests: dict[str, Set] = {}
    for name, (features, labels) in ((SAMPLE, sample), (REFERENCE, other)):
        # A set too small for training is used for testing as a whole, of a larger one a fifth.
        cut = len(labels) // 5 if len(labels) >= MIN_TRAINED else len(labels)
        tests[name] = features[:cut], labels[:cut]
        if cut < len(labels):
            train[name] = features[cut:], labels[cut:]
    rows = []
    for name, (features, labels) in train.items():
        log(f"training a network on {len(labels):,} jets of the {name}")
        for tested, accuracy in transfer_accuracy(features, labels, tests).items():
            jets = len(tests[tested][1])
            figures = {"accuracy": accuracy, "error": binomial_error(accuracy, jets), "jets": jets}
            rows.append({"trained_on": name, "tested_on": tested, **figures})
    return rows


def _against_quantiles(jets: Jets) -> list[dict[str, Any]]:
    known, features = reference(), drawn((jets.features, jets.labels), MAX_COMPARED)[0]
    return [
        {
            "feature": name,
            "mean": float(column.mean(dtype=float)),
            "reference_mean": float(known.mean[k]),
            "sd": float(column.std(dtype=float)),
            "reference_sd": float(known.scale[k]),
            "ks": two_sample.ks_to_quantiles(column, known.quantiles[k], known.probabilities),
        }
        for k, (name, column) in enumerate(zip(FEATURES, features.T, strict=True))
    ]


def _against_levels(jets: Jets) -> list[dict[str, Any]]:
    counts = two_sample.level_counts(quantise(jets.features), jets.labels, len(CLASSES), LEVELS)
    distances = two_sample.total_variation(counts, reference().level_counts)
    return [
        {"feature": name, "class": kind, "total_variation": float(distances[k, column])}
        for column, name in enumerate(FEATURES)
        for k, kind in enumerate(CLASSES)
    ]


def _metrics(report: Report) -> dict[str, Metric]:
    by_class, by_feature = class_distances(report), feature_distances(report)
    feature = max(report.levels, key=lambda row: row["total_variation"])
    ks = max(report.quantiles, key=lambda row: row["ks"])
    kind = max(by_class, key=lambda name: by_class[name])
    metrics = {
        "ks": Metric(float(np.mean([row["ks"] for row in report.quantiles]))),
        "feature_ks": Metric(ks["ks"], worst=ks["feature"]),
        "tv": Metric(float(np.mean(list(by_feature.values())))),
        "class_tv": Metric(by_class[kind], worst=CLASS_NAMES[kind]),
        "feature_tv": Metric(
            feature["total_variation"], worst=f"{feature['feature']} of {CLASS_NAMES[feature['class']]}"
        ),
    }
    if report.discriminator is not None:
        found, worst = report.discriminator, int(np.argmax(report.discriminator.auc))
        metrics["auc"] = Metric(found.mean, found.mean_error)
        metrics["class_auc"] = Metric(found.auc[worst], found.error[worst], CLASS_NAMES[CLASSES[worst]])
    for row in report.accuracy:
        if (row["trained_on"], row["tested_on"]) == (SAMPLE, REFERENCE):
            metrics["accuracy"] = Metric(row["accuracy"], row["error"])
    return metrics


def class_distances(report: Report) -> dict[str, float]:
    """Return each class's total variation to CERNBox's levels, the mean over its features."""
    return _mean_by("class", report.levels)


def feature_distances(report: Report) -> dict[str, float]:
    """Return each feature's total variation to CERNBox's levels, the mean over its classes."""
    return _mean_by("feature", report.levels)


def _mean_by(key: str, rows: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row["total_variation"])
    return {name: float(np.mean(values)) for name, values in found.items()}
