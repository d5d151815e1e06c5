"""The stack: replicas stepped together with torch.func, for any nn.Module and any device."""

from __future__ import annotations

import copy
import time

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.training.metrics import Scores, confusion_counts
from jsc_explore.training.plan import Chunk
from jsc_explore.training.replicas import DeviceSplit, Replicas, Taken, unflatten

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Rows evaluated at once over all replicas. Small nets do not care; a convolution's activations must stay in the cache
# (40,000 rows of jsc-conv, two replicas: 0.2 s in blocks of 8,192, 0.6 s in blocks of 32,768).
_EVAL_ROWS = 16_384
_SCALE_INTERVAL = 2000


class Stack(Replicas):
    """Replicas as rows of one vmapped module."""

    engine = "stack-eager"

    def __init__(self, runs: list[RunConfig], data: DeviceSplit) -> None:
        super().__init__(runs, data)
        self.half = _HALF.get(runs[0].precision)
        self.scaled = runs[0].precision == "16-mixed"
        self.base = copy.deepcopy(self.module).to("meta")
        self._gradient = vmap(grad_and_value(self._loss, has_aux=True), in_dims=(0, 0, 0, 0, 0, 0))
        self._forward = vmap(self._logits, in_dims=(0, 0, None))

    def take_orders(self, orders: dict[int, Tensor]) -> None:
        seeds = list(orders)
        self.order = torch.stack(list(orders.values())).to(self.device)
        self.order_of = torch.tensor([seeds.index(run.seed) for run in self.runs], device=self.device)
        self.device_rates = torch.from_numpy(self.rates).float().to(self.device).unsqueeze(2)

    def advance(self, chunk: Chunk) -> Taken:
        began = time.perf_counter()
        self.base.train()
        losses, hits = [], []
        for step in range(chunk.start, chunk.stop):
            index = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
            x, y = self._gather(index)
            masks = self._stacked_masks(index.shape[1])
            grad, (loss, (logits, self.running)) = self._gradient(self.flat, self.running, masks, x, y, self.scale)
            self._update(grad, self.device_rates[step])
            losses.append(loss / self.scale.squeeze(1) if self.scaled else loss)
            hits.append((logits.argmax(2) == y).sum(1))
        taken = torch.stack(losses).double().cpu().numpy(), torch.stack(hits).double().cpu().numpy()
        seconds = time.perf_counter() - began
        return Taken(*taken, self.batch_sizes(chunk), [seconds] * self.size)

    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Scores:
        flat, running = self.flat if flat is None else flat, self.running if running is None else running
        replicas = len(flat)
        loss = torch.zeros(replicas, dtype=torch.float64, device=self.device)
        confusion = torch.zeros(replicas, 5, 5, dtype=torch.int64, device=self.device)
        for start in range(0, len(y), rows := max(1024, _EVAL_ROWS // replicas)):
            part = y[start : start + rows]
            logits = self.logits(x[start : start + rows], flat, running)
            each = functional.cross_entropy(logits.flatten(0, 1), part.repeat(replicas), reduction="none")
            loss += each.view(replicas, -1).sum(1, dtype=torch.float64)
            confusion += confusion_counts(logits, part)
        return Scores(loss / len(y), confusion)

    def logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        self.base.eval()
        with torch.no_grad():
            output: Tensor = self._forward(flat, running, x)[0]
        return output.float()

    def select(self, keep: list[int]) -> None:  # type: ignore[override]
        super().select(keep)
        if hasattr(self, "order_of"):
            rows = torch.tensor(keep, dtype=torch.long, device=self.device)
            self.order_of, self.device_rates = self.order_of[rows], self.device_rates[:, rows]

    def _gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        flat_index = index[self.order_of].flatten()
        x = self.data.train_x.index_select(0, flat_index).view(self.size, -1, self.data.train_x.shape[1])
        return x, self.data.train_y.index_select(0, flat_index).view(self.size, -1)

    def _stacked_masks(self, rows: int) -> dict[str, Tensor]:
        drawn = [self.draw_masks(replica, rows) for replica in range(self.size)] if self.dropouts else []
        layers = zip(self.dropouts, zip(*drawn, strict=True), strict=True) if drawn else ()
        return {f"{name}.mask": torch.stack(masks).to(self.device) for name, masks in layers}

    def _logits(
        self, flat: Tensor, running: Tensor, x: Tensor, masks: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return outputs and, in training mode moved, statistics."""
        # Copies: batch norm writes into them, and pieces of one tensor would all count as changed.
        statistics = {name: piece.clone() for name, piece in unflatten(running, self.statistics).items()}
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            state = (unflatten(flat, self.shapes), statistics | (masks or {}))
            output = functional_call(self.base, state, (x,))
        return output, torch.cat([tensor.flatten() for tensor in statistics.values()]) if statistics else running

    def _loss(
        self, flat: Tensor, running: Tensor, masks: dict[str, Tensor], x: Tensor, y: Tensor, scale: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits, moved = self._logits(flat, running, x, masks)
        loss = functional.cross_entropy(logits.float(), y)
        return (loss * scale.squeeze() if self.scaled else loss), (logits.detach(), moved.detach())

    def _update(self, grad: Tensor, rate: Tensor) -> None:
        grad = grad * self.has_gradient
        if not self.scaled:
            self.optimizer.step(self.flat, grad, rate)
            return
        # torch.amp.GradScaler's rule, each replica with its own scale.
        grad = grad / self.scale
        finite = grad.isfinite().all(1, keepdim=True)
        self.optimizer.step(self.flat, grad, rate, live=finite)
        self.clean_steps = torch.where(finite, self.clean_steps + 1, 0.0)
        grown = self.clean_steps >= _SCALE_INTERVAL
        self.scale = torch.where(finite, torch.where(grown, self.scale * 2, self.scale), self.scale / 2)
        self.clean_steps = torch.where(grown, 0.0, self.clean_steps)
