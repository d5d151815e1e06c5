"""Encode configs as rows of numbers, for methods that work with distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jsc_explore import network
from jsc_explore.config import FIELDS

Numbers = npt.NDArray[np.float64]
Row = Mapping[str, Any]


class Encoding:
    """Encode the hyperparameters that vary among some configs as numbers in about [0, 1].

    Logarithmic fields become their logarithm, other numbers their rank among the known values, names and booleans one
    column for each value (one-hot). A network also becomes the logarithm of its parameter count, so that networks of
    similar size lie near each other.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        known = {
            name: {row[name] for row in rows} for name in FIELDS if name != "seed" and all(name in r for r in rows)
        }
        self.fixed = {name: next(iter(values)) for name, values in known.items() if len(values) == 1}
        self.varied = {name: _ordered(name, values) for name, values in known.items() if len(values) > 1}

    def position(self, name: str, rows: Sequence[Row]) -> Numbers:
        """Return where rows lie along a numeric field: its logarithm, or its rank; nan beyond the known ranks."""
        values, given = self.varied[name], [row[name] for row in rows]
        if FIELDS[name].log:
            return np.asarray(np.log10(given), dtype=np.float64)
        return np.asarray(np.interp(given, values, np.arange(len(values)), np.nan, np.nan), dtype=np.float64)

    @property
    def columns(self) -> list[str]:
        """The field of each column of ``matrix``."""
        widths = {name: 1 if self.is_number(name) else len(values) for name, values in self.varied.items()}
        return [name for name, width in widths.items() for _ in range(width + (name == "model"))]

    @staticmethod
    def is_number(name: str) -> bool:
        """Return whether the values of a field are numbers."""
        return FIELDS[name].kind in ("int", "float")

    def matrix(self, rows: Sequence[Row]) -> Numbers:
        """Return ``(rows, columns) float64``; values outside the known range leave [0, 1]."""
        columns: list[Numbers] = []
        for name, values in self.varied.items():
            given = [row[name] for row in rows]
            if self.is_number(name):
                columns.append(_scaled(name, given, values))
            else:
                columns += [np.array([one == value for one in given], float) for value in values]
            if name == "model":
                columns.append(_sizes(rows, values))
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def _ordered(name: str, values: set[Any]) -> list[Any]:
    return sorted(values) if Encoding.is_number(name) else sorted(values, key=str)


def _scaled(name: str, given: Sequence[float], known: Sequence[float]) -> Numbers:
    if FIELDS[name].log:
        low, high = np.log10(known[0]), np.log10(known[-1])
        return np.asarray((np.log10(given) - low) / (high - low), dtype=np.float64)
    return np.asarray(np.interp(given, known, np.linspace(0, 1, len(known))), dtype=np.float64)


def _sizes(rows: Sequence[Row], models: Sequence[str]) -> Numbers:
    logs = {model: np.log10(network.parse(model, True).parameters) for model in {*models, *(r["model"] for r in rows)}}
    low = min(logs[model] for model in models)
    span = max(logs[model] for model in models) - low
    return np.array([(logs[row["model"]] - low) / (span or 1.0) for row in rows])
