"""Explanations of the classes and features for the Data page: a sentence, a formula and a paper each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLASS_NAMES: Final = {"g": "gluon", "q": "light quark", "w": "W", "z": "Z", "t": "top"}

CLASS_DESCRIPTIONS: Final = {
    "g": "A gluon radiates more than a quark: its jet is broad, with many soft particles, and the gluon has no mass.",
    "q": "A light quark makes a narrow jet around one prong, and its mass is negligible.",
    "w": "A W boson (80 GeV) decays to two quarks: the jet has two prongs, whose invariant mass is that of the W.",
    "z": "A Z boson (91 GeV) decays to two quarks like the W; it differs from the W mainly by its larger mass.",
    "t": "A top quark (173 GeV) decays to a W and a b quark: the jet has three prongs if all are inside the cone.",
}


@dataclass(frozen=True)
class FeatureNote:
    """The explanation of one feature: a sentence, its formula in LaTeX, and the paper that introduced it."""

    text: str
    formula: str
    paper: str
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Paper:
    """A paper: authors with year, and URL."""

    title: str
    url: str


PAPERS: Final = {
    "anti-kt": Paper("Cacciari, Salam, Soyez 2008", "https://arxiv.org/abs/0802.1189"),
    "c": Paper("Larkoski, Salam, Thaler 2013", "https://arxiv.org/abs/1305.0007"),
    "coleman": Paper("Coleman et al. 2018", "https://arxiv.org/abs/1709.08705"),
    "d": Paper("Larkoski, Moult, Neill 2014", "https://arxiv.org/abs/1409.6298"),
    "duarte": Paper("Duarte et al. 2018", "https://arxiv.org/abs/1804.06913"),
    "mmdt": Paper("Dasgupta, Fregoso, Marzani, Salam 2013", "https://arxiv.org/abs/1307.0007"),
    "mn": Paper("Moult, Necib, Thaler 2016", "https://arxiv.org/abs/1609.07483"),
    "pythia": Paper("Bierlich et al. 2022", "https://arxiv.org/abs/2203.11601"),
}

SYMBOLS: Final = (
    r"$z_i$: share of particle $i$ in the groomed jet's $p_\mathrm T$; $\theta_{ij}$: angle between two particles, "
    r"$\sqrt{\Delta y^2+\Delta\phi^2}$; sums run over pairs $i<j$ and triples $i<j<k$: "
    r"$e_2^{(\beta)}=\sum z_i z_j\,\theta_{ij}^{\beta}$, "
    r"$e_3^{(\beta)}=\sum z_i z_j z_k\,(\theta_{ij}\theta_{ik}\theta_{jk})^{\beta}$; ${}_1e_3$ uses only the "
    r"smallest of the three angles, ${}_2e_3$ the product of the two smallest."
)

_TWO_PRONGS = "It is small for a jet with two prongs and larger for a jet with one"
NOTES: Final = {
    "zlogz": FeatureNote(
        "How evenly the energy is shared: near 0 if one particle has most of it, far below 0 if many share it.",
        r"\sum_i \frac{E_i}{E_\mathrm{jet}}\,\ln\frac{E_i}{E_\mathrm{jet}}",
        "duarte",
        remark="Computed before grooming, from all constituents. Never positive, so it has no logarithmic axis.",
    ),
    "c1_b0_mmdt": FeatureNote(
        "How many groomed particles share the momentum, independent of angles: near ½ if it is spread over very many.",
        r"C_1^{(0)} = e_2^{(0)} = \tfrac12\bigl(1-\sum_i z_i^2\bigr)",
        "c",
    ),
    "c1_b1_mmdt": FeatureNote("How wide the groomed jet is.", r"C_1^{(1)} = e_2^{(1)}", "c"),
    "c1_b2_mmdt": FeatureNote(
        "How wide the groomed jet is, with more weight on large angles: nearly (mass / momentum) squared.",
        r"C_1^{(2)} = e_2^{(2)}",
        "c",
    ),
    "c2_b1_mmdt": FeatureNote(
        f"Whether the jet has more than one or two prongs. {_TWO_PRONGS}.",
        r"C_2^{(1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^2",
        "c",
    ),
    "c2_b2_mmdt": FeatureNote(
        "Like c2_b1_mmdt, with more weight on large angles.", r"C_2^{(2)} = e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^2", "c"
    ),
    "d2_b1_mmdt": FeatureNote(
        f"Whether the jet has two prongs or one. {_TWO_PRONGS}, whatever its mass and momentum.",
        r"D_2^{(1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^3",
        "d",
    ),
    "d2_b2_mmdt": FeatureNote(
        "Like d2_b1_mmdt, with more weight on large angles.", r"D_2^{(2)} = e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^3", "d"
    ),
    "d2_a1_b1_mmdt": FeatureNote(
        "Whether the jet has two prongs or one, with angular exponent 1 for triples and for pairs.",
        r"D_2^{(1,1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^3",
        "d",
        remark="Equal to d2_b1_mmdt, so only fifteen of the sixteen features differ.",
    ),
    "d2_a1_b2_mmdt": FeatureNote(
        "Whether the jet has two prongs or one, with angular exponent 1 for triples and 2 for pairs.",
        r"D_2^{(1,2)} = e_3^{(1)}\,/\,\bigl(e_2^{(2)}\bigr)^{3/2}",
        "d",
    ),
    "m2_b1_mmdt": FeatureNote(
        "Whether the jet has two prongs or one, from only the smallest angle of each triple.",
        r"M_2^{(1)} = {}_1e_3^{(1)}\,/\,e_2^{(1)}",
        "mn",
    ),
    "m2_b2_mmdt": FeatureNote(
        "Like m2_b1_mmdt, with more weight on large angles.", r"M_2^{(2)} = {}_1e_3^{(2)}\,/\,e_2^{(2)}", "mn"
    ),
    "n2_b1_mmdt": FeatureNote(
        "Whether the jet has two prongs or one, from each triple's two smallest angles; it varies little with mass.",
        r"N_2^{(1)} = {}_2e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^2",
        "mn",
    ),
    "n2_b2_mmdt": FeatureNote(
        "Like n2_b1_mmdt, with more weight on large angles.",
        r"N_2^{(2)} = {}_2e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^2",
        "mn",
    ),
    "mass_mmdt": FeatureNote(
        "The mass of the groomed jet: it peaks at that of the W, Z or top; gluons and light quarks have no peak.",
        r"m = \sqrt{\bigl(\sum_i E_i\bigr)^2-\bigl|\sum_i \vec p_i\bigr|^2}",
        "mmdt",
        unit="GeV",
    ),
    "multiplicity": FeatureNote(
        "The number of particles that the detector measured in the jet; gluons and tops have the most.",
        r"n = \sum_i 1",
        "coleman",
        remark="An integer, computed before grooming, from all constituents.",
    ),
}
