"""The layer table, the form of a network that the kernel reads, and the layout of the kernel's arena."""

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
# Sections of the arena, in order.
WEIGHTS, GRADIENT, MOMENT_1, MOMENT_2, RUNNING, SAVED, ACTIVATIONS, LABELS, SUMS, END = range(10)
ADAM, ADAMW, SGD = range(3)
OPTIMIZERS = {"adam": ADAM, "adamw": ADAMW, "sgd": SGD}
CLASSES = 5

_ACTIVATIONS = {"relu": RELU, "leaky": LEAKY, "tanh": TANH, "silu": SILU, "gelu": GELU}
# Batch size of evaluation: small enough that the activations stay in the L1 or L2 cache.
EVALUATION_ROWS = 128


@dataclass(frozen=True)
class LayerTable:
    """A fully connected network for the kernel.

    ``table (layers, 11) int64`` has the columns named above. ``weights_at (P,)`` and ``running_at (R,)`` are the
    indices of the flat parameters and batch-norm statistics in their padded sections. ``weights``, ``running`` and
    ``saved`` are the sizes of these sections, ``activation_rows`` is the number of features of all layers together,
    ``max_width`` that of the widest layer; ``dropout_widths`` are those of the dropout layers, in order.
    """

    table: NDArray[np.int64]
    weights_at: NDArray[np.int64]
    running_at: NDArray[np.int64]
    weights: int
    running: int
    saved: int
    activation_rows: int
    max_width: int
    dropout_widths: tuple[int, ...]

    def offsets(self, batch: int) -> NDArray[np.int64]:
        """Return where the sections of an arena start, and its size, for batches of this size."""
        stride = stride_of(batch)
        sums = 2 * padded(self.max_width) * WIDTH
        sizes = [*[self.weights] * 4, self.running, self.saved, self.activation_rows * stride, stride, sums]
        return np.cumsum([0, *sizes], dtype=np.int64)


def stride_of(batch: int) -> int:
    """Return the stride of the rows of activations, in float32.

    It is a vector longer than needed: rows a power of two apart would map to the same sets of the cache and entries of
    the store buffer, and stall.
    """
    return padded(batch) + WIDTH


def padded(count: int) -> int:
    """Round up to whole vectors."""
    return -(-count // WIDTH) * WIDTH


@lru_cache(maxsize=64)
def build_layer_table(network: Network) -> LayerTable:
    """Return the layer table of a network for which ``select.why_not_kernel`` is None."""
    builder = _Builder()
    layers = list(network.layers)
    while layers:
        layer = layers.pop(0)
        relu = layer.kind in ("linear", "batchnorm") and bool(layers) and layers[0].name == "relu"
        if relu:
            layers.pop(0)
        builder.add(layer, relu=relu, before_norm=bool(layers) and not relu and layers[0].kind == "batchnorm")
    return builder.build()


class _Builder:
    def __init__(self) -> None:
        self.table: list[list[int]] = []
        self.weights_at: list[int] = []
        self.running_at: list[int] = []
        self.weights = self.running = self.saved = 0
        self.input_row, self.rows, self.max_width = 0, 16, 16
        self.dropout_widths: list[int] = []

    def add(self, layer: Layer, *, relu: bool, before_norm: bool) -> None:
        inputs, outputs = layer.shape_in[0], layer.shape_out[0]
        needs_input = self.weights > 0
        at, running, saved = self.weights, self.running, self.saved
        kind = {"linear": LINEAR, "batchnorm": NORM, "dropout": DROPOUT}.get(layer.kind)
        if kind is None:
            kind = _ACTIVATIONS[layer.name]
        if kind == LINEAR:
            size = inputs * outputs + outputs
            self.weights_at += range(at, at + size)
            self.weights += padded(size)
        elif kind == NORM:
            # Each statistic starts at a whole vector, so that the kernel can process several features at once.
            step = padded(inputs)
            self.weights_at += [*range(at, at + inputs), *range(at + step, at + step + inputs)]
            self.weights += 2 * step
            self.running_at += [*range(running, running + inputs), *range(running + step, running + step + inputs)]
            self.running_at.append(running + 2 * step)
            self.running += 2 * step + WIDTH
            self.saved += 5 * step
        elif kind == DROPOUT:
            self.dropout_widths.append(inputs)
        row = [kind, inputs, outputs, at, running, saved, self.input_row, self.rows, relu, needs_input, not before_norm]
        self.table.append([int(value) for value in row])
        self.input_row, self.rows = self.rows, self.rows + outputs
        self.max_width = max(self.max_width, inputs, outputs)

    def build(self) -> LayerTable:
        return LayerTable(
            np.array(self.table, dtype=np.int64),
            np.array(self.weights_at, dtype=np.int64),
            np.array(self.running_at, dtype=np.int64),
            self.weights,
            self.running,
            self.saved,
            self.rows,
            self.max_width,
            tuple(self.dropout_widths),
        )
