"""What the parts of the GPU kernel share: how they are compiled, who works on what, sums in a fixed order.

A thread block is laid out twice. For sums over jets its ``size`` threads are numbered by ``thread``. For work on single
values, ``span`` threads (``lane`` of them) stand along the jets of a batch, in ``groups`` rows (``group``) of features.
Both are powers of two. ``who`` is the tuple of these: ``thread, size, lane, span, group, groups``.

``sync`` waits for all threads of the block; every function of the layers ends with what it wrote being seen by all.
"""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, cuda
from torch import Tensor

from jsc_explore.training.backends.cpu.simd import WIDTH

ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
# A thread works on so many outputs at once: what it loads of a jet then serves four sums.
TILE = 4
# At most so many threads share one sum; the last of them adds up what they found, one after the other.
_MOST_PARTS = 32

SIMULATED: bool = bool(config.ENABLE_CUDASIM)
# Left to itself the compiler takes 168 registers a thread, and a multiprocessor holds one block of 256 threads; with
# 80, and a few dozen bytes a thread kept elsewhere, it holds three.
KERNEL_OPTIONS: dict[str, Any] = {} if SIMULATED else {"max_registers": 80}

if SIMULATED:
    # Numba's simulator runs a thread of Python for each of the GPU's. Calls of device functions, which it makes by
    # swapping the globals of their module, would take them from each other; the functions as they are do the same.
    def device(function: Callable[..., Any]) -> Callable[..., Any]:
        """Leave a function as it is."""
        return function

    def sync() -> None:
        """Wait for all threads of the block."""
        threading.current_thread().syncthreads()

else:
    # Five replicas are five blocks; that a GPU could do more at once is known.
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    device: Callable[..., Any] = cuda.jit(device=True)

    @device
    def sync():
        """Wait for all threads of the block."""
        cuda.syncthreads()


def shown(tensor: Tensor) -> Any:
    """Return the memory of a contiguous tensor as the kernel's launch takes it, without a copy."""
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(tensor.numpy())
    return cuda.as_cuda_array(tensor, sync=False)


@device
def item(a, i):
    """Return ``a[i]`` for an index that is not negative: Numba would look after negative ones, at each access."""
    return a[np.uint64(i)]


@device
def put(a, i, value):
    """Set ``a[i]`` for an index that is not negative."""
    a[np.uint64(i)] = value


@device
def lesser(a, b):
    """Return the smaller of two whole numbers."""
    return a if a < b else b


@device
def padded(count):
    """Round up to whole vectors of the CPU's kernel, whose table of layers this is."""
    return (count + WIDTH - 1) // WIDTH * WIDTH


@device
def clip(x, relu):
    """Return the larger of ``x`` and zero if a ReLU follows; NaN passes, for a diverged network must not look alive."""
    return ZERO if relu and x < ZERO else x


@device
def parts_of(sums, size):
    """Return how many of ``size`` threads share each of so many sums."""
    parts = 1
    while parts < _MOST_PARTS and 2 * parts * sums <= size:
        parts *= 2
    return parts


@device
def folded(scratch, at, apart, parts):
    """Add up the parts of one sum, ``apart`` one from the next."""
    total = ZERO
    for p in range(parts):
        total += item(scratch, at + p * apart)
    return total
