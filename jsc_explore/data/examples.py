"""The example jets in the repository: a few of each class with all constituents, for drawings on the Data page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsc_explore.data.sources import SHIPPED


@dataclass(frozen=True)
class ExampleJet:
    """One jet: masses and pT in GeV; ``constituents`` are (pT in GeV, Δy, Δφ from the axis, kept by grooming)."""

    mass_gev: float
    mass_mmdt_gev: float
    pt_gev: float
    constituents: tuple[tuple[float, float, float, bool], ...]

    @property
    def kept(self) -> int:
        """The number of constituents that grooming kept."""
        return sum(row[3] for row in self.constituents)


@cache
def example_jets() -> dict[str, dict[str, ExampleJet]]:
    """Return class -> light, typical, heavy (quartiles of the groomed mass) -> example jet."""
    return {label: {place: _example(row) for place, row in places.items()} for label, places in _read()["jets"].items()}


def example_recipe() -> dict[str, Any]:
    """Return how the examples were made: preset, recipe, seed, versions, and among how many jets they were selected."""
    return dict(_read()["recipe"])


@cache
def _read() -> dict[str, Any]:
    return dict(json.loads((SHIPPED / "example-jets.json").read_bytes()))


def _example(row: dict[str, Any]) -> ExampleJet:
    rows = tuple((float(pt), float(dy), float(dphi), bool(kept)) for pt, dy, dphi, kept in row["constituents"])
    return ExampleJet(row["mass_gev"], row["mass_mmdt_gev"], row["pt_gev"], rows)
