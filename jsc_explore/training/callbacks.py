"""Who is told what a training does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from jsc_explore.results import Outcome, Point


class Callback(Protocol):
    """Who is told what happens. Keys are those of the mapping of runs; every call comes from the training thread."""

    def point(self, key: str, point: Point) -> None:
        """Take note of a new point of one replica."""

    def progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Take note of the steps done by the replicas that are still training."""

    def finished(self, key: str, outcome: Outcome) -> None:
        """Take the finished run."""

    def cancelled(self) -> set[str]:
        """Return the keys whose training shall end now, without an outcome."""


class CollectingCallback:
    """An observer that keeps the outcomes and wants nothing else."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def point(self, key: str, point: Point) -> None:
        """Let it pass: the outcome has all points."""

    def progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Let it pass."""

    def finished(self, key: str, outcome: Outcome) -> None:
        """Keep it."""
        self.outcomes[key] = outcome

    def cancelled(self) -> set[str]:
        """Cancel nothing."""
        return set()
