"""The interface of a backend: it trains replicas, networks of one architecture and batch size, side by side."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn

from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.errors import FieldError
from jsc_explore.training.chunks import FIRST_CHUNK_STEPS, Chunk, stream_seed
from jsc_explore.training.metrics import Metrics
from jsc_explore.training.models import MaskedDropout, biases_before_batch_norm, build
from jsc_explore.training.optimizers import FlatOptimizer
from jsc_explore.training.schedules import learning_rates

_INITIAL_LOSS_SCALE, _CACHE_LINE_BYTES = 65536.0, 64


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
        """Copy ``split`` to ``device``; a validation part that is the training part shares its copy."""
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

    @property
    def train_sample(self) -> tuple[Tensor, Tensor]:
        """Return as many training jets and labels as there are validation jets: the first, whose order is random."""
        rows = len(self.val_y)
        return self.train_x[:rows], self.train_y[:rows]

    @property
    def is_validated_on_train(self) -> bool:
        """Return whether the validation part is the training part, or a view of its first jets."""
        return self.val_x.data_ptr() == self.train_x.data_ptr()

    def head(self, rows: int) -> DeviceSplit:
        """Return the first rows of each part, without a copy."""
        return DeviceSplit(*(getattr(self, name)[:rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class ChunkResult:
    """The result of S steps of K replicas.

    ``losses (S, K) float64`` are means over each batch, ``correct (S, K) float64`` numbers of correctly classified
    jets, ``sizes (S,) float64`` batch sizes, ``seconds (K,)`` each replica's own time: an equal share where they step
    together.
    """

    losses: NDArray[np.float64]
    correct: NDArray[np.float64]
    sizes: NDArray[np.float64]
    seconds: list[float]


def batch_order(seed: int, epoch: int, rows: int, out: Tensor | None = None) -> Tensor:
    """Return the order of the training rows in ``epoch``, a permutation ``(rows,) int32`` that depends on the seed.

    It is written to ``out``, of that shape and type, if given.
    """
    generator = torch.Generator().manual_seed(stream_seed("order", seed, epoch))
    return torch.randperm(rows, generator=generator, dtype=torch.int32, out=out)


class Backend(ABC):
    """Train K replicas on one device. The rows of every state tensor are replicas, in the order of ``runs``.

    ``flat (K, P) float32`` holds all parameters, ``running (K, R) float32`` all batch-norm statistics, both in the
    order of the module's ``state_dict``. All runs share one ``RunConfig.stack_key``; FieldError is raised otherwise.
    """

    name: str

    def __init__(self, runs: Sequence[RunConfig], data: DeviceSplit) -> None:
        if len({run.stack_key for run in runs}) != 1:
            raise FieldError("runs", len(runs), "must share one stack key", "group them by stack_key")
        self.runs, self.data, self.device = list(runs), data, data.train_x.device
        self.batch_size = runs[0].batch_size
        modules = [build(runs[0].network, run.seed) for run in runs]
        self.module = modules[0]
        self.dropouts = {name: m for name, m in self.module.named_modules() if isinstance(m, MaskedDropout)}
        self.shapes = {name: tensor.shape for name, tensor in self.module.named_parameters()}
        self.statistics = {name: tensor.shape for name, tensor in _statistics(self.module)}
        self.flat = torch.stack([_flat(m.parameters()) for m in modules]).to(self.device)
        self.running = torch.stack([_flat(tensor for _, tensor in _statistics(m)) for m in modules]).to(self.device)
        constant = biases_before_batch_norm(self.module)
        self.has_gradient = _flat(torch.full(shape, float(name not in constant)) for name, shape in self.shapes.items())
        self.has_gradient = self.has_gradient.to(self.device)
        self.optimizer = FlatOptimizer(runs, self.flat)
        # Used by half precision only, but part of every checkpoint.
        self.scale = torch.full((len(runs), 1), _INITIAL_LOSS_SCALE, device=self.device)
        self.clean_steps = torch.zeros(len(runs), 1, device=self.device)

    @property
    def size(self) -> int:
        """Number of replicas that are still training."""
        return len(self.runs)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, with the last, short one, as in the lab."""
        whole, rest = divmod(len(self.data.train_y), self.batch_size)
        # A last batch of one jet is left out: it has no variance for batch norm.
        return whole + (rest > 1)

    def initial_chunk_steps(self) -> int:
        """Return the number of steps of the first chunk, before any step was timed."""
        return FIRST_CHUNK_STEPS

    def backend_name(self, row: int) -> str:
        """Return the backend's name as stored with this row's run."""
        return self.name

    def prepare(self, epoch: int) -> bool:
        """Start in the background what ``epoch`` needs; return whether it can begin without waiting."""
        return True

    def begin_epoch(self, epoch: int) -> None:
        """Set batch order, learning rates ``(steps, K)`` and dropout generators of ``epoch`` (from 0)."""
        self.rates = np.stack([learning_rates(run, epoch, self.steps_per_epoch) for run in self.runs], axis=1)
        self.generators = [torch.Generator().manual_seed(stream_seed("dropout", run.seed, epoch)) for run in self.runs]
        self.draw_batch_orders(epoch, sorted({run.seed for run in self.runs}))

    @abstractmethod
    def draw_batch_orders(self, epoch: int, seeds: Sequence[int]) -> None:
        """Draw the ``batch_order`` of each seed, in the form that the backend needs."""

    @abstractmethod
    def train_chunk(self, chunk: Chunk) -> ChunkResult:
        """Take the optimizer steps of a chunk."""

    @abstractmethod
    def evaluate(self, x: Tensor, y: Tensor, flat: Tensor | None = None, running: Tensor | None = None) -> Metrics:
        """Return metrics on ``(n, 16)`` features in evaluation mode, of the given weights or the current ones."""

    @abstractmethod
    def compute_logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        """Return ``(K, n, 5) float32`` outputs in evaluation mode."""

    def draw_dropout_masks(self, replica: int, rows: int) -> list[Tensor]:
        """Draw the next mask of each dropout layer, ``(rows, *shape) float32``, with values 0 or 1/(1 - rate)."""
        masks = []
        for dropout in self.dropouts.values():
            keep = 1 - dropout.rate
            drawn = torch.rand(rows, *dropout.shape, generator=self.generators[replica])
            masks.append((drawn < keep).float().div_(keep))
        return masks

    def batch_sizes(self, chunk: Chunk) -> NDArray[np.float64]:
        """Return the number of jets in the batch of each step."""
        sizes = np.full(chunk.stop - chunk.start, float(self.batch_size))
        sizes[-1] = min(self.batch_size, len(self.data.train_y) - (chunk.stop - 1) * self.batch_size)
        return sizes

    def state_dict(self, flat: Tensor, running: Tensor) -> dict[str, Tensor]:
        """Return one replica's weights ``(P,)`` and statistics ``(R,)`` by the module's parameter names, on the CPU."""
        named = unflatten(flat, self.shapes) | unflatten(running, self.statistics)
        return {
            name: (tensor.long() if name.endswith("num_batches_tracked") else tensor).detach().cpu().contiguous()
            for name, tensor in named.items()
        }

    def select(self, keep: Sequence[int]) -> None:
        """Keep only the replicas in these rows, in this order."""
        rows = torch.tensor(list(keep), dtype=torch.long, device=self.device)
        self.runs = [self.runs[row] for row in keep]
        self.flat, self.running = self.flat[rows], self.running[rows]
        self.optimizer.select(rows)
        self.scale, self.clean_steps = self.scale[rows], self.clean_steps[rows]
        if hasattr(self, "rates"):
            self.rates, self.generators = self.rates[:, list(keep)], [self.generators[row] for row in keep]


def unflatten(flat: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Split a flat tensor into views of the named shapes, in order."""
    pieces = torch.split(flat, [shape.numel() for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def aligned_zeros(shape: tuple[int, ...] | int, dtype: DTypeLike) -> NDArray[np.generic]:
    """Return zeros that start at a cache line.

    A vector or a jet of sixteen float32 then lies in one line, not two. NumPy asks for large pages where an array is
    large: random reads of jets miss the page table less often than in memory of torch (an epoch of jsc-tiny, batch
    256: 8.7 ms instead of 9.4).
    """
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    raw = np.zeros(size * np.dtype(dtype).itemsize + _CACHE_LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE_BYTES
    return raw[start : start + size * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


def _statistics(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in module.named_buffers() if not name.endswith(".mask")]


def _flat(tensors: object) -> Tensor:
    pieces = [tensor.detach().float().flatten() for tensor in tensors]  # type: ignore[attr-defined]
    return torch.cat(pieces) if pieces else torch.empty(0)


def _to(array: np.ndarray, device: torch.device) -> Tensor:
    kind = np.float32 if array.dtype.kind == "f" else np.int64
    copy = aligned_zeros(array.shape, kind)
    copy[:] = array
    return torch.from_numpy(copy).to(device)
