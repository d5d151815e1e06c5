"""Replicas trained by the kernel, one after the other: a chunk of steps of each is one call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import ChunkResult, DeviceSplit, Replicas, batch_order
from jsc_explore.training.backends.cpu import layer_table as parts
from jsc_explore.training.backends.cpu.kernel import kernel
from jsc_explore.training.backends.cpu.layer_table import EVALUATION_ROWS, layer_table, stride_of
from jsc_explore.training.backends.cpu.memory import aligned
from jsc_explore.training.backends.cpu.simd import WIDTH
from jsc_explore.training.chunks import CHUNK_SECONDS, Chunk
from jsc_explore.training.metrics import Scores
from jsc_explore.training.optimizers import bias_corrections

_KINDS = {"adam": parts.ADAM, "adamw": parts.ADAMW, "sgd": parts.SGD}
# Factors of dropout drawn ahead for one call: 16 MB.
_MOST_FACTORS = 4_000_000
# Products of a weight and a value, forward and twice backward: an old core is that fast, a new one five times.
_SURE_PRODUCTS_PER_S = 5e9

Floats = NDArray[np.float32]


class KernelReplicas(Replicas):
    """Replicas whose steps the kernel takes, on a CPU, where ``choice.why_not_kernel`` has no objection."""

    name = "kernel"

    def __init__(self, runs: list[RunConfig], data: DeviceSplit) -> None:
        super().__init__(runs, data)
        self._kernel, self._layers = kernel(), layer_table(runs[0].network)
        self._places = self._layers.places(self.batch_size)
        self._arena = aligned(int(self._places[parts.END]), np.float32)
        self._evaluation_places = self._layers.places(EVALUATION_ROWS)
        self._evaluation_arena = aligned(int(self._evaluation_places[parts.END]), np.float32)
        self._labels: dict[tuple[int, int], tuple[Tensor, NDArray[np.int8]]] = {}
        self._orders: dict[int, NDArray[np.int32]] = {}

    def first_chunk(self) -> int:
        """Return how many steps surely take no longer than a chunk shall, by the products that they are made of."""
        products = 3 * self.flat.shape[1] * self.batch_size * self.size
        return max(1, round(CHUNK_SECONDS * _SURE_PRODUCTS_PER_S / products))

    def draw_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        rows = len(self.data.train_y)
        # Into the memory of the epoch before; the kernel reads whole vectors of row numbers, also at the end.
        self._orders = {
            seed: self._orders[seed] if seed in self._orders else np.zeros(rows + WIDTH, np.int32) for seed in seeds
        }
        for seed, order in self._orders.items():
            batch_order(seed, epoch, rows, out=torch.from_numpy(order)[:rows])

    def advance(self, chunk: Chunk) -> ChunkResult:
        steps = chunk.stop - chunk.start
        losses, hits = np.empty((self.size, steps), np.float32), np.empty((self.size, steps), np.float32)
        seconds = []
        for row in range(self.size):
            began = time.perf_counter()
            self._advance_one(row, chunk, losses[row], hits[row])
            seconds.append(time.perf_counter() - began)
        self.optimizer.t += steps
        return ChunkResult(losses.T.astype(np.float64), hits.T.astype(np.float64), self.batch_sizes(chunk), seconds)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Scores:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        confusion = np.zeros((len(flat), 5, 5), np.int64)
        labels, nothing = self._narrow(y), np.empty((0, 5), np.float32)
        losses = [
            self._measure(flat[row], running[row], x, labels, confusion[row], nothing) / len(y)
            for row in range(len(flat))
        ]
        return Scores(torch.tensor(losses, dtype=torch.float64), torch.from_numpy(confusion))

    def logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        out, labels = np.empty((len(flat), len(x), 5), np.float32), np.zeros(len(x), np.int8)
        for row in range(len(flat)):
            self._measure(flat[row], running[row], x, labels, np.zeros((5, 5), np.int64), out[row])
        return torch.from_numpy(out)

    def _advance_one(self, row: int, chunk: Chunk, losses: Floats, hits: Floats) -> None:
        run, optimizer = self.runs[row], self.optimizer
        state = {
            parts.WEIGHTS: self.flat[row],
            parts.FIRST: optimizer.m[row],
            parts.SECOND: optimizer.v[row],
            parts.RUNNING: self.running[row],
        }
        for part, tensor in state.items():
            self._arena[self._where(self._places, part)] = tensor.numpy()
        rates = self.rates[chunk.start : chunk.stop, row].astype(np.float32)
        first, second = bias_corrections(int(optimizer.t[row]) + np.arange(1, len(rates) + 1))
        scales, corrections = (rates / first).astype(np.float32), second.astype(np.float32)
        for start, stop, factors in self._pieces(row, chunk):
            piece = slice(start - chunk.start, stop - chunk.start)
            self._kernel.train(
                self._layers.table, self._arena, self._places, stride_of(self.batch_size),
                self.data.train_x.numpy().reshape(-1), self._narrow(self.data.train_y), self._orders[run.seed],
                len(self.data.train_y), start, stop, self.batch_size,
                _KINDS[run.optimizer], rates[piece], scales[piece], corrections[piece],
                np.float32(run.momentum), np.float32(run.weight_decay), factors, losses[piece], hits[piece],
            )  # fmt: skip
        for part, tensor in state.items():
            tensor.numpy()[:] = self._arena[self._where(self._places, part)]

    def _pieces(self, row: int, chunk: Chunk) -> Iterator[tuple[int, int, Floats]]:
        """Cut a chunk so that its factors of dropout fit in memory; draw them as they are needed."""
        if not self._layers.drops:
            yield chunk.start, chunk.stop, np.empty(0, np.float32)
            return
        most = max(1, _MOST_FACTORS // (sum(self._layers.drops) * self.batch_size))
        sizes = self.batch_sizes(chunk).astype(int)
        for start in range(chunk.start, chunk.stop, most):
            stop = min(start + most, chunk.stop)
            piece = sizes[start - chunk.start : stop - chunk.start]
            masks = [mask.flatten() for size in piece for mask in self.draw_masks(row, int(size))]
            yield start, stop, torch.cat(masks).numpy()

    def _measure(
        self,
        flat: Tensor,
        running: Tensor,
        x: Tensor,
        labels: NDArray[np.int8],
        confusion: NDArray[np.int64],
        logits: Floats,
    ) -> float:
        arena, places = self._evaluation_arena, self._evaluation_places
        arena[self._where(places, parts.WEIGHTS)] = flat.numpy()
        arena[self._where(places, parts.RUNNING)] = running.numpy()
        return self._kernel.evaluate(
            self._layers.table,
            arena,
            places,
            x.numpy().reshape(-1),
            labels,
            _in_order(len(x)),
            len(x),
            EVALUATION_ROWS,
            stride_of(EVALUATION_ROWS),
            confusion,
            logits,
        )

    def _where(self, places: NDArray[np.int64], part: int) -> NDArray[np.int64]:
        return places[part] + (self._layers.running_at if part == parts.RUNNING else self._layers.weights_at)  # type: ignore[no-any-return]

    def _narrow(self, y: Tensor) -> NDArray[np.int8]:
        """Return labels as the kernel reads them, an eighth of the memory; converted once."""
        # One part may be the beginning of another: the same memory, fewer jets.
        key = y.data_ptr(), len(y)
        if key not in self._labels:
            self._labels[key] = y, y.numpy().astype(np.int8)
        return self._labels[key][1]


@lru_cache(maxsize=4)
def _in_order(rows: int) -> NDArray[np.int32]:
    """Return row numbers one after the other, for whole vectors."""
    return np.minimum(np.arange(rows + EVALUATION_ROWS, dtype=np.int32), rows - 1)
