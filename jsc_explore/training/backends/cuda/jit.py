"""Shared parts of the CUDA kernel: how its functions are compiled, thread indices, sums in a fixed order.

The ``size`` threads of a block have two numberings. Sums over jets use ``thread``, 0 to ``size - 1``. Elementwise work
uses a grid of ``groups`` rows of features (``group``) by ``span`` jets of the batch (``lane``); both are powers of two.
The tuple ``ids`` is ``thread, size, lane, span, group, groups``.

``sync`` waits for all threads of the block. Layer functions end with one, unless their docstring says otherwise.
"""

# Numba infers types from the signature of the kernel; there are no annotations.
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
# Outputs that a thread computes at once: each value that it loads serves four sums.
TILE = 4
# Maximum number of threads that share one sum; a single thread then adds up their partial sums in order.
_MAX_PARTS = 32

SIMULATED: bool = bool(config.ENABLE_CUDASIM)
# By default the compiler uses 168 registers per thread, and a multiprocessor holds one block of 256 threads; with 80,
# and a few dozen bytes per thread spilled, it holds three.
KERNEL_OPTIONS: dict[str, Any] = {} if SIMULATED else {"max_registers": 80}

if SIMULATED:
    # Numba's simulator runs a Python thread per GPU thread. It swaps the globals of a module while it calls a device
    # function, which is not thread-safe; plain functions give the same results.
    def device(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged."""
        return function

    def sync() -> None:
        """Wait for all threads of the block."""
        threading.current_thread().syncthreads()

else:
    # Five replicas are five blocks: few for a GPU, but intended.
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    device: Callable[..., Any] = cuda.jit(device=True)

    @device
    def sync():
        """Wait for all threads of the block."""
        cuda.syncthreads()


def device_array(tensor: Tensor) -> Any:
    """Return a contiguous tensor as a device array for a kernel launch, without a copy."""
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        return FakeCUDAArray(tensor.numpy())
    return cuda.as_cuda_array(tensor, sync=False)


@device
def item(a, i):
    """Return ``a[i]`` for ``i >= 0``; unsigned, because Numba would check for a negative index at each access."""
    return a[np.uint64(i)]


@device
def put(a, i, value):
    """Set ``a[i]`` for ``i >= 0``."""
    a[np.uint64(i)] = value


@device
def minimum(a, b):
    """Return the smaller of two integers."""
    return a if a < b else b


@device
def padded(count):
    """Round up to whole vectors of the CPU kernel, as the layer table does."""
    return (count + WIDTH - 1) // WIDTH * WIDTH


@device
def relu_if(x, relu):
    """Apply a ReLU if ``relu``; NaN passes, so that a diverged network is noticed."""
    return ZERO if relu and x < ZERO else x


@device
def threads_per_sum(sums, size):
    """Return how many of ``size`` threads share each of ``sums`` sums."""
    parts = 1
    while parts < _MAX_PARTS and 2 * parts * sums <= size:
        parts *= 2
    return parts


@device
def sum_parts(scratch, at, stride, parts):
    """Add the ``parts`` partial sums of one sum, at stride ``stride``."""
    total = ZERO
    for p in range(parts):
        total += item(scratch, at + p * stride)
    return total
