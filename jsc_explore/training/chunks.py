"""Chunks: an epoch is cut into short runs of steps, each ending at a point of the curve, a time limit or the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# Between chunks the training reports progress and checks for cancellations. A chunk is short enough to do so several
# times a second, and long enough that the 1 ms that Lightning takes between chunks does not count. Before any step was
# timed it holds FIRST_CHUNK_STEPS, unless the backend has an estimate.
FIRST_CHUNK_STEPS = 200
CHUNK_SECONDS = 0.1
FIRST_EPOCH_POINTS = 9


@dataclass(frozen=True)
class Chunk:
    """Steps ``[start, stop)`` of an epoch (from 0); ``has_point``: a point of the curve is due at its end."""

    epoch: int
    start: int
    stop: int
    has_point: bool
    ends_epoch: bool


class ChunkLoader:
    """Iterate over the chunks of a whole training in batches, as Lightning's data loader; their number is not known.

    A batch is one chunk, or several epochs of one chunk each that together take no longer than a chunk. Lightning sees
    a single epoch: its work for each batch and epoch took as long as a tenth of jsc-tiny's steps. ``max_steps`` returns
    the current limit of a chunk's steps, ``epochs_per_batch`` the current limit of a batch's epochs.
    """

    def __init__(
        self, epochs: range, steps_per_epoch: int, max_steps: Callable[[], int], epochs_per_batch: Callable[[], int]
    ) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.max_steps, self.epochs_per_batch = max_steps, epochs_per_batch

    def __iter__(self) -> Iterator[list[Chunk]]:
        batch: list[Chunk] = []
        for epoch in self.epochs:
            chunks = split_epoch(epoch, self.steps_per_epoch, self.max_steps())
            if batch and (len(chunks) > 1 or len(batch) >= self.epochs_per_batch()):
                yield batch
                batch = []
            yield from ([chunk] for chunk in chunks[:-1])
            batch.append(chunks[-1])
        if batch:
            yield batch


def split_epoch(epoch: int, steps_per_epoch: int, max_steps: int = FIRST_CHUNK_STEPS) -> list[Chunk]:
    """Return the chunks of one epoch, each of at most ``max_steps`` steps.

    The first epoch has points at log-spaced steps, every epoch has one at its end. Other cuts change no result.
    """
    points = {steps_per_epoch} | (_log_spaced(steps_per_epoch) if epoch == 0 else set())
    stops = sorted(points | set(range(max_steps, steps_per_epoch, max_steps)))
    starts = [0, *stops[:-1]]
    return [
        Chunk(epoch, start, stop, stop in points, stop == steps_per_epoch)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _log_spaced(steps: int) -> set[int]:
    return {int(step) for step in np.rint(np.geomspace(1, steps, FIRST_EPOCH_POINTS + 1))}


def stream_seed(purpose: str, seed: int, epoch: int) -> int:
    """Return the seed of one random stream; it depends on the purpose, the run's seed and the epoch alone."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
