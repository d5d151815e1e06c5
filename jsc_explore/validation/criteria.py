"""The bounds within which a simulated sample may differ from the jets that it replaces, and their evaluation."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

REAL, LEVELS, SIMULATED = "real", "levels", "simulated"
Relation = Literal["<=", ">="]


class Metric(NamedTuple):
    """A figure of a sample: its value, its standard error if known, and which class or feature is the worst."""

    value: float
    error: float | None = None
    worst: str = ""


@dataclass(frozen=True)
class Criterion:
    """One criterion: a metric, its bound, and the samples and references to which it applies.

    ``preset`` is that of the sample, ``kind`` that of the reference jets; None: any. A sample with fewer than
    ``min_jets`` jets is not judged, because statistical fluctuations alone would reach the bound.
    """

    metric: str
    description: str
    relation: Relation
    bound: float
    preset: str | None = None
    kind: str | None = None
    min_jets: int = 0


# docs/data.md gives the reasons. Means hide a single class or feature that is far off, so the worst is judged, too: one
# class may be twice as far from agreement as the mean of all.
CRITERIA = (
    # Levels hide details, so a discriminator must do worse on them; two simulations of one recipe must agree best.
    Criterion("auc", "discriminator AUC against real jets, mean", "<=", 0.55, kind=REAL),
    Criterion("class_auc", "discriminator AUC against real jets, worst class", "<=", 0.60, kind=REAL),
    Criterion("auc", "discriminator AUC against real jets on levels, mean", "<=", 0.54, kind=LEVELS),
    Criterion("class_auc", "discriminator AUC against real jets on levels, worst class", "<=", 0.58, kind=LEVELS),
    Criterion("auc", "discriminator AUC against simulated jets, mean", "<=", 0.52, kind=SIMULATED),
    Criterion("class_auc", "discriminator AUC against simulated jets, worst class", "<=", 0.54, kind=SIMULATED),
    Criterion("accuracy", "accuracy on real jets, trained on the sample", ">=", 0.74, preset="openml", kind=REAL),
    # The quantiles are OpenML's, the levels CERNBox's: each is a criterion for the preset that replaces that release.
    Criterion("ks", "KS distance to OpenML's quantiles, mean", "<=", 0.02, preset="openml", min_jets=10_000),
    Criterion("feature_ks", "KS distance to OpenML's quantiles, worst feature", "<=", 0.04, "openml", min_jets=10_000),
    # Mean over features and classes. Without classes it would be half as large, and insensitive to swapped classes.
    Criterion("tv", "total variation to CERNBox's levels, mean", "<=", 0.02, "cernbox", min_jets=50_000),
    Criterion("class_tv", "total variation to CERNBox's levels, worst class", "<=", 0.04, "cernbox", min_jets=50_000),
    Criterion(
        "feature_tv", "total variation to CERNBox's levels, worst feature of a class", "<=", 0.10, "cernbox",
        min_jets=50_000,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class CriterionResult:
    """The result of a criterion: value, standard error if known, and ``passed`` (None: too few jets).

    ``worst`` names the class or feature that the value belongs to, where the criterion judges the worst one.
    """

    description: str
    relation: Relation
    bound: float
    value: float
    error: float | None
    passed: bool | None
    min_jets: int = 0
    worst: str = ""


def evaluate(metrics: Mapping[str, Metric], preset: str | None, kind: str | None, jets: int) -> list[CriterionResult]:
    """Compare a sample's metrics with all bounds that apply to it and its reference."""
    results = []
    for one in CRITERIA:
        applies = one.preset in (None, preset) and one.kind in (None, kind)
        if applies and one.metric in metrics:
            value, error, worst = metrics[one.metric]
            # NaN meets no bound.
            is_met = bool((operator.le if one.relation == "<=" else operator.ge)(value, one.bound))
            passed = is_met if jets >= one.min_jets else None
            results.append(
                CriterionResult(one.description, one.relation, one.bound, value, error, passed, one.min_jets, worst)
            )
    return results
