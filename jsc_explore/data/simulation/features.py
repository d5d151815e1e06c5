"""The 16 features of a jet, from the four-momenta of its constituents before and after grooming.

Energy correlation functions follow Moult, Necib, Thaler, arXiv:1609.07483; which of them classify jets,
Coleman et al., arXiv:1709.08705.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jsc_explore.data.jets import FEATURES

Floats = NDArray[np.float64]

MIN_GROOMED = 3
"""With fewer groomed constituents there is no triple, and C2, D2, M2 and N2 would be zero."""

# Doubles per table of a batch, 256 KiB: 0.5 ms per jet with 45 +- 20 groomed constituents; 2**12 takes 1.1 ms.
_BATCH_ELEMENTS = 1 << 15


class Jet(NamedTuple):
    """A jet: `constituents` ``(n, 4)`` and `groomed` ``(m, 4)``, rows (px, py, pz, E) in GeV."""

    constituents: Floats
    groomed: Floats


class Correlations(NamedTuple):
    """Energy correlation functions of a batch of jets, each ``(jets, 2)``: exponents beta 1 and 2."""

    e2: Floats
    e3: Floats
    smallest: Floats  # 1e3: only the smallest angle of a triple
    two_smallest: Floats  # 2e3: the product of the two smallest


def jet_features(jets: Sequence[Jet]) -> Floats:
    """Compute the features of `jets`: ``(len(jets), 16) float64``, columns as in FEATURES.

    Every jet must have at least MIN_GROOMED groomed constituents. Memory is bounded by the largest jet.
    """
    out = np.empty((len(jets), len(FEATURES)))
    for rows, size in _batches([len(jet.groomed) for jet in jets]):
        groomed = np.zeros((len(rows), size, 4))
        for slot, row in enumerate(rows):
            groomed[slot, : len(jets[row].groomed)] = jets[row].groomed
        out[rows] = _groomed_features(groomed)
    for row, jet in enumerate(jets):
        share = jet.constituents[:, 3] / jet.constituents[:, 3].sum()
        out[row, 0] = np.sum(share * np.log(share))
        out[row, 15] = len(share)
    return out


def energy_correlations(z: Floats, theta: Floats) -> Correlations:
    """Sum over all pairs and triples of momentum shares `z` ``(jets, n)`` at angles `theta` ``(jets, n, n)``.

    `theta` is symmetric with a zero diagonal. Padding has z = 0 and adds nothing.
    """
    jets, n = z.shape
    zz = z[:, :, None] * z[:, None, :]
    pairs = zz * theta
    e2 = np.stack([_total(pairs), _total(pairs * theta)], axis=1) / 2
    sums = np.zeros((6, jets))
    for i in range(n - 2):
        # i is the lowest index of the triple. The block of later pairs has each pair twice, hence the factor 1/2.
        side = theta[:, i, i + 1 :]
        third = theta[:, i + 1 :, i + 1 :]
        weight = zz[:, i + 1 :, i + 1 :] * (z[:, i] / 2)[:, None, None]
        low = np.minimum(side[:, :, None], side[:, None, :])
        high = np.maximum(side[:, :, None], side[:, None, :])
        # Products, no quotients: an angle is zero where two particles share a cell centre.
        product = np.minimum(low, third)
        sums[0] += _dot(product, weighted := weight * product)
        sums[1] += _total(weighted)
        middle = np.maximum(low, np.minimum(high, third))
        product *= middle
        sums[2] += _dot(product, weighted := weight * product)
        sums[3] += _total(weighted)
        product *= np.maximum(high, third)
        sums[4] += _dot(product, weighted := weight * product)
        sums[5] += _total(weighted)
    smallest, two_smallest, e3 = (np.stack([sums[k + 1], sums[k]], axis=1) for k in (0, 2, 4))
    return Correlations(e2, e3, smallest, two_smallest)


def _groomed_features(momenta: Floats) -> Floats:
    """All 16 columns for padded groomed jets ``(jets, n, 4)``; columns 0 and 15 are left at zero."""
    pt, rapidity, phi = polar(momenta)
    z = pt / pt.sum(axis=1, keepdims=True)
    theta = _angles(rapidity, phi)
    e2, e3, smallest, two_smallest = energy_correlations(z, theta)
    out = np.zeros((len(momenta), len(FEATURES)))
    out[:, 1] = (1 - np.square(z).sum(axis=1)) / 2
    out[:, 2:4] = e2
    out[:, 4:6] = e3 / e2**2
    out[:, 6:8] = e3 / e2**3
    out[:, 8] = out[:, 6]
    out[:, 9] = e3[:, 0] / (e2[:, 1] * np.sqrt(e2[:, 1]))
    out[:, 10:12] = smallest / e2
    out[:, 12:14] = two_smallest / e2**2
    total = momenta.sum(axis=1)
    mass2 = total[:, 3] ** 2 - np.square(total[:, :3]).sum(axis=1)
    out[:, 14] = np.sqrt(np.maximum(mass2, 0))
    return out


def polar(momenta: Floats) -> tuple[Floats, Floats, Floats]:
    """Compute transverse momentum, rapidity and azimuth of ``(…, 4)`` rows; all three are 0 for padding."""
    px, py, pz, energy = np.moveaxis(momenta, -1, 0)
    pt2 = px * px + py * py
    # (E + |pz|) / mT keeps its digits at high rapidity, where E - |pz| has none left.
    mass2 = np.maximum(energy * energy - pz * pz - pt2, 0)
    transverse = np.sqrt(pt2 + mass2)
    padding = transverse == 0
    ratio = (energy + np.abs(pz)) / np.where(padding, 1, transverse)
    rapidity = np.sign(pz) * np.log(np.where(padding, 1, ratio))
    return np.sqrt(pt2), rapidity, np.arctan2(py, px)


def _angles(rapidity: Floats, phi: Floats) -> Floats:
    """Return pairwise distances in rapidity and azimuth."""
    dy = rapidity[:, :, None] - rapidity[:, None, :]
    dphi = np.abs(phi[:, :, None] - phi[:, None, :])
    np.minimum(dphi, 2 * np.pi - dphi, out=dphi)
    return np.asarray(np.sqrt(dy * dy + dphi * dphi), dtype=np.float64)


def _batches(sizes: Sequence[int]) -> Iterator[tuple[list[int], int]]:
    """Group jets of similar size; yield (rows, largest size) with a bounded rows * size**2."""
    rows: list[int] = []
    for row in sorted(range(len(sizes)), key=sizes.__getitem__):
        if rows and (len(rows) + 1) * sizes[row] ** 2 > _BATCH_ELEMENTS:
            yield rows, sizes[rows[-1]]
            rows = []
        rows.append(row)
    if rows:
        yield rows, sizes[rows[-1]]


def _total(values: Floats) -> Floats:
    return np.asarray(values.sum(axis=(1, 2)), dtype=np.float64)


def _dot(left: Floats, right: Floats) -> Floats:
    # einsum, not BLAS: its order of summation does not depend on the processor's kernels or thread count.
    return np.asarray(np.einsum("bjk,bjk->b", left, right), dtype=np.float64)
