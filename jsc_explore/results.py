"""What a run leaves behind: the points of its curve and its outcome. Shared by training, jobs, store and charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsc_explore.data.jets import CLASSES

# One point: quantity -> what it is. A quantity that was not measured at a point is None.
POINT_FIELDS: Mapping[str, str] = {
    "step": "optimizer steps done",
    "epoch": "epochs done, with a fraction inside an epoch",
    "samples": "training jets seen",
    "train_loss": "mean cross-entropy of the training batches since the point before, in training mode",
    "train_acc": "accuracy of the same batches",
    "val_loss": "cross-entropy on the whole validation part, in evaluation mode",
    "val_acc": "accuracy on the whole validation part",
    "learning_rate": "learning rate of the last step",
    "time_s": "seconds spent in optimizer steps so far, of the whole stack",
    **{f"recall_{name}": f"share of validation jets of class {name} that are recognised" for name in CLASSES},
}
WHOLE_NUMBERS = frozenset({"step", "samples"})
# Columns of a run that hold its curve, a list each, are named by this and the quantity.
CURVE_PREFIX = "curve_"

# Where a ROC curve is kept: the half that a rejection is quoted at is among them, the trivial ends are not.
SIGNAL_EFFICIENCIES = (*(place / 50 for place in range(1, 50)), 0.99)

Point = dict[str, float | int | None]


@dataclass(frozen=True)
class Outcome:
    """A finished run. ``status`` is ``done`` or ``diverged``; a diverged run keeps its curve up to ``diverged_step``.

    Test figures without prefix belong to the last weights, with ``best_`` to the weights of the lowest validation
    loss; ``auc``, ``rejection`` (background rejection at 50% signal efficiency, one class against the rest), ``roc``
    (background efficiencies at ``SIGNAL_EFFICIENCIES``, class after class, None for one without jets), ``confusion``
    (25 counts, true class major) and ``weights`` (safetensors) to the best ones too. None: not known.
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
    train_rows: int = 0
    val_rows: int = 0
    test_rows: int = 0
    train_time_s: float = 0.0
    wall_time_s: float = 0.0
    replicas: int = 1
    peak_memory_mb: float = 0.0
    device: str = "cpu"
    backend: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    weights: bytes = b""


@dataclass(frozen=True)
class RunRecord:
    """An outcome with its identity: one row of the store."""

    run_id: str
    config_id: str
    data_digest: str
    recipe_version: int
    config: dict[str, Any]
    parameters: int
    outcome: Outcome
    created_at: str
