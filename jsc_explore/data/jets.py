"""Jets: sixteen features, one of five classes, and the digest of a set of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

# Energy correlators of the groomed jet (mmdt) at angular exponents b0, b1, b2, after Moult, Necib, Thaler
# (arXiv:1609.07483); the choice and order are those of Duarte et al. (arXiv:1804.06913).
FEATURES: tuple[str, ...] = (
    "zlogz",
    "c1_b0_mmdt",
    "c1_b1_mmdt",
    "c1_b2_mmdt",
    "c2_b1_mmdt",
    "c2_b2_mmdt",
    "d2_b1_mmdt",
    "d2_b2_mmdt",
    "d2_a1_b1_mmdt",
    "d2_a1_b2_mmdt",
    "m2_b1_mmdt",
    "m2_b2_mmdt",
    "n2_b1_mmdt",
    "n2_b2_mmdt",
    "mass_mmdt",
    "multiplicity",
)

# Gluon, light quark, W, Z, top: the lab's order. OpenML's usual encoder is alphabetical (g, q, t, w, z), so a
# confusion matrix of another program may have its last three rows in another order.
CLASSES = ("g", "q", "w", "z", "t")


@dataclass(frozen=True, eq=False)
class Jets:
    """All jets of one source, in the source's order and in original units.

    Attributes
    ----------
    name: the source, a key of ``SOURCES``.
    features: ``(n, 16) float32``, columns as in ``FEATURES``; ``mass_mmdt`` in GeV, the others dimensionless.
    labels: ``(n,) uint8``, index into ``CLASSES``.
    digest: digest of the set, 64 hexadecimal digits; part of every run id.
    """

    name: str
    features: Features
    labels: Labels
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


def content_sha256(features: Features, labels: Labels) -> str:
    """Return the sha256 of the features, row by row, and then the labels; independent of the machine's byte order."""
    sha = hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").data)
    sha.update(np.ascontiguousarray(labels, dtype=np.uint8).data)
    return sha.hexdigest()
