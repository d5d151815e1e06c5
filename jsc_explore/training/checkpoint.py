"""Checkpoints: a replica as it stood at the end of an epoch, as safetensors bytes, from which it goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jsc_explore.files import safetensors_metadata
from jsc_explore.training.backends.base import Replicas
from jsc_explore.training.history import History


@dataclass
class Resume:
    """A replica as it stood after ``epoch`` epochs: its tensors by name and its ledger."""

    epoch: int
    tensors: dict[str, Tensor]
    ledger: History


@dataclass
class Best:
    """The weights of the lowest validation loss of each replica: ``flat (K, P)`` and ``running (K, R)``."""

    flat: Tensor
    running: Tensor

    def take(self, rows: Tensor, replicas: Replicas) -> None:
        """Copy the given rows from the current weights."""
        self.flat[rows], self.running[rows] = replicas.flat[rows], replicas.running[rows]

    def select(self, rows: Tensor) -> None:
        """Keep only these rows."""
        self.flat, self.running = self.flat[rows], self.running[rows]


def to_bytes(epoch: int, row: int, stack: Replicas, best: Best, ledger: History) -> bytes:
    """Return one replica's state."""
    tensors = {name: tensor[row] for name, tensor in _tensors(stack, best).items()}
    said = {"epoch": str(epoch), "ledger": json.dumps(ledger.to_dict())}
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, said)


def from_bytes(data: bytes | None) -> Resume | None:
    """Read a checkpoint; None if there is none or it is not readable: the run then starts from the beginning."""
    if data is None:
        return None
    try:
        said = safetensors_metadata(data)
        return Resume(int(said["epoch"]), load(data), History.from_dict(json.loads(said["ledger"])))
    except (SafetensorError, KeyError, ValueError, TypeError):
        return None


def restore(stack: Replicas, best: Best, resumes: Sequence[Resume]) -> None:
    """Put the saved states of all replicas, in order, into the stack."""
    for name, tensor in _tensors(stack, best).items():
        tensor.copy_(torch.stack([resume.tensors[name] for resume in resumes]).to(tensor.device))


def _tensors(stack: Replicas, best: Best) -> dict[str, Tensor]:
    optimizer = stack.optimizer
    return {
        "flat": stack.flat,
        "m": optimizer.m,
        "v": optimizer.v,
        "t": optimizer.t,
        "scale": stack.scale,
        "clean_steps": stack.clean_steps,
        "running": stack.running,
        "best_flat": best.flat,
        "best_running": best.running,
    }
