"""Checkpoints: the state of a replica at the end of an epoch, as safetensors bytes, to resume from to the bit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jsc_explore.files import safetensors_metadata
from jsc_explore.training.backends.base import Backend
from jsc_explore.training.history import History

# A crash loses at most this much work and the epoch under way; a checkpoint of fifty replicas of jsc-s takes 0.05 s.
# The first is due after FIRST_CHECKPOINT_S and each next one after twice the time, up to CHECKPOINT_EVERY_S: runs also
# progress where workers live for a few seconds only.
CHECKPOINT_EVERY_S, FIRST_CHECKPOINT_S = 5.0, 1.0


@dataclass
class Checkpoint:
    """The state of a replica after ``epoch`` epochs: its tensors by name and its history."""

    epoch: int
    tensors: dict[str, Tensor]
    history: History


@dataclass
class BestWeights:
    """The weights of each replica at its lowest validation loss: ``flat (K, P)`` and ``running (K, R)``."""

    flat: Tensor
    running: Tensor

    def update(self, rows: Tensor, backend: Backend) -> None:
        """Copy the current weights of the given rows."""
        self.flat[rows], self.running[rows] = backend.flat[rows], backend.running[rows]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.flat, self.running = self.flat[rows], self.running[rows]


def to_bytes(epoch: int, row: int, backend: Backend, best: BestWeights, history: History) -> bytes:
    """Return one replica's checkpoint."""
    tensors = {name: tensor[row] for name, tensor in _tensors(backend, best).items()}
    metadata = {"epoch": str(epoch), "history": json.dumps(history.to_dict())}
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)


def from_bytes(data: bytes | None) -> Checkpoint | None:
    """Read a checkpoint; None if there is none or it cannot be read: the run then starts from the beginning."""
    if data is None:
        return None
    try:
        metadata = safetensors_metadata(data)
        return Checkpoint(int(metadata["epoch"]), load(data), History.from_dict(json.loads(metadata["history"])))
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None


def restore(backend: Backend, best: BestWeights, checkpoints: Sequence[Checkpoint]) -> None:
    """Copy the checkpoints of all replicas, in the order of their rows, into the backend."""
    for name, tensor in _tensors(backend, best).items():
        tensor.copy_(torch.stack([checkpoint.tensors[name] for checkpoint in checkpoints]).to(tensor.device))


def _tensors(backend: Backend, best: BestWeights) -> dict[str, Tensor]:
    optimizer = backend.optimizer
    return {
        "flat": backend.flat,
        "m": optimizer.m,
        "v": optimizer.v,
        "t": optimizer.t,
        "scale": backend.scale,
        "clean_steps": backend.clean_steps,
        "running": backend.running,
        "best_flat": best.flat,
        "best_running": best.running,
    }
