"""What a sample of jets must reach to stand in for real ones: every bound in one place, and the judgement."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

REAL, LEVELS, SIMULATED = "real", "levels", "simulated"
Sense = Literal["<=", ">="]


@dataclass(frozen=True)
class Bound:
    """One criterion: the figure it judges, the bound, and for which samples and references it holds.

    ``preset`` is that of the sample, ``kind`` that of the jets compared with; None: whatever it is. A sample of less
    than ``fewest`` jets is not judged: chance alone would come near the bound.
    """

    figure: str
    words: str
    sense: Sense
    bound: float
    preset: str | None = None
    kind: str | None = None
    min_jets: int = 0


# Levels hide detail, hence less may be told apart; two simulations by one recipe have no excuse at all.
BOUNDS = (
    Bound("auc", "discriminator AUC against real jets", "<=", 0.55, kind=REAL),
    Bound("auc", "discriminator AUC against real jets on levels", "<=", 0.54, kind=LEVELS),
    Bound("auc", "discriminator AUC against simulated jets", "<=", 0.52, kind=SIMULATED),
    Bound("accuracy", "accuracy on real jets, trained on the sample", ">=", 0.74, preset="openml", kind=REAL),
    # The quantiles are OpenML's, the levels CERNBox's: each is a criterion for the preset that stands in for it.
    Bound("ks_quantiles", "mean KS distance to OpenML's quantiles", "<=", 0.02, preset="openml", min_jets=10_000),
    # Over features and classes: the inclusive one would be half as large, and blind to classes that trade places.
    Bound("total_variation", "mean total variation to CERNBox's levels", "<=", 0.02, preset="cernbox", min_jets=50_000),
)


@dataclass(frozen=True)
class Judgement:
    """A criterion met or not: what was found, with its standard error where there is one; None: too few jets."""

    words: str
    sense: Sense
    bound: float
    found: float
    error: float | None
    passed: bool | None
    min_jets: int = 0


def judge(
    figures: Mapping[str, tuple[float, float | None]], preset: str | None, kind: str | None, jets: int
) -> list[Judgement]:
    """Hold a sample's figures, each a value and its error, against the bounds that apply to it and its reference."""
    judged = []
    for bound in BOUNDS:
        applies = bound.preset in (None, preset) and bound.kind in (None, kind)
        if applies and bound.figure in figures:
            found, error = figures[bound.figure]
            # A figure that is not a number meets no bound.
            passed = (operator.le if bound.sense == "<=" else operator.ge)(found, bound.bound)
            outcome = bool(passed) if jets >= bound.min_jets else None
            judged.append(Judgement(bound.words, bound.sense, bound.bound, found, error, outcome, bound.min_jets))
    return judged
