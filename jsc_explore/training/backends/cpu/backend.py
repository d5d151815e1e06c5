"""The CPU backend: one call of the kernel trains one replica for a chunk of steps, one replica after another."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import Backend, ChunkResult, DeviceSplit, aligned_zeros, batch_order
from jsc_explore.training.backends.cpu.kernel import load_kernel
from jsc_explore.training.backends.cpu.layer_table import (
    END,
    EVALUATION_ROWS,
    MOMENT_1,
    MOMENT_2,
    OPTIMIZERS,
    RUNNING,
    WEIGHTS,
    build_layer_table,
    stride_of,
)
from jsc_explore.training.backends.cpu.simd import WIDTH
from jsc_explore.training.chunks import CHUNK_SECONDS, Chunk
from jsc_explore.training.metrics import Metrics
from jsc_explore.training.optimizers import bias_corrections

# Values of dropout masks drawn ahead for one call: 16 MB.
_MAX_MASK_VALUES = 4_000_000
# Multiply-adds per second of an old core; a new one is five times as fast.
_MIN_PRODUCTS_PER_S = 5e9

Floats = NDArray[np.float32]


class CpuBackend(Backend):
    """Train replicas with the kernel, on a CPU; ``select.why_not_kernel`` must be None for their runs."""

    name = "kernel"

    def __init__(self, runs: list[RunConfig], data: DeviceSplit) -> None:
        super().__init__(runs, data)
        self._kernel, self._layers = load_kernel(), build_layer_table(runs[0].network)
        self._offsets = self._layers.offsets(self.batch_size)
        self._arena = aligned_zeros(int(self._offsets[END]), np.float32)
        self._evaluation_offsets = self._layers.offsets(EVALUATION_ROWS)
        self._evaluation_arena = aligned_zeros(int(self._evaluation_offsets[END]), np.float32)
        self._labels: dict[tuple[int, int], tuple[Tensor, NDArray[np.int8]]] = {}
        self._orders: dict[int, NDArray[np.int32]] = {}

    def initial_chunk_steps(self) -> int:
        """Estimate the steps of a chunk from their multiply-adds: one pass forward, two backward, on an old core."""
        products = 3 * self.flat.shape[1] * self.batch_size * self.size
        return max(1, round(CHUNK_SECONDS * _MIN_PRODUCTS_PER_S / products))

    def draw_batch_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        rows = len(self.data.train_y)
        # The arrays of the last epoch are reused. Padded, because the kernel reads whole vectors of row numbers.
        self._orders = {
            seed: self._orders[seed] if seed in self._orders else np.zeros(rows + WIDTH, np.int32) for seed in seeds
        }
        for seed, order in self._orders.items():
            batch_order(seed, epoch, rows, out=torch.from_numpy(order)[:rows])

    def train_chunk(self, chunk: Chunk) -> ChunkResult:
        steps = chunk.stop - chunk.start
        losses, correct = np.empty((self.size, steps), np.float32), np.empty((self.size, steps), np.float32)
        seconds = []
        for row in range(self.size):
            start = time.perf_counter()
            self._train_replica(row, chunk, losses[row], correct[row])
            seconds.append(time.perf_counter() - start)
        self.optimizer.t += steps
        return ChunkResult(losses.T.astype(np.float64), correct.T.astype(np.float64), self.batch_sizes(chunk), seconds)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Metrics:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        confusion = np.zeros((len(flat), 5, 5), np.int64)
        labels, no_logits = self._int8_labels(y), np.empty((0, 5), np.float32)
        losses = [
            self._evaluate_replica(flat[row], running[row], x, labels, confusion[row], no_logits) / len(y)
            for row in range(len(flat))
        ]
        return Metrics(torch.tensor(losses, dtype=torch.float64), torch.from_numpy(confusion))

    def compute_logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        out, labels = np.empty((len(flat), len(x), 5), np.float32), np.zeros(len(x), np.int8)
        for row in range(len(flat)):
            self._evaluate_replica(flat[row], running[row], x, labels, np.zeros((5, 5), np.int64), out[row])
        return torch.from_numpy(out)

    def _train_replica(self, row: int, chunk: Chunk, losses: Floats, correct: Floats) -> None:
        run, optimizer = self.runs[row], self.optimizer
        state = {
            WEIGHTS: self.flat[row],
            MOMENT_1: optimizer.m[row],
            MOMENT_2: optimizer.v[row],
            RUNNING: self.running[row],
        }
        for section, tensor in state.items():
            self._arena[self._indices(self._offsets, section)] = tensor.numpy()
        rates = self.rates[chunk.start : chunk.stop, row].astype(np.float32)
        first, second = bias_corrections(int(optimizer.t[row]) + np.arange(1, len(rates) + 1))
        scales, corrections = (rates / first).astype(np.float32), second.astype(np.float32)
        for start, stop, masks in self._split_chunk(row, chunk):
            piece = slice(start - chunk.start, stop - chunk.start)
            self._kernel.train(
                self._layers.table, self._arena, self._offsets, stride_of(self.batch_size),
                self.data.train_x.numpy().reshape(-1), self._int8_labels(self.data.train_y), self._orders[run.seed],
                len(self.data.train_y), start, stop, self.batch_size,
                OPTIMIZERS[run.optimizer], rates[piece], scales[piece], corrections[piece],
                np.float32(run.momentum), np.float32(run.weight_decay), masks, losses[piece], correct[piece],
            )  # fmt: skip
        for section, tensor in state.items():
            tensor.numpy()[:] = self._arena[self._indices(self._offsets, section)]

    def _split_chunk(self, row: int, chunk: Chunk) -> Iterator[tuple[int, int, Floats]]:
        """Split a chunk so that its dropout masks fit in memory; yield start, stop and masks of each piece."""
        if not self._layers.dropout_widths:
            yield chunk.start, chunk.stop, np.empty(0, np.float32)
            return
        steps = max(1, _MAX_MASK_VALUES // (sum(self._layers.dropout_widths) * self.batch_size))
        sizes = self.batch_sizes(chunk).astype(int)
        for start in range(chunk.start, chunk.stop, steps):
            stop = min(start + steps, chunk.stop)
            piece = sizes[start - chunk.start : stop - chunk.start]
            masks = [mask.flatten() for size in piece for mask in self.draw_dropout_masks(row, int(size))]
            yield start, stop, torch.cat(masks).numpy()

    def _evaluate_replica(
        self, flat: Tensor, running: Tensor, x: Tensor, labels: NDArray[np.int8], confusion: NDArray[np.int64],
        logits: Floats,
    ) -> float:  # fmt: skip
        """Return the sum of losses; add to ``confusion (5, 5)``; write ``logits (n, 5)`` unless they have no rows."""
        arena, offsets = self._evaluation_arena, self._evaluation_offsets
        arena[self._indices(offsets, WEIGHTS)] = flat.numpy()
        arena[self._indices(offsets, RUNNING)] = running.numpy()
        return self._kernel.evaluate(
            self._layers.table, arena, offsets, x.numpy().reshape(-1), labels, _row_numbers(len(x)), len(x),
            EVALUATION_ROWS, stride_of(EVALUATION_ROWS), confusion, logits,
        )  # fmt: skip

    def _indices(self, offsets: NDArray[np.int64], section: int) -> NDArray[np.int64]:
        """Return the indices of a flat state tensor's values in the padded section of an arena."""
        indices = self._layers.running_at if section == RUNNING else self._layers.weights_at
        return indices + int(offsets[section])

    def _int8_labels(self, y: Tensor) -> NDArray[np.int8]:
        """Return the labels as int8, an eighth of the memory; converted once."""
        # The length is part of the key: DeviceSplit.head returns views that start at the same address.
        key = y.data_ptr(), len(y)
        if key not in self._labels:
            self._labels[key] = y, y.numpy().astype(np.int8)
        return self._labels[key][1]


@lru_cache(maxsize=4)
def _row_numbers(rows: int) -> NDArray[np.int32]:
    """Return the row numbers 0, 1, 2, …, padded with the last one to whole vectors."""
    return np.minimum(np.arange(rows + EVALUATION_ROWS, dtype=np.int32), rows - 1)
