"""The stack: replicas of one architecture and batch size trained side by side with torch.func, for any nn.Module."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.errors import FieldError
from jsc_explore.models import MaskedDropout, biases_before_batch_norm, build
from jsc_explore.training.metrics import Scores, confusion_counts
from jsc_explore.training.optimizers import FlatOptimizer
from jsc_explore.training.plan import Chunk, stream_seed
from jsc_explore.training.schedules import learning_rates

_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Rows evaluated at once over all replicas. Small nets do not care; a convolution's activations must stay in the cache
# (40,000 rows of jsc-conv, two replicas: 0.2 s in blocks of 8,192, 0.6 s in blocks of 32,768).
_EVAL_ROWS = 16_384
_FIRST_SCALE, _SCALE_INTERVAL = 65536.0, 2000


@dataclass(frozen=True)
class DeviceSplit:
    """A split as tensors on the training device: features ``(n, 16) float32``, labels ``(n,) int64``."""

    train_x: Tensor
    train_y: Tensor
    val_x: Tensor
    val_y: Tensor
    test_x: Tensor
    test_y: Tensor

    @classmethod
    def of(cls, split: Split, device: torch.device) -> DeviceSplit:
        """Copy ``split`` to ``device`` once; a validation part that is the training part is not copied twice."""
        x, y = _to(split.train_x, device), _to(split.train_y, device)
        shared = split.val_x is split.train_x
        return cls(
            x,
            y,
            x if shared else _to(split.val_x, device),
            y if shared else _to(split.val_y, device),
            _to(split.test_x, device),
            _to(split.test_y, device),
        )

    def head(self, rows: int) -> DeviceSplit:
        """Return the first rows of each part, without a copy."""
        return DeviceSplit(*(getattr(self, name)[:rows] for name in self.__dataclass_fields__))


def batch_order(seed: int, epoch: int, rows: int) -> Tensor:
    """Return the order of the training rows in ``epoch``: a permutation ``(rows,) int64`` of its own for each seed."""
    generator = torch.Generator().manual_seed(stream_seed("order", seed, epoch))
    return torch.randperm(rows, generator=generator)


class Stack:
    """K replicas on one device. Rows of every state tensor are replicas, in the order of ``runs``.

    All runs share their ``RunConfig.stack_key``.
    """

    def __init__(self, runs: Sequence[RunConfig], data: DeviceSplit) -> None:
        if len({run.stack_key for run in runs}) != 1:
            raise FieldError("runs", len(runs), "must share one stack key", "group them by stack_key")
        self.runs, self.data, self.device = list(runs), data, data.train_x.device
        first = runs[0]
        self.batch_size, self.half = first.batch_size, _HALF.get(first.precision)
        self.scaled = first.precision == "16-mixed"
        modules = [build(first.network, run.seed) for run in runs]
        parameters, buffers = stack_module_state(modules)
        self.shapes = {name: tensor.shape[1:] for name, tensor in parameters.items()}
        self.flat = torch.cat([p.detach().flatten(1) for p in parameters.values()], 1).to(self.device)
        self.buffers = {name: tensor.to(self.device) for name, tensor in buffers.items()}
        self.base = copy.deepcopy(modules[0]).to("meta")
        self.dropouts = {f"{n}.mask": m for n, m in modules[0].named_modules() if isinstance(m, MaskedDropout)}
        without_gradient = biases_before_batch_norm(modules[0])
        self.has_gradient = torch.cat(
            [torch.full((shape.numel(),), float(name not in without_gradient)) for name, shape in self.shapes.items()]
        ).to(self.device)
        self.optimizer = FlatOptimizer(runs, self.flat)
        self.scale = torch.full((len(runs), 1), _FIRST_SCALE, device=self.device)
        self.clean_steps = torch.zeros(len(runs), 1, device=self.device)
        self._gradient = vmap(grad_and_value(self._loss, has_aux=True), in_dims=(0, 0, 0, 0, 0))
        self._forward = vmap(self._logits, in_dims=(0, 0, None))

    @property
    def size(self) -> int:
        """Number of replicas still in the stack."""
        return len(self.runs)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; the last, short one is kept, as in the lab."""
        whole, rest = divmod(len(self.data.train_y), self.batch_size)
        # Batch norm has no variance of a single jet; a last batch of one is left out.
        return whole + (rest > 1)

    def begin_epoch(self, epoch: int) -> None:
        """Prepare batch order, learning rates and dropout of ``epoch`` (from 0)."""
        rows = len(self.data.train_y)
        seeds = sorted({run.seed for run in self.runs})
        # int32 halves the memory of the orders; index_select takes it as it is.
        self.order = torch.stack([batch_order(seed, epoch, rows).int() for seed in seeds]).to(self.device)
        self.order_of = torch.tensor([seeds.index(run.seed) for run in self.runs], device=self.device)
        rates = np.stack([learning_rates(run, epoch, self.steps_per_epoch) for run in self.runs], axis=1)
        self.rates = torch.from_numpy(rates).float().to(self.device).unsqueeze(2)
        self.generators = [torch.Generator().manual_seed(stream_seed("dropout", run.seed, epoch)) for run in self.runs]

    def advance(self, chunk: Chunk) -> tuple[Tensor, Tensor, int]:
        """Take the chunk's steps; return per step and replica loss and share of hits ``(steps, K)``, and jets seen."""
        self.base.train()
        losses, hits = [], []
        rows = len(self.data.train_y)
        for step in range(chunk.start, chunk.stop):
            index = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
            x, y = self._gather(index)
            masks = self._draw_masks(index.shape[1])
            grad, (loss, logits) = self._gradient(self.flat, self.buffers | masks, x, y, self.scale)
            self._update(grad, self.rates[step])
            losses.append(loss / self.scale.squeeze(1) if self.scaled else loss)
            hits.append((logits.argmax(2) == y).float().mean(1))
        seen = min(chunk.stop * self.batch_size, rows) - chunk.start * self.batch_size
        return torch.stack(losses), torch.stack(hits), seen

    def evaluate(
        self, x: Tensor, y: Tensor, flat: Tensor | None = None, buffers: dict[str, Tensor] | None = None
    ) -> Scores:
        """Measure every replica on ``(n, 16)`` features in evaluation mode, with given weights or its own."""
        replicas = len(self.flat if flat is None else flat)
        loss = torch.zeros(replicas, dtype=torch.float64, device=self.device)
        confusion = torch.zeros(replicas, 5, 5, dtype=torch.int64, device=self.device)
        for start in range(0, len(y), rows := max(1024, _EVAL_ROWS // replicas)):
            part = y[start : start + rows]
            logits = self.logits(x[start : start + rows], flat, buffers)
            each = functional.cross_entropy(logits.flatten(0, 1), part.repeat(replicas), reduction="none")
            loss += each.view(replicas, -1).sum(1, dtype=torch.float64)
            confusion += confusion_counts(logits, part)
        return Scores(loss / len(y), confusion)

    def logits(self, x: Tensor, flat: Tensor | None = None, buffers: dict[str, Tensor] | None = None) -> Tensor:
        """Return ``(K, n, 5) float32`` outputs in evaluation mode."""
        self.base.eval()
        state = self.buffers if buffers is None else buffers
        with torch.no_grad():
            output = self._forward(self.flat if flat is None else flat, state, x)
        return output.float()

    def weights(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return copies of parameters ``(K, P)`` and buffers, safe from further steps."""
        return self.flat.clone(), {name: tensor.clone() for name, tensor in self.buffers.items()}

    def state_dict(self, row: int, flat: Tensor, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return one replica's weights under the names of its module's own ``state_dict``, on the CPU."""
        kept = {name: tensor[row] for name, tensor in buffers.items() if name not in self.dropouts}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in (self._named(flat[row]) | kept).items()}

    def select(self, keep: Sequence[int]) -> None:
        """Keep only the replicas in these rows, in this order."""
        rows = torch.tensor(list(keep), dtype=torch.long, device=self.device)
        self.runs = [self.runs[row] for row in keep]
        self.flat = self.flat[rows]
        self.buffers = {name: tensor[rows] for name, tensor in self.buffers.items()}
        self.optimizer.select(rows)
        self.scale, self.clean_steps = self.scale[rows], self.clean_steps[rows]
        if hasattr(self, "order_of"):
            self.order_of, self.rates = self.order_of[rows], self.rates[:, rows]
            self.generators = [self.generators[row] for row in keep]

    def _gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        flat_index = index[self.order_of].flatten()
        x = self.data.train_x.index_select(0, flat_index).view(self.size, -1, self.data.train_x.shape[1])
        return x, self.data.train_y.index_select(0, flat_index).view(self.size, -1)

    def _draw_masks(self, rows: int) -> dict[str, Tensor]:
        masks = {}
        for name, module in self.dropouts.items():
            keep = 1 - module.rate
            drawn = [torch.rand(rows, *module.shape, generator=generator) for generator in self.generators]
            masks[name] = (torch.stack(drawn) < keep).float().div_(keep).to(self.device)
        return masks

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def _logits(self, flat: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            return functional_call(self.base, (self._named(flat), buffers), (x,))  # type: ignore[no-any-return]

    def _loss(
        self, flat: Tensor, buffers: dict[str, Tensor], x: Tensor, y: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = self._logits(flat, buffers, x).float()
        loss = functional.cross_entropy(logits, y)
        return (loss * scale.squeeze() if self.scaled else loss), logits.detach()

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


@lru_cache(maxsize=8)
def device_of(name: str) -> torch.device:
    """Return the training device: ``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    kind = torch.float32 if array.dtype.kind == "f" else torch.int64
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=kind)
