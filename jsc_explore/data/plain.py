"""A stand-in for the physics simulation: jets drawn from a small latent model with the right columns and shape.

Each jet has a groomed mass, a momentum share ``z`` of its two hardest branches and a third-branch activity; the energy
correlators follow from these by the relations that hold for two hard branches (e2 = z(1-z) θ^β, m = pT θ sqrt(z(1-z)),
C2 = D2 e2), so their correlations look like a jet's. The constants were chosen by eye, and so that a linear
classifier reaches about 0.70.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels

ROWS = 200_000
SEED = 20_180_117
# Raise the version whenever a constant or the order of a draw changes: it is what makes older runs other runs.
RECIPE = f"name=simulated\nrecipe=plain-1\nseed={SEED}\nrows={ROWS}\n"

_Reals = npt.NDArray[np.float64]

# One column per class, in the order of CLASSES.                  g      q      w      z      t
_RESONANT = np.array([0.00, 0.00, 0.80, 0.80, 0.80])  # jets whose groomed mass is that of the decay
_PEAK_GEV = np.array([1.0, 1.0, 80.4, 91.2, 165.0])
_PEAK_WIDTH = np.array([0.01, 0.01, 0.055, 0.055, 0.14])  # relative
_QCD_LOG_MASS = np.array([3.60, 2.65, 2.65, 2.65, 4.25])
_QCD_LOG_WIDTH = np.array([0.95, 1.10, 1.00, 1.00, 0.50])
_ACTIVITY = np.array([0.30, 0.10, -0.35, -0.35, 0.00])  # mean of the third branch's activity, in its widths
_LOG_MULTIPLICITY = np.array([4.12, 3.59, 3.60, 3.64, 4.04])
_LOG_MULTIPLICITY_WIDTH = np.array([0.30, 0.38, 0.28, 0.28, 0.26])
_ZLOGZ = np.array([-3.05, -2.40, -2.57, -2.59, -3.03])


def generate(rows: int = ROWS, seed: int = SEED) -> tuple[Features, Labels]:
    """Draw the jets: ``(rows, 16) float32`` in original units and ``(rows,) uint8``; the same seed, the same jets."""
    rng = np.random.Generator(np.random.PCG64(seed))
    labels = rng.integers(0, len(CLASSES), rows).astype(np.uint8)
    mass, share = _mass_and_share(rng, labels)
    activity = _ACTIVITY[labels] + rng.standard_normal(rows)
    columns = _correlators(rng, mass, share, activity)
    columns |= _constituents(rng, labels, mass, activity)
    features = np.stack([columns[name].astype(np.float32) for name in FEATURES], axis=1)
    return features, labels


def _mass_and_share(rng: np.random.Generator, labels: Labels) -> tuple[_Reals, _Reals]:
    """Groomed mass in GeV, and the softer branch's share of the momentum, above the groomer's cut of 0.1."""
    noise = rng.standard_normal(len(labels))
    resonant = rng.random(len(labels)) < _RESONANT[labels]
    peak = _PEAK_GEV[labels] * (1 + _PEAK_WIDTH[labels] * noise)
    broad = np.exp(_QCD_LOG_MASS[labels] + _QCD_LOG_WIDTH[labels] * noise)
    mass = np.clip(np.where(resonant, peak, broad), 1.5, 400.0)
    # A decay shares its momentum evenly; QCD splits softly, with density about 1/z.
    uniform = rng.random(len(labels))
    share = np.where(resonant, 0.12 + 0.38 * uniform, 0.1 * 5**uniform)
    return mass, share


def _correlators(rng: np.random.Generator, mass: _Reals, share: _Reals, activity: _Reals) -> dict[str, _Reals]:
    def spread(width: float) -> _Reals:
        return np.exp(width * rng.standard_normal(len(mass)))

    pt_gev = 1000 * spread(0.05)
    balance = share * (1 - share)
    e2_b1 = mass / pt_gev * np.sqrt(balance) * np.exp(0.03 * activity) * spread(0.06)
    e2_b2 = (mass / pt_gev) ** 2 * spread(0.04)
    d2_b1 = 1.25 * np.exp(0.30 * activity) * spread(0.12)
    d2_b2 = 0.85 * np.exp(0.55 * activity) * spread(0.25)
    n2_b1 = 0.27 * np.exp(0.22 * activity) * spread(0.12)
    n2_b2 = 0.125 * np.exp(0.50 * activity) * spread(0.18)
    return {
        "c1_b1_mmdt": e2_b1,
        "c1_b2_mmdt": e2_b2,
        "c2_b1_mmdt": d2_b1 * e2_b1,
        "c2_b2_mmdt": d2_b2 * e2_b2,
        "d2_b1_mmdt": d2_b1,
        "d2_b2_mmdt": d2_b2,
        "d2_a1_b1_mmdt": d2_b1,  # equal in the real releases as well
        "d2_a1_b2_mmdt": d2_b1 * e2_b1**3 / e2_b2**1.5,
        "m2_b1_mmdt": 0.085 * np.exp(0.28 * activity) * spread(0.20),
        "m2_b2_mmdt": 0.036 * np.exp(0.45 * activity) * spread(0.28),
        "n2_b1_mmdt": n2_b1,
        "n2_b2_mmdt": n2_b2,
        "mass_mmdt": mass,
    }


def _constituents(rng: np.random.Generator, labels: Labels, mass: _Reals, activity: _Reals) -> dict[str, _Reals]:
    """What the number of particles decides: multiplicity, and how evenly they share the energy."""
    richness = 0.8 * rng.standard_normal(len(labels)) + 0.6 * activity
    log_count = _LOG_MULTIPLICITY[labels] + _LOG_MULTIPLICITY_WIDTH[labels] * richness
    zlogz = _ZLOGZ[labels] - 0.32 * richness - 0.10 * np.log(mass / 60) + 0.33 * rng.standard_normal(len(labels))
    evenness = 0.49 - 0.9 * np.exp(np.minimum(zlogz, -0.6))
    return {
        "multiplicity": np.clip(np.rint(np.exp(log_count)), 3, 250),
        "zlogz": np.minimum(zlogz, -0.05),
        "c1_b0_mmdt": np.clip(evenness + 0.012 * rng.standard_normal(len(labels)), 0.02, 0.498),
    }
