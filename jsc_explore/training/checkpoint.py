"""Checkpoints: one safetensors file a replica, written at the end of an epoch, from which training goes on exactly."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from jsc_explore.training.ledger import Ledger
from jsc_explore.training.replicas import Replicas


@dataclass
class Resume:
    """A replica as it stood after ``epoch`` epochs: its tensors by name and its ledger."""

    epoch: int
    tensors: dict[str, Tensor]
    ledger: Ledger


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


def save_checkpoint(path: Path, epoch: int, row: int, stack: Replicas, best: Best, ledger: Ledger) -> None:
    """Write one replica's state to ``path``: whole or not at all."""
    tensors = {name: tensor[row] for name, tensor in _tensors(stack, best).items()}
    metadata = {"epoch": str(epoch), "ledger": json.dumps(ledger.to_dict())}
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> Resume | None:
    """Read a checkpoint; None if there is none or it is not readable: the run then starts from the beginning."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Resume(int(metadata["epoch"]), tensors, Ledger.from_dict(json.loads(metadata["ledger"])))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
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
