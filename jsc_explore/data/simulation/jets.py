"""Find an event's leading jet and groom it: anti-kT, then the modified mass drop tagger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jsc_explore.data.simulation.extra import fastjet
from jsc_explore.data.simulation.features import MIN_GROOMED, Floats, Jet

_RADIUS = 0.4
_MIN_PT_GEV = 800.0
_Z_CUT = 0.1


class JetFinder:
    """Anti-kT with R = 0.4, leading jet, mMDT with z_cut = 0.1."""

    def __init__(self) -> None:
        self._fastjet = fastjet()
        definition = self._fastjet.JetDefinition
        self._anti_kt = definition(self._fastjet.antikt_algorithm, _RADIUS)
        # The largest radius: all constituents end in one tree.
        self._cambridge = definition(self._fastjet.cambridge_algorithm, definition.max_allowable_R)

    def leading(self, measured: Floats, partons: Sequence[tuple[float, float]]) -> Jet | None:
        """Return the leading jet of `measured` ``(n, 4)``, or None if it is not selected.

        Selected are jets above 800 GeV, near one of `partons` (rapidity, phi), with three groomed constituents.
        """
        fj = self._fastjet
        particles = []
        for index, row in enumerate(measured.tolist()):
            particle = fj.PseudoJet(*row)
            particle.set_user_index(index)
            particles.append(particle)
        found = fj.ClusterSequence(particles, self._anti_kt)
        jets = fj.sorted_by_pt(found.inclusive_jets(_MIN_PT_GEV))
        if not len(jets) or not _near(jets[0], partons):
            return None
        constituents = list(jets[0].constituents())
        tree = fj.ClusterSequence(constituents, self._cambridge)
        groomed = self._groom(tree.inclusive_jets()[0]).constituents()
        if len(groomed) < MIN_GROOMED:
            return None
        return Jet(measured[_indices(constituents)], measured[_indices(groomed)])

    def _groom(self, jet: Any) -> Any:
        """Follow the harder branch until both carry more than z_cut, or one particle is left."""
        while True:
            first, second = self._fastjet.PseudoJet(), self._fastjet.PseudoJet()
            if not jet.has_parents(first, second):
                return jet
            pt1, pt2 = first.pt(), second.pt()
            if min(pt1, pt2) / (pt1 + pt2) > _Z_CUT:
                return jet
            jet = first if pt1 > pt2 else second


def _near(jet: Any, partons: Sequence[tuple[float, float]]) -> bool:
    rapidity, phi = jet.rap(), jet.phi()
    for other_rapidity, other_phi in partons:
        dphi = abs(phi - other_phi) % (2 * np.pi)
        dphi = min(dphi, 2 * np.pi - dphi)
        if (rapidity - other_rapidity) ** 2 + dphi**2 < _RADIUS**2:
            return True
    return False


def _indices(constituents: Any) -> list[int]:
    return [constituent.user_index() for constituent in constituents]
