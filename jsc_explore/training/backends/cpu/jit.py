"""What the parts of the kernel share: how they are compiled, and the ReLU that may follow a layer."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from jsc_explore.training.backends.cpu.layer_table import COLUMNS
from jsc_explore.training.backends.cpu.simd import WIDTH, fill, item, select

ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_LOWEST = np.float32(-np.inf)

# error_model: a division by zero gives infinity, as everywhere in float32, and no branch. Only the kernel calls these.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner: Callable[..., Any] = njit(**_OPTIONS)
inline: Callable[..., Any] = njit(forceinline=True, **_OPTIONS)


@inline
def column(ops, layer, name):
    """Return an entry of the table of layers."""
    return item(ops, layer * COLUMNS + name)


@inline
def padded_width(count):
    """Round up to whole vectors."""
    return (count + WIDTH - 1) // WIDTH * WIDTH


@inline
def floor_of(relu):
    """Return what outputs may not fall below: zero with a ReLU, else nothing; cheaper than a branch in every loop."""
    return select(fill(np.float32(relu)) > fill(ZERO), fill(ZERO), fill(_LOWEST))


@inline
def clip(x, floor):
    """Return the larger one; NaN passes, for a network that diverged must not look alive."""
    return select(floor > x, floor, x)


@inline
def gated(y, floor, d):
    """Return the gradient as far as the ReLU that made the activation ``y`` let it pass."""
    return select(y > floor, d, fill(ZERO))
