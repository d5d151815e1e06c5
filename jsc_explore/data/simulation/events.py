"""Generate the events of one class with Pythia and select each event's leading jet.

The results depend only on (preset, class, seed, block number).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jsc_explore.data.jets import CLASSES
from jsc_explore.data.simulation.detector import NEUTRINO, Preset, detect, particle_kind
from jsc_explore.data.simulation.extra import pythia
from jsc_explore.data.simulation.features import Floats, Jet
from jsc_explore.data.simulation.jets import JetFinder
from jsc_explore.errors import DataError, FieldError

RECIPE_VERSION = 1
"""Raise it with every change that alters a jet: blocks of different recipes are never mixed."""

_COMMON = ("Print:quiet = on", "Beams:eCM = 13000", "PhaseSpace:pTHatMin = 995", "Random:setSeed = on")
# Inferred from the data, not documented: real gluon jets fit without an upper limit, real Z jets without b quarks.
_PT_LIMIT = "PhaseSpace:pTHatMax = 1005"
_W_TO_QUARKS = ("24:onMode = off", "24:onIfAny = 1 2 3 4 5")
_SETTINGS = {
    "g": ("HardQCD:gg2gg = on", "HardQCD:qqbar2gg = on"),
    "q": ("HardQCD:qq2qq = on", "HardQCD:gg2qqbar = on", "HardQCD:qqbar2qqbarNew = on", _PT_LIMIT),
    "w": ("WeakDoubleBoson:ffbar2WW = on", "24:mMin = 80.3", "24:mMax = 80.5", *_W_TO_QUARKS, _PT_LIMIT),
    "z": (
        "WeakDoubleBoson:ffbar2gmZgmZ = on",
        "WeakZ0:gmZmode = 2",
        "23:mMin = 91.1",
        "23:mMax = 91.3",
        "23:onMode = off",
        "23:onIfAny = 1 2 3 4",
        _PT_LIMIT,
    ),
    "t": ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_W_TO_QUARKS, _PT_LIMIT),
}

# W and Z of the real jets decay isotropically, those of Pythia according to their polarisation. In these processes
# |cos theta*| is distributed as 1 + a cos^2. Fitted to 300,000 bosons each: error of a 0.010, chi2 19 and 15 in 20
# bins.
_POLARISATION = {"w": 0.688, "z": 0.992}

# Pythia accepts seeds from 1 to 900,000,000.
_PYTHIA_SEEDS = 900_000_000
_MAX_DISTANCE = 2.0
_HARD = (5, 6)  # the two outgoing particles of the hard process in Pythia's record
_MAX_FAILURES_IN_A_ROW = 1_000


def check_class(label: str) -> str:
    """Return `label`; raise FieldError for an unknown class."""
    if label not in CLASSES:
        raise FieldError("class", label, f"must be one of {', '.join(CLASSES)}", "try g")
    return label


def derive_seeds(preset: str, label: str, seed: int, number: int) -> tuple[int, np.random.SeedSequence]:
    """Return the seeds of Pythia and NumPy for a block.

    Pythia's seed is a hash of (recipe, preset, class, seed) plus the block number: no two blocks of a class share it.
    """
    digest = hashlib.sha256(f"{RECIPE_VERSION} {preset} {label} {seed}".encode()).digest()
    words = [int.from_bytes(digest[k : k + 4], "little") for k in range(0, 32, 4)]
    start = int.from_bytes(digest[:8], "little") + number
    return start % _PYTHIA_SEEDS + 1, np.random.SeedSequence([*words, number])


def generate_jets(preset: Preset, label: str, seed: int, number: int) -> Iterator[Jet]:
    """Yield an endless sequence of jets of class `label`, always the same for the same arguments."""
    pythia_seed, entropy = derive_seeds(preset.name, label, seed, number)
    detector_rng, decay_rng = (np.random.default_rng(child) for child in entropy.spawn(2))
    # Pythia keeps no reference to the veto. Without this variable it would be deleted and no event would be vetoed.
    veto = isotropic_decays(check_class(label), decay_rng)
    generator = make_pythia(label, pythia_seed, veto)
    finder = JetFinder()
    kinds: dict[int, int] = {}
    failures = 0
    while True:
        if not generator.next():
            failures += 1
            if failures == _MAX_FAILURES_IN_A_ROW:
                raise DataError(f"Pythia failed {failures} times in a row on class {label}, seed {pythia_seed}")
            continue
        failures = 0
        partons = [(p.y(), p.phi()) for p in (generator.process[k] for k in _HARD)]
        momenta, found = _particles(generator, kinds, partons)
        jet = finder.leading(detect(momenta, found, preset, detector_rng), partons)
        if jet is not None:
            yield jet


def decay_cosine(process: Any, boson: int) -> float:
    """Return cos theta*, between the first daughter and the boson's flight direction in the boson's rest frame.

    The daughter is taken as massless."""
    parent = process[boson]
    child = process[parent.daughter1()]
    speed = parent.pAbs() / parent.e()
    along = (parent.px() * child.px() + parent.py() * child.py() + parent.pz() * child.pz()) / (
        parent.pAbs() * child.pAbs()
    )
    return float((along - speed) / (1 - speed * along))


def make_pythia(label: str, pythia_seed: int, veto: Any, settings: Sequence[str] = ()) -> Any:
    """Return Pythia initialised for a class. The caller must keep a reference to `veto`, which may be None."""
    generator = pythia().Pythia("", False)
    for setting in (*_COMMON, *_SETTINGS[label], f"Random:seed = {pythia_seed}", *settings):
        if not generator.readString(setting):
            raise DataError(
                f"this version of Pythia does not know the setting {setting!r}; install the version in pyproject.toml"
            )
    if veto is not None:
        generator.setUserHooksPtr(veto)
    if not generator.init():
        raise DataError(f"Pythia could not be initialised for class {label}")
    return generator


def isotropic_decays(label: str, rng: np.random.Generator) -> Any:
    """Return a veto that makes both bosons' decays isotropic, applied before the parton shower to save time.

    None for classes without W or Z in the hard process.
    """
    if label not in _POLARISATION:
        return None
    library = pythia()
    polarisation = _POLARISATION[label]

    class IsotropicDecays(library.UserHooks):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.UserHooks.__init__(self)

        def canVetoProcessLevel(self) -> bool:  # noqa: N802
            return True

        def doVetoProcessLevel(self, process: Any) -> bool:  # noqa: N802
            accept = 1.0
            for boson in _HARD:
                accept /= 1 + polarisation * decay_cosine(process, boson) ** 2
            return bool(rng.random() >= accept)

    return IsotropicDecays()


def _particles(
    generator: Any, kinds: dict[int, int], partons: list[tuple[float, float]]
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Return momenta and kinds of the visible particles around the hard partons."""
    rows = [(p.px(), p.py(), p.pz(), p.e(), p.id()) for p in generator.event if p.isFinal()]
    table = np.array(rows)
    for pdg_id in {row[4] for row in rows} - kinds.keys():
        kinds[pdg_id] = particle_kind(pdg_id, generator.particleData.charge(pdg_id))
    found = np.array([kinds[row[4]] for row in rows])
    pt = np.hypot(table[:, 0], table[:, 1])
    eta = np.arcsinh(table[:, 2] / np.maximum(pt, 1e-300))
    phi = np.arctan2(table[:, 1], table[:, 0])
    near = np.zeros(len(table), dtype=bool)
    for parton_rapidity, parton_phi in partons:
        dphi = np.abs(phi - parton_phi) % (2 * np.pi)
        dphi = np.minimum(dphi, 2 * np.pi - dphi)
        near |= (eta - parton_rapidity) ** 2 + dphi**2 < _MAX_DISTANCE**2
    near &= found != NEUTRINO
    return table[near, :4], found[near]
