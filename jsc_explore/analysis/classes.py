"""Per-class results over the seeds of a config: confusion, AUC, ROC curves, and in how many seeds a class is silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jsc_explore.analysis.statistics import median_spread
from jsc_explore.data.jets import CLASSES
from jsc_explore.errors import FieldError
from jsc_explore.results import SIGNAL_EFFICIENCIES

N = len(CLASSES)


def confusion_shares(counts: Sequence[Sequence[int] | None]) -> npt.NDArray[np.float64] | None:
    """Return ``(5, 5)`` shares: row, the true class; column, the predicted one; rows sum to one.

    The counts of the runs (25 each, true class first, or None) are summed; None if there are none. Raises FieldError
    for a list of another length.
    """
    known = [one for one in counts if one is not None]
    if not known:
        return None
    for one in known:
        if len(one) != N * N:
            raise FieldError("confusion", f"{len(one)} counts", f"must hold {N * N}", "run `jsc-explore verify`")
    total = np.array(known, float).sum(axis=0).reshape(N, N)
    return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1))


def per_class(runs: Sequence[Mapping[str, Any]], figure: str) -> list[dict[str, Any]]:
    """Return one row a class of ``figure`` (``auc`` or ``rejection``) over runs.

    Columns: ``class``, ``median``, the ends ``low`` and ``high`` of its spread (``median_spread``), and ``n``, the runs
    that have the figure; figures are None for a class without.
    """
    rows = []
    for position, name in enumerate(CLASSES):
        values = [run[figure][position] for run in runs if run[figure] and run[figure][position] is not None]
        middle, low, high = (None, None, None)
        if values:
            middle, low, high = float(np.median(values)), *map(float, median_spread(values))
        rows.append({"class": name, "median": middle, "low": low, "high": high, "n": len(values)})
    return rows


def roc_medians(curves: Sequence[Sequence[float | None]]) -> list[dict[str, Any]]:
    """Return the median ROC curves of some runs: a row a class and signal efficiency, ``class``, ``efficiency``,
    ``median`` of the background rejection with the ends ``low`` and ``high`` of its spread, and ``n``, the runs.

    ``curves`` are those of ``Outcome.roc``. An efficiency at which some run accepts no background has no finite
    rejection and is left out. Raises FieldError for a curve of another length.
    """
    places = len(SIGNAL_EFFICIENCIES)
    for one in curves:
        if len(one) != N * places:
            raise FieldError("roc", f"{len(one)} values", f"must hold {N * places}", "run `jsc-explore verify`")
    if not curves:
        return []
    shares = np.array(curves, float).reshape(len(curves), N, places)
    known: npt.NDArray[np.bool_] = np.all(shares > 0, axis=0)
    rejections = np.moveaxis(1 / np.where(known, shares, 1.0), 0, -1)
    figures = {"median": np.median(rejections, axis=-1)} | dict(
        zip(("low", "high"), median_spread(rejections), strict=True)
    )
    return [
        {"class": name, "efficiency": SIGNAL_EFFICIENCIES[at], "n": len(curves)}
        | {figure: float(values[c, at]) for figure, values in figures.items()}
        for c, name in enumerate(CLASSES)
        for at in np.flatnonzero(known[c])
    ]


def count_silent(runs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return, for each class that is silent in some run (``Outcome.silent_classes``), the number of runs."""
    return {name: count for name in CLASSES if (count := sum(name in run["silent_classes"] for run in runs))}
