"""The criteria that a simulated sample must meet to replace real jets, and their evaluation."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

REAL, LEVELS, SIMULATED = "real", "levels", "simulated"
Relation = Literal["<=", ">="]


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


# Levels hide details, so a discriminator must do worse on them; two simulations of one recipe must agree best.
CRITERIA = (
    Criterion("auc", "discriminator AUC against real jets", "<=", 0.55, kind=REAL),
    Criterion("auc", "discriminator AUC against real jets on levels", "<=", 0.54, kind=LEVELS),
    Criterion("auc", "discriminator AUC against simulated jets", "<=", 0.52, kind=SIMULATED),
    Criterion("accuracy", "accuracy on real jets, trained on the sample", ">=", 0.74, preset="openml", kind=REAL),
    # The quantiles are OpenML's, the levels CERNBox's: each is a criterion for the preset that replaces that release.
    Criterion("ks_quantiles", "mean KS distance to OpenML's quantiles", "<=", 0.02, preset="openml", min_jets=10_000),
    # Mean over features and classes. Without classes it would be half as large, and insensitive to swapped classes.
    Criterion(
        "total_variation", "mean total variation to CERNBox's levels", "<=", 0.02, preset="cernbox", min_jets=50_000
    ),
)


@dataclass(frozen=True)
class CriterionResult:
    """The result of a criterion: value, standard error if known, and ``passed`` (None: too few jets)."""

    description: str
    relation: Relation
    bound: float
    value: float
    error: float | None
    passed: bool | None
    min_jets: int = 0


def evaluate(
    metrics: Mapping[str, tuple[float, float | None]], preset: str | None, kind: str | None, jets: int
) -> list[CriterionResult]:
    """Compare a sample's metrics, each a value and its error, with all bounds that apply to it and its reference."""
    results = []
    for one in CRITERIA:
        applies = one.preset in (None, preset) and one.kind in (None, kind)
        if applies and one.metric in metrics:
            value, error = metrics[one.metric]
            # NaN meets no bound.
            is_met = bool((operator.le if one.relation == "<=" else operator.ge)(value, one.bound))
            passed = is_met if jets >= one.min_jets else None
            results.append(
                CriterionResult(one.description, one.relation, one.bound, value, error, passed, one.min_jets)
            )
    return results
