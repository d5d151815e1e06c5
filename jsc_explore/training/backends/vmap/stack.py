"""The stack: replicas of any nn.Module, on any device, stepped together with torch.func or one by one by a program.

Every run begins eagerly, all replicas in one vmapped step. Where ``choice.compiled_from`` says that it repays, a
program of many steps is compiled in the background meanwhile and takes over at the beginning of that epoch, ready or
waited for: when it does so depends neither on how busy the machine is nor on who shares the stack. The short last batch
of an epoch is always stepped eagerly. One replica's program, called in turn, is faster than one of the whole stack, in
which convolutions have a group a replica, and it serves any number of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import ChunkResult, DeviceSplit, Replicas, batch_order
from jsc_explore.training.backends.select import compiled_from
from jsc_explore.training.backends.vmap.aot import Build, CompiledProgram, CompileError, Spec
from jsc_explore.training.backends.vmap.step import Batch, Settings, State, Step
from jsc_explore.training.chunks import Chunk
from jsc_explore.training.metrics import Scores, confusion_counts

# Rows evaluated at once over all replicas. Linear nets do not care; a convolution's activations must stay in the cache,
# and below what the C library gives back to the system each time (40,000 rows of jsc-conv, five replicas: 0.47 s in
# blocks of 4,096, 0.79 s in blocks of 16,384, 0.3 s of it page faults).
_EVAL_ROWS = 4_096
# A GPU has no such cache, and each block is a dozen launches; of jsc-conv these rows are about 0.3 GB. Not measured.
_EVAL_ROWS_ON_GPU = 65_536


class Stack(Replicas):
    """Replicas as rows of one vmapped module. ``why`` says in a few words why no faster engine trains them."""

    name = "stack"

    def __init__(self, runs: list[RunConfig], data: DeviceSplit, why: str = "") -> None:
        super().__init__(runs, data)
        self.why, self.whole_steps = why, len(data.train_y) // self.batch_size
        self.step = Step(
            runs[0], self.module, self.shapes, self.statistics,
            dropouts=list(self.dropouts), decays=self.optimizer.decays,
        )  # fmt: skip
        self.compiled_rows: list[int] = []
        self._build: Build | None = None
        self._program: CompiledProgram | None = None
        self._obstacle = ""

    def backend_name(self, row: int) -> str:
        compiled = row in self.compiled_rows
        reasons = "; ".join(filter(None, (self.why, "" if compiled else self._obstacle)))
        return f"{self.name}-{'compiled' if compiled else 'eager'}" + (f" ({reasons})" if reasons else "")

    def ready(self, epoch: int) -> bool:
        begins = [begin for run in self.runs if (begin := self._compiled_from(run)) is not None]
        if self._obstacle or self._program or not begins:
            return True
        try:
            self._build = self._build or Build.begin(Spec.of(self.runs[0], self.device.type))
            if epoch < min(begins):
                return True
            if self._build.is_done():
                self._program = self._build.program()
        except CompileError as error:
            self._obstacle = str(error)
        return bool(self._obstacle or self._program)

    def begin_epoch(self, epoch: int) -> None:
        while not self.ready(epoch):
            time.sleep(0.05)
        super().begin_epoch(epoch)
        begins = [self._compiled_from(run) for run in self.runs] if self._program else []
        self.compiled_rows = [row for row, begin in enumerate(begins) if begin is not None and epoch >= begin]

    def draw_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        self.order = torch.stack([batch_order(seed, epoch, len(self.data.train_y)) for seed in seeds]).to(self.device)
        self.order_of = torch.tensor([seeds.index(run.seed) for run in self.runs], device=self.device)
        self.device_rates = torch.from_numpy(self.rates).float().to(self.device).unsqueeze(2)

    def advance(self, chunk: Chunk) -> ChunkResult:
        shape = chunk.stop - chunk.start, self.size
        losses, hits = torch.empty(shape, device=self.device), torch.empty(shape, device=self.device)
        seconds = [0.0] * self.size
        whole = max(chunk.start, min(chunk.stop, self.whole_steps))
        eager = [row for row in range(self.size) if row not in self.compiled_rows]
        turns = [(self._advance_compiled, [row], chunk.start, whole) for row in self.compiled_rows]
        turns += [(self._advance_eagerly, self.compiled_rows, whole, chunk.stop)]
        turns += [(self._advance_eagerly, eager, chunk.start, chunk.stop)]
        for advance, rows, start, stop in turns:
            if not rows or start == stop:
                continue
            began, part = time.perf_counter(), slice(start - chunk.start, stop - chunk.start)
            losses[part, rows], hits[part, rows] = advance(rows, start, stop)
            for row in rows:
                seconds[row] += time.perf_counter() - began
        return ChunkResult(losses.double().cpu().numpy(), hits.double().cpu().numpy(), self.batch_sizes(chunk), seconds)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Scores:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        replicas = len(flat)
        loss = torch.zeros(replicas, dtype=torch.float64, device=self.device)
        confusion = torch.zeros(replicas, 5, 5, dtype=torch.int64, device=self.device)
        at_once = _EVAL_ROWS if self.device.type == "cpu" else _EVAL_ROWS_ON_GPU
        for start in range(0, len(y), rows := max(1024, at_once // replicas)):
            part = y[start : start + rows]
            logits = self.logits(x[start : start + rows], flat, running)
            each = functional.cross_entropy(logits.flatten(0, 1), part.repeat(replicas), reduction="none")
            loss += each.view(replicas, -1).sum(1, dtype=torch.float64)
            confusion += confusion_counts(logits, part)
        return Scores(loss / len(y), confusion)

    def logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        return self.step.logits(x, flat, running)

    def select(self, keep: Sequence[int]) -> None:
        super().select(keep)
        self.compiled_rows = [new for new, old in enumerate(keep) if old in self.compiled_rows]
        if hasattr(self, "order_of"):
            rows = torch.tensor(list(keep), dtype=torch.long, device=self.device)
            self.order_of, self.device_rates = self.order_of[rows], self.device_rates[:, rows]

    def state(self, rows: Sequence[int]) -> State:
        """Return what steps change of these rows; copies, unless they are all rows."""
        optimizer = self.optimizer
        parts = (self.flat, optimizer.m, optimizer.v, optimizer.t, self.scale, self.clean_steps, self.running)
        return State(*(self._of(tensor, rows) for tensor in parts))

    def settings(self, rows: Sequence[int]) -> Settings:
        """Return what steps need of these rows and leave as it is."""
        decay, momentum = self.optimizer.weight_decay, self.optimizer.momentum
        return Settings(self.has_gradient, self._of(decay, rows), self._of(momentum, rows))

    def _put(self, rows: Sequence[int], state: State) -> None:
        if len(rows) < self.size:
            for whole, part in zip(self.state(range(self.size)), state, strict=True):
                whole[rows] = part
            return
        optimizer = self.optimizer
        self.flat, optimizer.m, optimizer.v, optimizer.t, self.scale, self.clean_steps, self.running = state

    def _of(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        return tensor if len(rows) == self.size else tensor[list(rows)]

    def _advance_eagerly(self, rows: list[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        state, settings = self.state(rows), self.settings(rows)
        orders, rates = self._of(self.order_of, rows), self.device_rates[start:stop, rows]
        losses, hits = [], []
        for step, rate in zip(range(start, stop), rates, strict=True):
            index = self.order[:, step * self.batch_size : (step + 1) * self.batch_size][orders]
            x = self.data.train_x.index_select(0, index.flatten()).view(*index.shape, -1)
            y = self.data.train_y.index_select(0, index.flatten()).view(index.shape)
            drawn = [self.draw_masks(row, index.shape[1]) for row in rows] if self.dropouts else []
            masks = [torch.stack(layer).to(self.device) for layer in zip(*drawn, strict=True)]
            state, loss, hit = self.step(state, settings, Batch(x, y, rate, masks))
            losses.append(loss)
            hits.append(hit)
        self._put(rows, state)
        return torch.stack(losses), torch.stack(hits).float()

    def _advance_compiled(self, rows: list[int], start: int, stop: int) -> tuple[Tensor, Tensor]:
        assert self._program is not None
        program, (row,) = self._program, rows
        state, settings = self.state(rows), self.settings(rows)
        order, features = self.order[self.order_of[row]], self.data.train_x.shape[1]
        losses, hits = [], []
        for first in range(start, stop, program.spec.steps):
            last = min(stop, first + program.spec.steps)
            index, count = order[first * self.batch_size : last * self.batch_size], last - first
            torch.index_select(self.data.train_x, 0, index, out=program.x[:count].view(-1, features))
            torch.index_select(self.data.train_y, 0, index, out=program.y[:count].view(-1))
            program.rate[:count] = self.device_rates[first:last, row : row + 1]
            for step in range(count) if self.dropouts else ():
                for mask, drawn in zip(program.masks, self.draw_masks(row, self.batch_size), strict=True):
                    mask[step, 0] = drawn
            state, loss, hit = program(count, state, settings)
            losses.append(loss)
            hits.append(hit)
        self._put(rows, state)
        return torch.cat(losses), torch.cat(hits)

    def _compiled_from(self, run: RunConfig) -> int | None:
        return compiled_from(run, self.whole_steps, self.device.type)
