"""When to look up: an epoch cut into chunks, each ending at a point of the curve, a pulse or the epoch's end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

# A chunk is what runs without looking up: short enough that Cancel answers and progress moves several times a second,
# long enough that looking up (1 ms in Lightning) costs nothing. Before anything is measured it holds this many,
# unless the engine knows better.
FIRST_CHUNK_STEPS = 200
CHUNK_SECONDS = 0.1
FIRST_EPOCH_POINTS = 9


@dataclass(frozen=True)
class Chunk:
    """Steps ``[start, stop)`` of an epoch (from 0); ``point``: a point of the curve is due at its end."""

    epoch: int
    start: int
    stop: int
    point: bool
    ends_epoch: bool


class Plan:
    """The chunks of a whole training as Lightning takes them: in batches, of whose number nobody knows.

    A batch is one chunk, or several epochs of one chunk each that together take no longer. All are one epoch to
    Lightning: what it does for each batch and epoch took as long as a tenth of jsc-tiny's steps. ``most`` is asked for
    the greatest length of a chunk, ``at_once`` for the number of epochs in a batch, as they are known by then.
    """

    def __init__(
        self, epochs: range, steps_per_epoch: int, most: Callable[[], int], at_once: Callable[[], int]
    ) -> None:
        self.epochs, self.steps_per_epoch, self.most, self.at_once = epochs, steps_per_epoch, most, at_once

    def __iter__(self) -> Iterator[list[Chunk]]:
        batch: list[Chunk] = []
        for epoch in self.epochs:
            chunks = epoch_chunks(epoch, self.steps_per_epoch, self.most())
            if batch and (len(chunks) > 1 or len(batch) >= self.at_once()):
                yield batch
                batch = []
            yield from ([chunk] for chunk in chunks[:-1])
            batch.append(chunks[-1])
        if batch:
            yield batch


def epoch_chunks(epoch: int, steps_per_epoch: int, most: int = FIRST_CHUNK_STEPS) -> list[Chunk]:
    """Return the chunks of one epoch, each of at most ``most`` steps.

    The first epoch has points at log-spaced steps, each epoch one at its end; where else it is cut changes no result.
    """
    points = {steps_per_epoch} | (_log_spaced(steps_per_epoch) if epoch == 0 else set())
    stops = sorted(points | set(range(most, steps_per_epoch, most)))
    starts = [0, *stops[:-1]]
    return [
        Chunk(epoch, start, stop, stop in points, stop == steps_per_epoch)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _log_spaced(steps: int) -> set[int]:
    return {int(step) for step in np.rint(np.geomspace(1, steps, FIRST_EPOCH_POINTS + 1))}


def stream_seed(purpose: str, seed: int, epoch: int) -> int:
    """Return the seed of one random stream; it depends on the run's seed, the epoch and the purpose, nothing else."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
