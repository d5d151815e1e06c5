"""The result of a run: the points of its curve, its outcome, and its record in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsc_explore.data.jets import CLASSES

# The quantities of a point, with their descriptions. A quantity that was not measured at a point is None.
POINT_FIELDS: Mapping[str, str] = {
    "step": "optimizer steps taken so far",
    "epoch": "epochs done so far, a fraction within an epoch",
    "samples": "training jets seen so far",
    "train_loss": "mean cross-entropy of the training batches since the previous point, in training mode",
    "train_acc": "accuracy of the same batches",
    "train_eval_loss": "cross-entropy of training jets in evaluation mode, after each epoch: of as many as the "
    "validation part has; val_loss itself where that is the training part",
    "train_eval_acc": "accuracy on the same jets in evaluation mode",
    "val_loss": "cross-entropy of the whole validation part, in evaluation mode",
    "val_acc": "accuracy on the whole validation part, in evaluation mode",
    "learning_rate": "learning rate of the last step",
    "time_s": "own seconds in optimizer steps so far, as in train_time_s",
    **{
        f"recall_{name}": f"recall of class {name}: share of its validation jets that are predicted as {name}"
        for name in CLASSES
    },
}
INTEGER_QUANTITIES = frozenset({"step", "samples"})
# Prefix of the columns of a run that hold its curve, one list per quantity.
CURVE_PREFIX = "curve_"

# The points of a stored ROC curve. They include 0.5, where background rejection is quoted, and leave out 0 and 1.
SIGNAL_EFFICIENCIES = (*(k / 50 for k in range(1, 50)), 0.99)

Point = dict[str, float | int | None]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a finished run. ``status`` is ``done`` or ``diverged``; None stands for an unknown value.

    Test metrics without a prefix are of the last weights, those with ``best_`` of the weights with the lowest
    validation loss. Of the best weights are also ``auc``, ``rejection`` (background rejection at 50% signal efficiency,
    one class against the rest), ``roc`` (background efficiencies at ``SIGNAL_EFFICIENCIES``, class after class),
    ``confusion`` (25 counts, rows are true classes) and ``weights`` (safetensors). A diverged run has its curve up to
    ``diverged_step``.
    """

    status: str
    stop_reason: str
    points: list[Point]
    epochs_run: int
    steps: int
    diverged_step: int | None = None
    best_epoch: int | None = None
    train_loss: float | None = None
    train_acc: float | None = None
    train_eval_loss: float | None = None
    train_eval_acc: float | None = None
    val_loss: float | None = None
    val_acc: float | None = None
    best_val_loss: float | None = None
    best_val_acc: float | None = None
    test_loss: float | None = None
    test_acc: float | None = None
    best_test_loss: float | None = None
    best_test_acc: float | None = None
    auc: list[float | None] | None = None
    rejection: list[float | None] | None = None
    roc: list[float | None] | None = None
    confusion: list[int] | None = None
    silent_classes: list[str] = field(default_factory=list)
    zero_output_share: float | None = None
    train_rows: int = 0
    val_rows: int = 0
    test_rows: int = 0
    train_time_s: float = 0.0
    wall_share_s: float | None = None
    wall_time_s: float = 0.0
    replicas: int = 1
    peak_memory_mb: float = 0.0
    device: str = "cpu"
    backend: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    weights: bytes = b""


@dataclass(frozen=True)
class RunRecord:
    """A run as it is stored: identity, config and outcome."""

    run_id: str
    config_id: str
    data_digest: str
    recipe_version: int
    config: dict[str, Any]
    parameters: int
    outcome: Outcome
    created_at: str
