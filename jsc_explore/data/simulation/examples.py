"""Simulate the example jets of the Data page: three of each class with all constituents."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jsc_explore.data.jets import CLASSES
from jsc_explore.data.simulation.detector import find_preset
from jsc_explore.data.simulation.events import RECIPE_VERSION, generate_jets
from jsc_explore.data.simulation.extra import versions
from jsc_explore.data.simulation.features import Floats, Jet, polar
from jsc_explore.errors import DataError, FieldError
from jsc_explore.files import atomic_write

# The examples of a class are at the quartiles of groomed mass among its first JETS jets.
JETS = 101
QUARTILES = {"light": 25, "typical": 50, "heavy": 75}


def example_jets(preset: str, seed: int, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Simulate the first ``JETS`` jets of each class and return those at the quartiles of groomed mass.

    Each example holds ``mass_gev`` (ungroomed), ``mass_mmdt_gev`` (groomed), ``pt_gev`` and ``constituents``: pT in
    GeV, distances in rapidity and azimuth from the jet's axis, and 1 if grooming kept it, otherwise 0; hardest
    first. Raises FieldError for an unknown preset or class or a negative seed, DataError if a library is missing.
    """
    found = find_preset(preset)
    if seed < 0:
        raise FieldError("seed", seed, "must not be negative", "try 0")
    jets = {}
    for label in classes:
        # Block 0 is also the first of a sample with this preset and seed.
        first = list(itertools.islice(generate_jets(found, label, seed, 0), JETS))
        order = np.argsort([_mass(jet.groomed) for jet in first], kind="stable")
        jets[label] = {name: _example(first[order[percent]]) for name, percent in QUARTILES.items()}
    recipe = {"preset": preset, "recipe": RECIPE_VERSION, "seed": seed, "of": JETS, "versions": versions()}
    return {"recipe": recipe, "jets": jets}


def write_examples(path: Path, preset: str, seed: int) -> Path:
    """Write ``example_jets`` as JSON. Raises DataError if ``path`` cannot be written."""
    examples = example_jets(preset, seed)
    try:
        with atomic_write(path) as file:
            file.write((json.dumps(examples, separators=(",", ":")) + "\n").encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); choose another file with --out") from error
    return path


def _example(jet: Jet) -> dict[str, Any]:
    axis = jet.constituents.sum(axis=0, keepdims=True)
    pt, rapidity, phi = polar(jet.constituents)
    axis_pt, axis_rapidity, axis_phi = polar(axis)
    dphi = (phi - axis_phi + np.pi) % (2 * np.pi) - np.pi
    kept = {tuple(row) for row in jet.groomed}
    return {
        "mass_gev": round(_mass(jet.constituents), 2),
        "mass_mmdt_gev": round(_mass(jet.groomed), 2),
        "pt_gev": round(float(axis_pt[0]), 1),
        "constituents": [
            [round(float(pt[k]), 3), round(float(rapidity[k] - axis_rapidity[0]), 4), round(float(dphi[k]), 4),
             int(tuple(jet.constituents[k]) in kept)]
            for k in np.argsort(-pt, kind="stable")
        ],
    }  # fmt: skip


def _mass(momenta: Floats) -> float:
    px, py, pz, energy = momenta.sum(axis=0)
    return float(np.sqrt(max(0.0, energy**2 - px**2 - py**2 - pz**2)))
