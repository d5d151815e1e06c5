"""The memory layout of a replica on a GPU: each section is in shared memory of its block if it fits, else in global."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jsc_explore.training.backends.cpu.layer_table import LayerTable

# Sections of a replica's memory. SCRATCH holds partial sums of the threads.
WEIGHTS, GRADIENT, MOMENT_1, MOMENT_2, RUNNING, SAVED, ACTIVATIONS, DELTAS, LABELS, SCRATCH = range(10)
SECTIONS = 10
# Shared memory of a block on every GPU without opting in to more; a multiprocessor of an H200 has room for four.
SHARED_BYTES = 48 * 1024
# Sections by accesses per value, highest first: these get shared memory. Moments are accessed once per step.
_PRIORITY = (SCRATCH, LABELS, SAVED, RUNNING, WEIGHTS, GRADIENT, DELTAS, ACTIVATIONS, MOMENT_1, MOMENT_2)


@dataclass(frozen=True)
class Layout:
    """The layout of one replica.

    ``shared (SECTIONS,)`` tells which sections are in shared memory, ``bounds (SECTIONS, 2) int32`` their start and end
    there or in global memory. ``shared_size`` and ``global_size`` are needed of each memory. All count float32.
    """

    shared: tuple[bool, ...]
    bounds: NDArray[np.int32]
    shared_size: int
    global_size: int
    stride: int


def make_layout(
    layer_table: LayerTable, batch: int, threads: int, *, trains: bool, shared_bytes: int = SHARED_BYTES
) -> Layout:
    """Return the layout of a replica for batches of this size and blocks of ``threads`` threads."""
    # An odd stride of rows: threads that read different rows access different banks of shared memory.
    stride = batch | 1
    sizes = dict.fromkeys(range(SECTIONS), 0)
    sizes |= {WEIGHTS: layer_table.weights, RUNNING: layer_table.running, SAVED: layer_table.saved}
    sizes |= {ACTIVATIONS: layer_table.activation_rows * stride, LABELS: stride}
    sizes[SCRATCH] = 2 * max(threads, layer_table.max_width)
    if trains:
        sizes |= dict.fromkeys((GRADIENT, MOMENT_1, MOMENT_2), layer_table.weights)
        sizes[DELTAS] = 2 * layer_table.max_width * stride
    shared, bounds = [False] * SECTIONS, np.zeros((SECTIONS, 2), np.int32)
    ends = {True: 0, False: 0}
    for section in _PRIORITY:
        fits = 4 * (ends[True] + sizes[section]) <= shared_bytes
        shared[section], bounds[section, 0] = fits, ends[fits]
        ends[fits] += sizes[section]
        bounds[section, 1] = ends[fits]
    return Layout(tuple(shared), bounds, ends[True], ends[False], stride)
