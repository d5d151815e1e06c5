"""A parametrised detector: tracks, two calorimeters with cells, smeared energies.

After Coleman et al., arXiv:1709.08705, with the settings in the names of the releases' files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jsc_explore.data.simulation.features import Floats
from jsc_explore.errors import FieldError


@dataclass(frozen=True)
class Preset:
    """Detector settings: cell widths in eta and phi, and a factor for all resolutions."""

    name: str
    ecal_cell: float
    hcal_cell: float
    smearing: float


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("cernbox", ecal_cell=0.0175, hcal_cell=0.022, smearing=1.0),
        Preset("openml", ecal_cell=0.005, hcal_cell=0.01, smearing=0.5),
    )
}

# Particle kinds by their signal in the detector; NEUTRINO leaves none.
CHARGED, LEPTON, PHOTON, NEUTRAL, NEUTRINO = range(5)

_MAX_TRACK_PT_GEV = 220.0
_MAX_ETA = 3.0
_MIN_ENERGY_GEV = 1e-6


def find_preset(name: str) -> Preset:
    """Return the preset of this name; raise FieldError if there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise FieldError("preset", name, f"must be one of {', '.join(PRESETS)}", "try cernbox") from None


def particle_kind(pdg_id: int, charge: float) -> int:
    """Return the kind of a stable particle, given its PDG id and charge."""
    pdg_id = abs(pdg_id)
    if pdg_id in (12, 14, 16):
        return NEUTRINO
    if pdg_id in (11, 13):
        return LEPTON
    if pdg_id == 22:
        return PHOTON
    return CHARGED if charge else NEUTRAL


def detect(momenta: Floats, kinds: NDArray[np.int64], preset: Preset, rng: np.random.Generator) -> Floats:
    """Return measured four-momenta ``(m, 4)`` for true ones ``(n, 4)``, rows (px, py, pz, E) in GeV."""
    pt = np.hypot(momenta[:, 0], momenta[:, 1])
    # Above 220 GeV the calorimeter measures better than the curvature of a track.
    is_track = (kinds == LEPTON) | ((kinds == CHARGED) & (pt <= _MAX_TRACK_PT_GEV))
    is_hadronic = (kinds == NEUTRAL) | ((kinds == CHARGED) & (pt > _MAX_TRACK_PT_GEV))
    tracks = momenta[is_track]
    ecal = _cells(momenta[kinds == PHOTON], preset.ecal_cell)
    hcal = _cells(momenta[is_hadronic], preset.hcal_cell)
    variance = np.concatenate(
        [
            (0.00025 * pt[is_track]) ** 2 + 0.015**2,
            0.027**2 * 1.6 / ecal[:, 3] + (0.24 / ecal[:, 3]) ** 2 + 0.005**2,
            1.2**2 * 7 / hcal[:, 3] + 0.05**2,
        ]
    )
    scale = np.maximum(1e-10, rng.normal(1.0, preset.smearing * np.sqrt(variance)))
    measured = np.concatenate([tracks, ecal, hcal]) * scale[:, None]
    return np.asarray(measured[measured[:, 3] > _MIN_ENERGY_GEV])


def _cells(momenta: Floats, width: float) -> Floats:
    """Sum the energy in each cell; return each cell as a massless four-momentum at its centre."""
    pt = np.hypot(momenta[:, 0], momenta[:, 1])
    eta = np.arcsinh(momenta[:, 2] / np.maximum(pt, 1e-300))
    inside = np.abs(eta) < _MAX_ETA
    phi = np.arctan2(momenta[inside, 1], momenta[inside, 0]) % (2 * np.pi)
    n_eta, n_phi = int(2 * _MAX_ETA / width), int(2 * np.pi / width)
    eta_width, phi_width = 2 * _MAX_ETA / n_eta, 2 * np.pi / n_phi
    eta_bin = np.minimum(((eta[inside] + _MAX_ETA) / eta_width).astype(np.int64), n_eta - 1)
    phi_bin = np.minimum((phi / phi_width).astype(np.int64), n_phi - 1)
    cells, owner = np.unique(eta_bin * n_phi + phi_bin, return_inverse=True)
    energy = np.bincount(owner, weights=momenta[inside, 3], minlength=len(cells))
    eta = (cells // n_phi + 0.5) * eta_width - _MAX_ETA
    phi = (cells % n_phi + 0.5) * phi_width
    pt = energy / np.cosh(eta)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy], axis=1)
