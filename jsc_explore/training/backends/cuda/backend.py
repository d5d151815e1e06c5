"""The CUDA backend: one launch of the kernel trains all replicas for a chunk of steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import Backend, ChunkResult, DeviceSplit, batch_order
from jsc_explore.training.backends.cpu.layer_table import OPTIMIZERS, build_layer_table
from jsc_explore.training.backends.cuda.jit import device_array
from jsc_explore.training.backends.cuda.kernel import evaluate_kernel, train_kernel
from jsc_explore.training.backends.cuda.memory_layout import SHARED_BYTES, Layout, make_layout
from jsc_explore.training.chunks import Chunk
from jsc_explore.training.metrics import Metrics
from jsc_explore.training.optimizers import bias_corrections

# A block has a thread for each jet of a batch, within these limits.
_MIN_THREADS, _MAX_THREADS = 128, 256
# Values of dropout masks drawn ahead for one launch, all seeds together: 256 MB.
_MAX_MASK_VALUES = 64_000_000
# Evaluation splits the rows into tiles, the tiles into at most _MAX_PIECES pieces, each summed separately, and the
# pieces of all replicas into at most _MAX_BLOCKS blocks. The number of pieces must not depend on the number of
# replicas: the order of additions would.
_TILE, _MAX_PIECES, _MAX_BLOCKS = 64, 64, 2048


class CudaBackend(Backend):
    """Train replicas with the CUDA kernel; ``select.why_not_kernel`` must be None for their runs.

    ``threads``, a power of two, is the size of a thread block. Exceptions of Numba pass if it cannot compile.
    """

    name = "kernel-cuda"

    def __init__(
        self, runs: list[RunConfig], data: DeviceSplit, threads: int | None = None, shared_bytes: int = SHARED_BYTES
    ) -> None:
        super().__init__(runs, data)
        self.threads = threads or min(max(_next_power_of_two(self.batch_size), _MIN_THREADS), _MAX_THREADS)
        self._layers = build_layer_table(runs[0].network)
        self._train_layout, self._eval_layout = (
            make_layout(self._layers, batch, self.threads, trains=trains, shared_bytes=shared_bytes)
            for batch, trains in ((self.batch_size, True), (_TILE, False))
        )
        self._train, self._evaluate = train_kernel(self._train_layout.shared), evaluate_kernel(self._eval_layout.shared)
        tables = (self._layers.table, self._layers.weights_at, self._layers.running_at)
        self._tables = [self._int32(array) for array in tables]
        self._bounds = [self._int32(layout.bounds) for layout in (self._train_layout, self._eval_layout)]
        self._x, self._y = data.train_x.view(-1), data.train_y.to(torch.int8)
        self._labels: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._train_memory = self._allocate(len(runs), self._train_layout)

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        # Runs of the same seed use the same dropout masks: one generator draws them once for all.
        first = {run.seed: generator for run, generator in zip(self.runs, self.generators, strict=True)}
        self.generators = [first[run.seed] for run in self.runs]

    def draw_batch_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        self._seeds, rows = list(seeds), len(self.data.train_y)
        self._orders = torch.stack([batch_order(seed, epoch, rows) for seed in seeds]).to(self.device)

    def train_chunk(self, chunk: Chunk) -> ChunkResult:
        start_time, steps = time.perf_counter(), chunk.stop - chunk.start
        losses, correct = (torch.empty(self.size, steps, device=self.device) for _ in range(2))
        rates = self._rates(chunk)
        settings = torch.cat([self.optimizer.momentum, self.optimizer.weight_decay], 1).float().contiguous()
        order_of = self._int32([self._seeds.index(run.seed) for run in self.runs])
        for start, stop, masks in self._split_chunk(chunk):
            piece = slice(start - chunk.start, stop - chunk.start)
            # A buffer for each launch: slices along the steps would not be contiguous.
            results = torch.empty(2, self.size, stop - start, device=self.device)
            self._launch(start, stop, rates[:, :, piece].contiguous(), settings, order_of, masks, results)
            losses[:, piece], correct[:, piece] = results
        self.optimizer.t += steps
        # Copying to the CPU waits for the device.
        result = torch.stack([losses, correct]).double().transpose(1, 2).cpu().numpy()
        seconds = [(time.perf_counter() - start_time) / self.size] * self.size
        return ChunkResult(result[0], result[1], self.batch_sizes(chunk), seconds)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Metrics:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        no_logits = torch.empty(1, 0, 5, device=self.device)
        losses, counts = self._evaluate_all(flat, running, x, self._int8_labels(y), no_logits)
        return Metrics(losses / len(y), counts)

    def compute_logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        out = torch.empty(len(flat), len(x), 5, device=self.device)
        self._evaluate_all(flat, running, x, torch.zeros(len(x), dtype=torch.int8, device=self.device), out)
        return out

    def _launch(
        self, start: int, stop: int, rates: Tensor, settings: Tensor, order_of: Tensor, masks: Tensor, results: Tensor
    ) -> None:
        layout, optimizer = self._train_layout, self.optimizer
        sizes = (
            self._layers.max_width, layout.stride, self._layers.weights, len(self._y), start, stop, self.batch_size,
            OPTIMIZERS[self.runs[0].optimizer],
        )  # fmt: skip
        tensors = (
            *self._tables, self._bounds[0], self.flat, optimizer.m, optimizer.v, self.running, self._train_memory,
            self._x, self._y, self._orders, order_of, rates, settings, masks, results[0], results[1],
        )  # fmt: skip
        launch = self._train[self.size, self.threads, 0, 4 * layout.shared_size]
        launch(*map(device_array, tensors), sizes, self._span(self.batch_size))

    def _evaluate_all(self, flat: Tensor, running: Tensor, x: Tensor, y: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums of losses ``(K,) float64`` and counts ``(K, 5, 5) int64``; write logits if ``out`` has rows."""
        layout, pieces = self._eval_layout, min(-(-len(x) // _TILE), _MAX_PIECES)
        tasks = len(flat) * pieces
        blocks = min(tasks, _MAX_BLOCKS)
        losses = torch.zeros(tasks, self.threads, dtype=torch.float64, device=self.device)
        counts = torch.zeros(tasks, 25, dtype=torch.int32, device=self.device)
        order = torch.arange(len(x), dtype=torch.int32, device=self.device)
        tensors = (
            *self._tables, self._bounds[1], flat.contiguous(), running.contiguous(), self._allocate(blocks, layout),
            x.view(-1), y, order, losses, counts, out,
        )  # fmt: skip
        launch = self._evaluate[blocks, self.threads, 0, 4 * layout.shared_size]
        launch(*map(device_array, tensors), len(x), layout.stride, _TILE, pieces, self._span(_TILE))
        return losses.view(len(flat), -1).sum(1), counts.view(len(flat), pieces, 5, 5).sum(1)

    def _rates(self, chunk: Chunk) -> Tensor:
        """Return rate, rate / (1 - beta1**t) and 1 / sqrt(1 - beta2**t) of each step, ``(K, 3, steps)``."""
        rates = self.rates[chunk.start : chunk.stop].T
        first, second = bias_corrections(self.optimizer.t.cpu().long().numpy() + np.arange(1, rates.shape[1] + 1))
        rates = rates.astype(np.float32)
        return torch.from_numpy(np.stack([rates, rates / first, second], 1).astype(np.float32)).to(self.device)

    def _split_chunk(self, chunk: Chunk) -> Iterator[tuple[int, int, Tensor]]:
        """Split a chunk so that its dropout masks ``(seeds, values)`` fit in memory; yield start, stop and masks."""
        if not self._layers.dropout_widths:
            yield chunk.start, chunk.stop, torch.empty(1, 0, device=self.device)
            return
        rows = {run.seed: row for row, run in enumerate(self.runs)}
        steps = max(1, _MAX_MASK_VALUES // (sum(self._layers.dropout_widths) * self.batch_size * len(self._seeds)))
        sizes = self.batch_sizes(chunk).astype(int)
        for start in range(chunk.start, chunk.stop, steps):
            stop = min(start + steps, chunk.stop)
            piece = sizes[start - chunk.start : stop - chunk.start]
            values = torch.zeros(len(self._seeds), int(piece.sum()) * sum(self._layers.dropout_widths))
            for row, seed in enumerate(self._seeds):
                # A seed whose runs have all ended needs no masks.
                if seed in rows:
                    masks = [mask for size in piece for mask in self.draw_dropout_masks(rows[seed], int(size))]
                    torch.cat([mask.flatten() for mask in masks], out=values[row])
            yield start, stop, values.to(self.device)

    def _span(self, jets: int) -> int:
        """Return the number of threads of a block along the jets of a batch."""
        return min(_next_power_of_two(jets), self.threads)

    def _allocate(self, blocks: int, layout: Layout) -> Tensor:
        """Allocate global memory for the sections that do not fit in shared memory."""
        return torch.empty(blocks, max(layout.global_size, 1), device=self.device)

    def _int32(self, values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32)).to(self.device)

    def _int8_labels(self, y: Tensor) -> Tensor:
        """Return the labels as int8, an eighth of the memory; converted once."""
        # The length is part of the key: DeviceSplit.head returns views that start at the same address.
        key = y.data_ptr(), len(y)
        if key not in self._labels:
            self._labels[key] = y, y.to(torch.int8)
        return self._labels[key][1]


def _next_power_of_two(count: int) -> int:
    """Return the smallest power of two that is at least ``count``."""
    return 1 << max(count - 1, 0).bit_length()
