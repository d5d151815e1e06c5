"""What the classes and the sixteen features are, in plain words, with formula and paper: for people, not for code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLASS_NAMES: Final = {"g": "gluon", "q": "light quark", "w": "W", "z": "Z", "t": "top"}

CLASS_DESCRIPTIONS: Final = {
    "g": "A gluon radiates more than a quark: a broad spray of many soft particles, no mass of its own.",
    "q": "A light quark leaves a narrow spray around one hard core, no mass of its own.",
    "w": "A W boson (80 GeV) decays to two quarks: two cores, whose mass together is that of the W.",
    "z": "A Z boson (91 GeV) decays like the W; little but its larger mass tells the two apart.",
    "t": "A top quark (173 GeV) decays to a W and a b quark: three cores, where all of them fall into the cone.",
}


@dataclass(frozen=True)
class Note:
    """One feature for a reader: a line of plain words, its formula in LaTeX, the paper that introduced it."""

    words: str
    formula: str
    paper: str
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Paper:
    """A source: who and when, and where it can be read."""

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
    r"$e_3^{(\beta)}=\sum z_i z_j z_k\,(\theta_{ij}\theta_{ik}\theta_{jk})^{\beta}$; ${}_1e_3$ takes of the three "
    r"angles the smallest alone, ${}_2e_3$ the product of the two smallest."
)

_TWO = "A jet with two cores has a small value, one without cores a large one"
NOTES: Final = {
    "zlogz": Note(
        "How evenly the energy is shared: near 0 one particle has it all, far below 0 many have a little.",
        r"\sum_i \frac{E_i}{E_\mathrm{jet}}\,\ln\frac{E_i}{E_\mathrm{jet}}",
        "duarte",
        remark="Before grooming: all constituents count. Always negative, hence no logarithmic axis.",
    ),
    "c1_b0_mmdt": Note(
        "How many groomed particles share the momentum, whatever their angles: ½ where it is spread over very many.",
        r"C_1^{(0)} = e_2^{(0)} = \tfrac12\bigl(1-\sum_i z_i^2\bigr)",
        "c",
    ),
    "c1_b1_mmdt": Note("How wide the groomed jet is.", r"C_1^{(1)} = e_2^{(1)}", "c"),
    "c1_b2_mmdt": Note(
        "How wide the groomed jet is, wide angles counting more: nearly its mass squared over its momentum squared.",
        r"C_1^{(2)} = e_2^{(2)}",
        "c",
    ),
    "c2_b1_mmdt": Note(
        f"Is there a third core beside two? {_TWO}.", r"C_2^{(1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^2", "c"
    ),
    "c2_b2_mmdt": Note(
        "The same question, wide angles counting more.", r"C_2^{(2)} = e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^2", "c"
    ),
    "d2_b1_mmdt": Note(
        f"Two cores or one? {_TWO}, at any mass and momentum.",
        r"D_2^{(1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^3",
        "d",
    ),
    "d2_b2_mmdt": Note(
        "Two cores or one, wide angles counting more.", r"D_2^{(2)} = e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^3", "d"
    ),
    "d2_a1_b1_mmdt": Note(
        "Two cores or one, with angular exponents 1 and 1.",
        r"D_2^{(1,1)} = e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^3",
        "d",
        remark="The same number as d2_b1_mmdt: of the sixteen features fifteen differ.",
    ),
    "d2_a1_b2_mmdt": Note(
        "Two cores or one, angles weighed differently for triples (exponent 1) and pairs (exponent 2).",
        r"D_2^{(1,2)} = e_3^{(1)}\,/\,\bigl(e_2^{(2)}\bigr)^{3/2}",
        "d",
    ),
    "m2_b1_mmdt": Note(
        "Two cores or one, from the smallest angle of each triple alone.",
        r"M_2^{(1)} = {}_1e_3^{(1)}\,/\,e_2^{(1)}",
        "mn",
    ),
    "m2_b2_mmdt": Note("The same, wide angles counting more.", r"M_2^{(2)} = {}_1e_3^{(2)}\,/\,e_2^{(2)}", "mn"),
    "n2_b1_mmdt": Note(
        "Two cores or one, from the two smallest angles of each triple; made to stay put when the mass changes.",
        r"N_2^{(1)} = {}_2e_3^{(1)}\,/\,\bigl(e_2^{(1)}\bigr)^2",
        "mn",
    ),
    "n2_b2_mmdt": Note(
        "The same, wide angles counting more.", r"N_2^{(2)} = {}_2e_3^{(2)}\,/\,\bigl(e_2^{(2)}\bigr)^2", "mn"
    ),
    "mass_mmdt": Note(
        "The mass of what grooming kept: W, Z and top show theirs, gluons and light quarks have none of their own.",
        r"m = \sqrt{\bigl(\sum_i E_i\bigr)^2-\bigl|\sum_i \vec p_i\bigr|^2}",
        "mmdt",
        unit="GeV",
    ),
    "multiplicity": Note(
        "How many particles the detector saw in the jet; gluons and tops make the most.",
        r"n = \sum_i 1",
        "coleman",
        remark="A whole number, and before grooming: all constituents count.",
    ),
}
