"""Where a replica's parts lie on a GPU: in the shared memory of its thread block as far as they fit, else in global."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jsc_explore.training.backends.cpu.layer_table import LayerTable

# Parts of a replica's memory. In the last one threads meet to add up.
WEIGHTS, GRADIENT, FIRST, SECOND, RUNNING, SAVED, ACTIVATIONS, DELTAS, LABELS, SCRATCH = range(10)
PARTS = 10
# What a block gets on every GPU without asking for more; an H200 has room for four such on each multiprocessor.
SHARED_BYTES = 48 * 1024
# What is read and written most, per value, comes first. Moments are touched once a step.
_FIRST_COME = (
    SCRATCH, LABELS, SAVED, RUNNING, WEIGHTS, GRADIENT, DELTAS, ACTIVATIONS,
    FIRST, SECOND,
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where the parts of one replica lie.

    ``shared (PARTS,)`` says which lie in shared memory, ``places (PARTS, 2) int32`` where each begins and ends there or
    in global memory, in float32. ``fast`` and ``slow`` float32 are needed of each memory.
    """

    shared: tuple[bool, ...]
    places: NDArray[np.int32]
    fast: int
    slow: int
    stride: int


def layout(
    layer_table: LayerTable, batch: int, threads: int, *, trains: bool, shared_bytes: int = SHARED_BYTES
) -> Layout:
    """Lay out a replica for batches of this size and blocks of so many threads."""
    # An odd distance of rows: threads that each read a row of their own meet in no bank of the memory.
    stride = batch | 1
    sizes = dict.fromkeys(range(PARTS), 0)
    sizes |= {WEIGHTS: layer_table.weights, RUNNING: layer_table.running, SAVED: layer_table.saved}
    sizes |= {ACTIVATIONS: layer_table.rows * stride, LABELS: stride}
    sizes[SCRATCH] = 2 * max(threads, layer_table.widest)
    if trains:
        sizes |= dict.fromkeys((GRADIENT, FIRST, SECOND), layer_table.weights)
        sizes[DELTAS] = 2 * layer_table.widest * stride
    shared, places = [False] * PARTS, np.zeros((PARTS, 2), np.int32)
    ends = {True: 0, False: 0}
    for part in _FIRST_COME:
        fits = 4 * (ends[True] + sizes[part]) <= shared_bytes
        shared[part], places[part, 0] = fits, ends[fits]
        ends[fits] += sizes[part]
        places[part, 1] = ends[fits]
    return Layout(tuple(shared), places, ends[True], ends[False], stride)
