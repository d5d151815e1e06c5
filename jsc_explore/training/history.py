"""The history of one replica: its curve so far, its best epoch, its early stopping. Plain values that fit in JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jsc_explore.config import RunConfig
from jsc_explore.data.jets import CLASSES
from jsc_explore.results import Point


@dataclass
class History:
    """The curve so far and the sums since its last point; checkpoints store it by ``to_dict`` and ``from_dict``."""

    points: list[Point] = field(default_factory=list)
    loss_sum: float = 0.0
    correct: float = 0.0
    jets: int = 0
    samples: int = 0
    best_val_loss: float | None = None
    best_val_acc: float | None = None
    best_epoch: int | None = None
    stale_epochs: int = 0
    time_s: float = 0.0
    wall_share_s: float = 0.0
    wall_time_s: float = 0.0

    def add_chunk(
        self, losses: NDArray[np.float64], correct: NDArray[np.float64], sizes: NDArray[np.float64], seconds: float
    ) -> None:
        """Add the steps of a chunk: mean loss, number of correctly classified jets and batch size of each."""
        # One after the other: the sum must not depend on where an epoch was cut into chunks.
        sums = np.empty(len(losses) + 1)
        sums[0] = self.loss_sum
        np.multiply(losses, sizes, out=sums[1:])
        self.loss_sum = float(np.add.accumulate(sums, out=sums)[-1])
        self.correct += float(correct.sum())
        jets = int(sizes.sum())
        self.jets += jets
        self.samples += jets
        self.time_s += seconds

    def add_point(
        self,
        step: int,
        epoch: float,
        rate: float | None,
        val: tuple[float, float, list[float]],
        train_eval: tuple[float, float] | None,
    ) -> Point:
        """End the interval since the last point.

        ``val`` is validation loss, accuracy and recall per class, ``train_eval`` loss and accuracy of training jets in
        evaluation mode, None where they were not measured.
        """
        trained = self.jets > 0
        loss, accuracy, recall = val
        train_eval_loss, train_eval_acc = train_eval or (float("nan"), None)
        point: Point = {
            "step": step,
            "epoch": epoch,
            "samples": self.samples,
            "train_loss": _finite(self.loss_sum / self.jets) if trained else None,
            "train_acc": self.correct / self.jets if trained else None,
            "train_eval_loss": _finite(train_eval_loss),
            "train_eval_acc": train_eval_acc,
            "val_loss": _finite(loss),
            "val_acc": accuracy,
            "learning_rate": rate,
            "time_s": self.time_s,
            **{f"recall_{name}": _finite(value) for name, value in zip(CLASSES, recall, strict=True)},
        }
        self.points.append(point)
        self.loss_sum, self.correct, self.jets = 0.0, 0.0, 0
        return point

    def update_best(self, epoch: int) -> bool:
        """Compare the last point with the best epoch so far; return whether it is the new best. ``epoch`` from 1."""
        loss = self.points[-1]["val_loss"]
        if loss is not None and (self.best_val_loss is None or loss < self.best_val_loss):
            self.best_val_loss, self.best_val_acc = loss, self.points[-1]["val_acc"]
            self.best_epoch, self.stale_epochs = epoch, 0
            return True
        self.stale_epochs += 1
        return False

    def stop_reason(self, run: RunConfig, epochs_done: int) -> str | None:
        """Return why this replica is finished, or None while it is not."""
        if epochs_done >= run.max_epochs:
            return "max_epochs"
        if run.patience and self.stale_epochs >= run.patience:
            return "early_stopping"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """Rebuild the history from what ``to_dict`` returned."""
        return cls(**values)


def _finite(value: float) -> float | None:
    # A curve has a gap where a value is NaN or infinite.
    return value if abs(value) < float("inf") else None
