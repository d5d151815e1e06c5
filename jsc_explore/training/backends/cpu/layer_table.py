"""A network as the kernel reads it: a table of layers, and where each thing lies in the kernel's arena."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jsc_explore.network import Layer, Network
from jsc_explore.training.backends.cpu.simd import WIDTH

# Kinds of layers and columns of the table.
LINEAR, NORM, DROPOUT, RELU, LEAKY, TANH, SILU, GELU = range(8)
KIND, INPUTS, OUTPUTS, WEIGHTS_AT, RUNNING_AT, SAVED_AT, IN_AT, OUT_AT, HAS_RELU, NEEDS_INPUT, HAS_BIAS = range(11)
COLUMNS = 11
# Parts of the arena.
WEIGHTS, GRADIENT, FIRST, SECOND, RUNNING, SAVED, ACTIVATIONS, LABELS, SUMS, END = range(10)
ADAM, ADAMW, SGD = range(3)
CLASSES = 5

_ACTIVATIONS = {
    "relu": RELU,
    "leaky": LEAKY,
    "tanh": TANH,
    "silu": SILU,
    "gelu": GELU,
}
# Evaluation goes through the rows in pieces whose activations stay in the nearest cache.
EVALUATION_ROWS = 128


@dataclass(frozen=True)
class LayerTable:
    """A fully connected network for the kernel.

    ``table (layers, 11) int64`` has the columns named below. ``weights_at (P,)`` and ``running_at (R,)`` say where
    each of the flat parameters and batch-norm statistics lies in its padded part; ``drops`` are the widths of the
    dropout layers, in order.
    """

    table: NDArray[np.int64]
    weights_at: NDArray[np.int64]
    running_at: NDArray[np.int64]
    weights: int
    running: int
    saved: int
    rows: int
    widest: int
    drops: tuple[int, ...]

    def places(self, batch: int) -> NDArray[np.int64]:
        """Return where the parts of an arena begin, and where it ends, for batches of this size."""
        stride = stride_of(batch)
        sizes = [
            *[self.weights] * 4,
            self.running,
            self.saved,
            self.rows * stride,
            stride,
            2 * padded(self.widest) * WIDTH,
        ]
        return np.cumsum([0, *sizes], dtype=np.int64)


def stride_of(batch: int) -> int:
    """Return the distance of two rows of activations, in float32.

    A vector more than needed: rows a power of two apart fall on the same places of the cache and of the store buffer,
    where they wait for each other.
    """
    return padded(batch) + WIDTH


def padded(count: int) -> int:
    """Round up to whole vectors."""
    return -(-count // WIDTH) * WIDTH


@lru_cache(maxsize=64)
def layer_table(network: Network) -> LayerTable:
    """Lay out a network to which ``choice.why_not_kernel`` has no objection."""
    writer = _Writer()
    layers = list(network.layers)
    while layers:
        layer = layers.pop(0)
        relu = layer.kind in ("linear", "batchnorm") and bool(layers) and layers[0].name == "relu"
        if relu:
            layers.pop(0)
        writer.add(layer, relu=relu, before_norm=bool(layers) and not relu and layers[0].kind == "batchnorm")
    return writer.finish()


class _Writer:
    def __init__(self) -> None:
        self.table: list[list[int]] = []
        self.weights_at: list[int] = []
        self.running_at: list[int] = []
        self.weights = self.running = self.saved = 0
        self.here, self.rows, self.widest = 0, 16, 16
        self.drops: list[int] = []

    def add(self, layer: Layer, *, relu: bool, before_norm: bool) -> None:
        inputs, outputs = layer.shape_in[0], layer.shape_out[0]
        deep = self.weights > 0
        at, running, saved = self.weights, self.running, self.saved
        kind = {"linear": LINEAR, "batchnorm": NORM, "dropout": DROPOUT}.get(layer.kind)
        if kind is None:
            kind = _ACTIVATIONS[layer.name]
        if kind == LINEAR:
            size = inputs * outputs + outputs
            self.weights_at += range(at, at + size)
            self.weights += padded(size)
        elif kind == NORM:
            # Each statistic begins a vector of its own, so that the kernel works on a layer's features at once.
            step = padded(inputs)
            self.weights_at += [*range(at, at + inputs), *range(at + step, at + step + inputs)]
            self.weights += 2 * step
            self.running_at += [*range(running, running + inputs), *range(running + step, running + step + inputs)]
            self.running_at.append(running + 2 * step)
            self.running += 2 * step + WIDTH
            self.saved += 5 * step
        elif kind == DROPOUT:
            self.drops.append(inputs)
        row = [kind, inputs, outputs, at, running, saved, self.here, self.rows, relu, deep, not before_norm]
        self.table.append([int(value) for value in row])
        self.here, self.rows = self.rows, self.rows + outputs
        self.widest = max(self.widest, inputs, outputs)

    def finish(self) -> LayerTable:
        return LayerTable(
            np.array(self.table, dtype=np.int64),
            np.array(self.weights_at, dtype=np.int64),
            np.array(self.running_at, dtype=np.int64),
            self.weights,
            self.running,
            self.saved,
            self.rows,
            self.widest,
            tuple(self.drops),
        )
