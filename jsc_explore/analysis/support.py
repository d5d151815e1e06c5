"""Find the measured cells that support the prediction of a config: those on its lines, near enough, on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from jsc_explore.analysis.encoding import Encoding
from jsc_explore.config import FIELDS

Kind = Literal["surrounded", "between", "beyond"]
KINDS: dict[Kind, str] = {
    "surrounded": "between measured cells along two axes",
    "between": "between measured cells along one axis",
    "beyond": "one step beyond the measured cells",
}
# Fewer measured values do not show how a metric changes along an axis.
MIN_VALUES = 3
_TOLERANCE = 1.01


@dataclass(frozen=True)
class Support:
    """How measured cells lie around a config, and the indices of those on its lines."""

    kind: Kind
    cells: npt.NDArray[np.int64]


def find_support(
    encoding: Encoding,
    cells: Sequence[Mapping[str, Any]],
    configs: Sequence[Mapping[str, Any]],
    *,
    leave_out: bool = False,
) -> list[Support | None]:
    """Return the support of each config, None where no measured cells lie near enough.

    A line of a config is what differs from it in one numeric hyperparameter alone. A config is between measured cells
    along a line where one lies within a step on either side, a step being the median gap of the measured values; it is
    beyond them where at least ``MIN_VALUES`` lie on one side, the nearest within a step. So nothing is extrapolated
    along a hyperparameter that is measured at one value only, or from cells of another network or optimizer.
    A config among ``cells`` is supported by itself, with ``leave_out`` by the others alone.
    """
    names = tuple(encoding.varied)
    known, asked = _codes(names, cells, configs)
    comparable = [all(row[name] == value for name, value in encoding.fixed.items()) for row in configs]
    axes = {
        place: (encoding.position(name, cells), encoding.position(name, configs), FIELDS[name].log)
        for place, name in enumerate(names)
        if encoding.is_number(name) and len(encoding.varied[name]) >= MIN_VALUES
    }
    steps = {place: _TOLERANCE * float(np.median(np.diff(np.unique(at)))) for place, (at, _, _) in axes.items()}
    found: list[Support | None] = []
    for index, code in enumerate(asked):
        between: list[npt.NDArray[np.int64]] = []
        beyond: list[npt.NDArray[np.int64]] = []
        differs = known != code
        alone = differs.sum(axis=1) == 1
        own_cell = (
            np.flatnonzero(~differs.any(axis=1)) if comparable[index] and not leave_out else np.empty(0, np.int64)
        )
        for place, (positions, own, log) in axes.items() if comparable[index] else ():
            line = np.flatnonzero(alone & differs[:, place])
            distance = positions[line] - own[index]
            below, above = distance < 0, distance > 0
            near = np.abs(distance) <= steps[place]
            if (near & below).any() and (near & above).any():
                between.append(line)
            elif log and near.any() and (below.all() or above.all()) and len(line) >= MIN_VALUES:
                beyond.append(line)
        if len(own_cell):
            between.append(own_cell)
        lines = between or beyond
        kind: Kind = "surrounded" if len(between) > 1 else "between" if between else "beyond"
        found.append(Support(kind, np.unique(np.concatenate(lines))) if lines else None)
    return found


def rows_left_out(
    encoding: Encoding, cells: Sequence[Mapping[str, Any]]
) -> list[tuple[Kind, str, npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Return what is left out together to calibrate: kind, its row's name, indices, and which of them are predicted.

    A row is every cell with one value of a hyperparameter, of all networks and of each network alone. To predict
    beyond the measured cells, the rows on the far side are left out as well.
    """
    found: list[tuple[Kind, str, npt.NDArray[np.int64], npt.NDArray[np.bool_]]] = []
    models = np.array([row["model"] for row in cells])
    parts = [np.ones(len(cells), bool), *(models == model for model in np.unique(models))]
    parts = parts[:1] if len(parts) == 2 else parts
    for name in encoding.varied:
        if not encoding.is_number(name):
            continue
        at = encoding.position(name, cells)
        values = np.unique(at)
        for value in values:
            groups: list[tuple[Kind, Any]] = [("between", at == value)] if values[0] < value < values[-1] else []
            sides = (at >= value, at <= value) if FIELDS[name].log else ()
            groups += [("beyond", side) for side in sides if len(np.unique(at[~side])) >= MIN_VALUES]
            for kind, out in groups:
                found += [
                    (kind, f"{name} {value}", group, at[group] == value)
                    for group in (np.flatnonzero(out & part) for part in parts)
                    if value in at[group]
                ]
    return found


def _codes(names: Sequence[str], *tables: Sequence[Mapping[str, Any]]) -> list[npt.NDArray[np.int64]]:
    """Return ``(rows, names) int64`` for each table: equal numbers where values are equal."""
    seen: dict[str, dict[Any, int]] = {name: {} for name in names}
    return [
        np.array([[seen[name].setdefault(row[name], len(seen[name])) for name in names] for row in table], np.int64)
        .reshape(len(table), len(names))
        for table in tables
    ]  # fmt: skip
