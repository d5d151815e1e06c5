"""The vmap backend: replicas of any nn.Module, on any device, trained by eager PyTorch or by compiled programs.

On a CPU the replicas of a stack are trained and evaluated one after the other, so that a run gives the same bits alone
and in any stack. On a GPU they take each step together, under ``torch.func.vmap``: the last bits of their results may
depend on the size of the stack.

Every run starts eagerly. Where ``select.compiled_from`` finds that it pays, a program of many steps is compiled in the
background and replaces the eager step from a fixed epoch on, which waits for the program if it must: the epoch depends
neither on the load of the machine nor on the other replicas. The short last batch of an epoch is always eager.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import Backend, ChunkResult, DeviceSplit, batch_order
from jsc_explore.training.backends.select import compiled_from
from jsc_explore.training.backends.vmap.aot import Build, CompiledProgram, CompileError
from jsc_explore.training.backends.vmap.program import ProgramSpec
from jsc_explore.training.backends.vmap.step import Batch, Settings, State, Step
from jsc_explore.training.chunks import Chunk
from jsc_explore.training.metrics import Metrics, confusion_counts

# Rows evaluated at once, of one replica. It matters for convolutions only, whose activations must stay in the cache
# and below the size from which the C library returns memory to the system (40,000 rows of jsc-conv, five replicas:
# 0.47 s in blocks of 4,096; 0.79 s in blocks of 16,384, 0.3 s of it page faults).
_EVAL_ROWS = 4_096
# On a GPU, over all replicas: each block costs a dozen launches; the activations of jsc-conv take about 0.3 GB. Not
# measured.
_EVAL_ROWS_ON_GPU = 65_536


class VmapBackend(Backend):
    """Train replicas with PyTorch; ``reason`` says in a few words why no faster backend is used."""

    name = "stack"

    def __init__(self, runs: list[RunConfig], data: DeviceSplit, reason: str = "") -> None:
        super().__init__(runs, data)
        self.reason, self.whole_steps = reason, len(data.train_y) // self.batch_size
        self.step = Step(runs[0], self.module, self.shapes, self.statistics, dropouts=list(self.dropouts))
        self.compiled_rows: list[int] = []
        self._build: Build | None = None
        self._program: CompiledProgram | None = None
        self._compile_error = ""

    def backend_name(self, row: int) -> str:
        compiled = row in self.compiled_rows
        reasons = "; ".join(filter(None, (self.reason, "" if compiled else self._compile_error)))
        return f"{self.name}-{'compiled' if compiled else 'eager'}" + (f" ({reasons})" if reasons else "")

    def prepare(self, epoch: int) -> bool:
        starts = [start for run in self.runs if (start := self._compiled_from(run)) is not None]
        if self._compile_error or self._program or not starts:
            return True
        try:
            self._build = self._build or Build.start(ProgramSpec.of(self.runs[0], self.device.type))
            if epoch < min(starts):
                return True
            if self._build.is_done():
                self._program = self._build.load()
        except CompileError as error:
            self._compile_error = str(error)
        return bool(self._compile_error or self._program)

    def begin_epoch(self, epoch: int) -> None:
        while not self.prepare(epoch):
            time.sleep(0.05)
        super().begin_epoch(epoch)
        starts = [self._compiled_from(run) for run in self.runs] if self._program else []
        self.compiled_rows = [row for row, start in enumerate(starts) if start is not None and epoch >= start]

    def draw_batch_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        self.orders = torch.stack([batch_order(seed, epoch, len(self.data.train_y)) for seed in seeds]).to(self.device)
        self.order_rows = torch.tensor([seeds.index(run.seed) for run in self.runs], device=self.device)
        self.device_rates = torch.from_numpy(self.rates).float().to(self.device).unsqueeze(2)

    def train_chunk(self, chunk: Chunk) -> ChunkResult:
        shape = chunk.stop - chunk.start, self.size
        losses, correct = torch.empty(shape, device=self.device), torch.empty(shape, device=self.device)
        seconds = [0.0] * self.size
        whole = max(chunk.start, min(chunk.stop, self.whole_steps))
        for rows in self._groups(self.size):
            start_time = time.perf_counter()
            middle = whole if rows[0] in self.compiled_rows else chunk.start
            parts = (self._train_compiled, chunk.start, middle), (self._train_eagerly, middle, chunk.stop)
            for train, start, stop in parts:
                if start < stop:
                    part = slice(start - chunk.start, stop - chunk.start)
                    losses[part, rows], correct[part, rows] = train(rows, start, stop)
            for row in rows:
                seconds[row] = (time.perf_counter() - start_time) / len(rows)
        return ChunkResult(
            losses.double().cpu().numpy(), correct.double().cpu().numpy(), self.batch_sizes(chunk), seconds
        )

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Metrics:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        loss = torch.zeros(len(flat), dtype=torch.float64, device=self.device)
        confusion = torch.zeros(len(flat), 5, 5, dtype=torch.int64, device=self.device)
        for rows in self._groups(len(flat)):
            block = _EVAL_ROWS if self.device.type == "cpu" else max(1024, _EVAL_ROWS_ON_GPU // len(rows))
            for start in range(0, len(y), block):
                part = y[start : start + block]
                logits = self.step.compute_logits(x[start : start + block], flat[rows], running[rows])
                losses = functional.cross_entropy(logits.flatten(0, 1), part.repeat(len(rows)), reduction="none")
                loss[rows] += losses.view(len(rows), -1).sum(1, dtype=torch.float64)
                confusion[rows] += confusion_counts(logits, part)
        return Metrics(loss / len(y), confusion)

    def compute_logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        parts = [self.step.compute_logits(x, flat[rows], running[rows]) for rows in self._groups(len(flat))]
        return torch.cat(parts)

    def select(self, keep: Sequence[int]) -> None:
        super().select(keep)
        self.compiled_rows = [new for new, old in enumerate(keep) if old in self.compiled_rows]
        if hasattr(self, "order_rows"):
            rows = torch.tensor(list(keep), dtype=torch.long, device=self.device)
            self.order_rows, self.device_rates = self.order_rows[rows], self.device_rates[:, rows]

    def state(self, rows: Sequence[int]) -> State:
        """Return the state of these rows that steps change; copies, unless they are all rows."""
        optimizer = self.optimizer
        parts = (self.flat, optimizer.m, optimizer.v, optimizer.t, self.scale, self.clean_steps, self.running)
        return State(*(self._take(tensor, rows) for tensor in parts))

    def settings(self, rows: Sequence[int]) -> Settings:
        """Return the inputs of these rows that steps do not change."""
        decay, momentum = self.optimizer.weight_decay, self.optimizer.momentum
        return Settings(self.has_gradient, self._take(decay, rows), self._take(momentum, rows))

    def _set_state(self, rows: Sequence[int], state: State) -> None:
        if len(rows) < self.size:
            for whole, part in zip(self.state(range(self.size)), state, strict=True):
                whole[rows] = part
            return
        optimizer = self.optimizer
        self.flat, optimizer.m, optimizer.v, optimizer.t, self.scale, self.clean_steps, self.running = state

    def _take(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        return tensor if len(rows) == self.size else tensor[list(rows)]

    def _groups(self, replicas: int) -> list[list[int]]:
        """Return the rows that are trained or evaluated together: on a CPU each alone, on a GPU all."""
        return [[row] for row in range(replicas)] if self.device.type == "cpu" else [list(range(replicas))]

    def _train_eagerly(self, rows: list[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        state, settings = self.state(rows), self.settings(rows)
        orders, rates = self._take(self.order_rows, rows), self.device_rates[start:stop, rows]
        losses, correct = [], []
        for step, rate in zip(range(start, stop), rates, strict=True):
            index = self.orders[:, step * self.batch_size : (step + 1) * self.batch_size][orders]
            x = self.data.train_x.index_select(0, index.flatten()).view(*index.shape, -1)
            y = self.data.train_y.index_select(0, index.flatten()).view(index.shape)
            drawn = [self.draw_dropout_masks(row, index.shape[1]) for row in rows] if self.dropouts else []
            masks = [torch.stack(layer).to(self.device) for layer in zip(*drawn, strict=True)]
            state, loss, hits = self.step(state, settings, Batch(x, y, rate, masks))
            losses.append(loss)
            correct.append(hits)
        self._set_state(rows, state)
        return torch.stack(losses), torch.stack(correct).float()

    def _train_compiled(self, rows: list[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        assert self._program is not None
        program, (row,) = self._program, rows
        state, settings = self.state(rows), self.settings(rows)
        order, features = self.orders[self.order_rows[row]], self.data.train_x.shape[1]
        losses, correct = [], []
        for first in range(start, stop, program.spec.steps):
            last = min(stop, first + program.spec.steps)
            index, count = order[first * self.batch_size : last * self.batch_size], last - first
            torch.index_select(self.data.train_x, 0, index, out=program.x[:count].view(-1, features))
            torch.index_select(self.data.train_y, 0, index, out=program.y[:count].view(-1))
            program.rate[:count] = self.device_rates[first:last, row : row + 1]
            for step in range(count) if self.dropouts else ():
                for mask, drawn in zip(program.masks, self.draw_dropout_masks(row, self.batch_size), strict=True):
                    mask[step, 0] = drawn
            state, loss, hits = program(count, state, settings)
            losses.append(loss)
            correct.append(hits)
        self._set_state(rows, state)
        return torch.cat(losses), torch.cat(correct)

    def _compiled_from(self, run: RunConfig) -> int | None:
        return compiled_from(run, self.whole_steps, self.device.type)
