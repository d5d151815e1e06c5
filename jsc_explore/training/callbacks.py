"""Callbacks: what `train_stack` reports while it trains."""

from __future__ import annotations

from collections.abc import Sequence

from jsc_explore.results import Outcome, Point


class Callback:
    """Receive the events of a training. Keys are those of the mapping of runs; all calls come from its thread."""

    def on_point(self, key: str, point: Point) -> None:
        """Receive a new point of one replica's curve."""

    def on_progress(self, keys: Sequence[str], step: int, total_steps: Sequence[int]) -> None:
        """Receive the number of steps done, and the total of each replica that is still training."""

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Receive the outcome of a run that ended."""

    def cancelled_keys(self) -> set[str]:
        """Return the keys whose training shall end now, without an outcome."""
        return set()


class CollectingCallback(Callback):
    """Collect the outcomes by key."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Store the outcome."""
        self.outcomes[key] = outcome
