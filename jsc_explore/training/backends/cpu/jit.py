"""Shared parts of the kernel: how its functions are compiled, access to the layer table, the fused ReLU."""

# Numba infers types from the signature of the kernel; there are no annotations.
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from jsc_explore.training.backends.cpu.layer_table import COLUMNS
from jsc_explore.training.backends.cpu.simd import WIDTH, item, select, splat

ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
_LOWEST = np.float32(-np.inf)

# error_model: division by zero gives infinity, as in IEEE float32, without a branch. Only the kernel calls these
# functions, so they need no wrappers.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner: Callable[..., Any] = njit(**_OPTIONS)
inline: Callable[..., Any] = njit(forceinline=True, **_OPTIONS)


@inline
def column(ops, layer, name):
    """Return an entry of the layer table."""
    return item(ops, layer * COLUMNS + name)


@inline
def padded_size(count):
    """Round up to whole vectors."""
    return (count + WIDTH - 1) // WIDTH * WIDTH


@inline
def relu_floor(relu):
    """Return the lower limit of a layer's outputs: 0 with a ReLU, else -inf; cheaper than a branch in every loop."""
    return select(splat(np.float32(relu)) > splat(ZERO), splat(ZERO), splat(_LOWEST))


@inline
def maximum(x, floor):
    """Return the larger one; NaN passes, so that a diverged network is noticed."""
    return select(floor > x, floor, x)


@inline
def relu_gradient(y, floor, d):
    """Return the gradient ``d`` where the activation ``y`` is above the floor of its ReLU, else 0."""
    return select(y > floor, d, splat(ZERO))
