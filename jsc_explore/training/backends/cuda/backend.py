"""Replicas trained on a GPU by the kernel's twin: all of them in one launch, a chunk of steps at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import ChunkResult, DeviceSplit, Replicas, batch_order
from jsc_explore.training.backends.cpu import layer_table as parts
from jsc_explore.training.backends.cpu.layer_table import layer_table
from jsc_explore.training.backends.cuda.jit import shown
from jsc_explore.training.backends.cuda.kernel import evaluate_kernel, train_kernel
from jsc_explore.training.backends.cuda.memory_layout import SHARED_BYTES, Layout, layout
from jsc_explore.training.chunks import Chunk
from jsc_explore.training.metrics import Scores
from jsc_explore.training.optimizers import bias_corrections

_KINDS = {"adam": parts.ADAM, "adamw": parts.ADAMW, "sgd": parts.SGD}
# A block has a thread for each jet of a batch, within these bounds.
_LEAST_THREADS, _MOST_THREADS = 128, 256
# Factors of dropout drawn ahead for one launch, all seeds together: 256 MB.
_MOST_FACTORS = 64_000_000
# Evaluation goes through the rows in tiles; a replica's tiles are dealt to so many pieces at most, each added up by
# itself, and the pieces of all replicas to so many blocks. Pieces must not follow the number of replicas: sums would.
_TILE, _MOST_PIECES, _MOST_BLOCKS = 64, 64, 2048


class CudaReplicas(Replicas):
    """Replicas whose steps the GPU's kernel takes, where ``choice.why_not_kernel`` has no objection.

    ``threads``, a power of two, is the size of a thread block. Raises what Numba raises where it cannot compile.
    """

    name = "kernel-cuda"

    def __init__(
        self,
        runs: list[RunConfig],
        data: DeviceSplit,
        threads: int | None = None,
        shared_bytes: int = SHARED_BYTES,
    ) -> None:
        super().__init__(runs, data)
        self.threads = threads or min(max(_power_above(self.batch_size), _LEAST_THREADS), _MOST_THREADS)
        self._layers = layer_table(runs[0].network)
        self._for_steps = layout(self._layers, self.batch_size, self.threads, trains=True, shared_bytes=shared_bytes)
        self._for_metrics = layout(self._layers, _TILE, self.threads, trains=False, shared_bytes=shared_bytes)
        self._train, self._evaluate = train_kernel(self._for_steps.shared), evaluate_kernel(self._for_metrics.shared)
        maps = (self._layers.table, self._layers.weights_at, self._layers.running_at)
        self._maps = [self._whole_numbers(array) for array in maps]
        self._places = [self._whole_numbers(chosen.places) for chosen in (self._for_steps, self._for_metrics)]
        self._x, self._y = data.train_x.view(-1), data.train_y.to(torch.int8)
        self._labels: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._spare = self._room(len(runs), self._for_steps)

    def begin_epoch(self, epoch: int) -> None:
        super().begin_epoch(epoch)
        # Runs of one seed take the same factors of dropout: drawn once, by one generator for all of them.
        first = {run.seed: generator for run, generator in zip(self.runs, self.generators, strict=True)}
        self.generators = [first[run.seed] for run in self.runs]

    def draw_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        self._seeds, rows = list(seeds), len(self.data.train_y)
        self._orders = torch.stack([batch_order(seed, epoch, rows) for seed in seeds]).to(self.device)

    def advance(self, chunk: Chunk) -> ChunkResult:
        began, steps = time.perf_counter(), chunk.stop - chunk.start
        losses, hits = (torch.empty(self.size, steps, device=self.device) for _ in range(2))
        rates = self._rates(chunk)
        settings = torch.cat([self.optimizer.momentum, self.optimizer.weight_decay], 1).float().contiguous()
        order_of = self._whole_numbers([self._seeds.index(run.seed) for run in self.runs])
        for start, stop, factors in self._pieces(chunk):
            piece = slice(start - chunk.start, stop - chunk.start)
            # A launch's own results: slices along the steps would not be contiguous.
            own = torch.empty(2, self.size, stop - start, device=self.device)
            self._launch(start, stop, rates[:, :, piece].contiguous(), settings, order_of, factors, own)
            losses[:, piece], hits[:, piece] = own
        self.optimizer.t += steps
        # Copying waits for the device.
        taken = torch.stack([losses, hits]).double().transpose(1, 2).cpu().numpy()
        seconds = [time.perf_counter() - began] * self.size
        return ChunkResult(taken[0], taken[1], self.batch_sizes(chunk), seconds)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Scores:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        losses, counts = self._measure(flat, running, x, self._narrow(y), torch.empty(1, 0, 5, device=self.device))
        return Scores(losses / len(y), counts)

    def logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        out = torch.empty(len(flat), len(x), 5, device=self.device)
        self._measure(flat, running, x, torch.zeros(len(x), dtype=torch.int8, device=self.device), out)
        return out

    def _launch(
        self, start: int, stop: int, rates: Tensor, settings: Tensor, order_of: Tensor, factors: Tensor, own: Tensor
    ) -> None:
        chosen, optimizer = self._for_steps, self.optimizer
        sizes = (
            self._layers.widest, chosen.stride, self._layers.weights, len(self._y), start, stop, self.batch_size,
            _KINDS[self.runs[0].optimizer],
        )  # fmt: skip
        tensors = (
            *self._maps, self._places[0], self.flat, optimizer.m, optimizer.v, self.running, self._spare, self._x,
            self._y, self._orders, order_of, rates, settings, factors, own[0], own[1],
        )  # fmt: skip
        launch = self._train[self.size, self.threads, 0, 4 * chosen.fast]
        launch(*map(shown, tensors), sizes, self._span(self.batch_size))

    def _measure(self, flat: Tensor, running: Tensor, x: Tensor, y: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return sums of losses ``(K,) float64`` and counts ``(K, 5, 5) int64``; write outputs if there is room."""
        chosen, pieces = self._for_metrics, min(-(-len(x) // _TILE), _MOST_PIECES)
        jobs = len(flat) * pieces
        blocks = min(jobs, _MOST_BLOCKS)
        losses = torch.zeros(jobs, self.threads, dtype=torch.float64, device=self.device)
        counts = torch.zeros(jobs, 25, dtype=torch.int32, device=self.device)
        order = torch.arange(len(x), dtype=torch.int32, device=self.device)
        tensors = (
            *self._maps, self._places[1], flat.contiguous(), running.contiguous(), self._room(blocks, chosen),
            x.view(-1), y, order, losses, counts, out,
        )  # fmt: skip
        launch = self._evaluate[blocks, self.threads, 0, 4 * chosen.fast]
        launch(*map(shown, tensors), len(x), chosen.stride, _TILE, pieces, self._span(_TILE))
        return losses.view(len(flat), -1).sum(1), counts.view(len(flat), pieces, 5, 5).sum(1)

    def _rates(self, chunk: Chunk) -> Tensor:
        """Return rates, Adam's corrected rates and its other correction of each step, ``(K, 3, steps)``."""
        rates = self.rates[chunk.start : chunk.stop].T
        first, second = bias_corrections(self.optimizer.t.cpu().long().numpy() + np.arange(1, rates.shape[1] + 1))
        rates = rates.astype(np.float32)
        return torch.from_numpy(np.stack([rates, rates / first, second], 1).astype(np.float32)).to(self.device)

    def _pieces(self, chunk: Chunk) -> Iterator[tuple[int, int, Tensor]]:
        """Cut a chunk so that its factors of dropout, ``(seeds, values)``, fit in memory; draw them as needed."""
        if not self._layers.drops:
            yield chunk.start, chunk.stop, torch.empty(1, 0, device=self.device)
            return
        rows = {run.seed: row for row, run in enumerate(self.runs)}
        most = max(1, _MOST_FACTORS // (sum(self._layers.drops) * self.batch_size * len(self._seeds)))
        sizes = self.batch_sizes(chunk).astype(int)
        for start in range(chunk.start, chunk.stop, most):
            stop = min(start + most, chunk.stop)
            piece = sizes[start - chunk.start : stop - chunk.start]
            factors = torch.zeros(len(self._seeds), int(piece.sum()) * sum(self._layers.drops))
            for row, seed in enumerate(self._seeds):
                # A seed whose runs have all ended draws no more.
                if seed in rows:
                    masks = [mask.flatten() for size in piece for mask in self.draw_masks(rows[seed], int(size))]
                    torch.cat(masks, out=factors[row])
            yield start, stop, factors.to(self.device)

    def _span(self, jets: int) -> int:
        """Return how many threads of a block stand along the jets of a batch."""
        return min(_power_above(jets), self.threads)

    def _room(self, blocks: int, chosen: Layout) -> Tensor:
        """Return global memory for what does not fit in shared memory."""
        return torch.empty(blocks, max(chosen.slow, 1), device=self.device)

    def _whole_numbers(self, values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32)).to(self.device)

    def _narrow(self, y: Tensor) -> Tensor:
        """Return labels as the kernel reads them, an eighth of the memory; converted once."""
        # One part may be the beginning of another: the same memory, fewer jets.
        key = y.data_ptr(), len(y)
        if key not in self._labels:
            self._labels[key] = y, y.to(torch.int8)
        return self._labels[key][1]


def _power_above(count: int) -> int:
    """Return the power of two that is not below ``count``."""
    return 1 << max(count - 1, 0).bit_length()
