"""What an imported run is, and how the readings of another program's logger become the points of a curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jsc_explore.config import FIELDS, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.results import POINT_FIELDS, Point

MAX_NAME, MAX_TEXT, MAX_OTHER = 120, 500, 200
# Values of one run: ten times what the lab logs in ten epochs, and no more than a page can hold in memory.
MAX_POINTS = 300_000
EPOCH = "epoch"
# What the lab's harness, and Lightning's loggers, call what is recorded here; the first that is there counts.
TAGS: Mapping[str, tuple[str, ...]] = {
    "train_acc": ("train_acc_step", "train_acc", "train_acc_epoch"),
    "train_loss": ("train_loss_step", "train_loss", "train_loss_epoch"),
    "val_acc": ("val_acc_epoch", "val_acc"),
    "val_loss": ("val_loss_epoch", "val_loss"),
    "learning_rate": ("learning_rate", "lr"),
}
TEST_TAGS: Mapping[str, tuple[str, ...]] = {
    "test_acc": ("test_acc_epoch", "test_acc"),
    "test_loss": ("test_loss_epoch", "test_loss"),
}
ALIASES: Mapping[str, str] = {
    "lr": "learning_rate", "epochs": "max_epochs", "num_epochs": "max_epochs", "n_epochs": "max_epochs",
    "wd": "weight_decay", "bs": "batch_size", "batchsize": "batch_size", "optim": "optimizer",
    "training_optimizer": "optimizer", "network": "model", "lr_scheduler": "scheduler", "random_seed": "seed",
}  # fmt: skip


class LoggedValue(NamedTuple):
    """One value a logger wrote: the step it gave, the time in seconds, the value."""

    step: int
    time_s: float
    value: float


@dataclass(frozen=True)
class ImportedRun:
    """A run that another program trained: never a seed of a config of ours, never part of a mean.

    ``name`` is what its folder or column calls it, ``source`` the file's name alone, ``sha256`` that of what was read.
    ``fields`` are the hyperparameters that correspond to ours, ``other`` the rest as text. ``notes`` say what could not
    be read. Points may lack an epoch, a time or jets where the source does not tell.
    """

    name: str
    kind: str
    source: str
    sha256: str
    fields: dict[str, Any]
    other: dict[str, str]
    points: list[Point]
    test_acc: float | None = None
    test_loss: float | None = None
    notes: list[str] = field(default_factory=list)
    imported_at: str = ""

    def __hash__(self) -> int:
        # What is drawn of a run is remembered by the run.
        return hash((self.name, self.sha256))


def hyperparameters(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide what a source calls hyperparameters: those that are fields of ours, checked; the rest as text."""
    fields: dict[str, Any] = {}
    other: dict[str, str] = {}
    for raw, value in found.items():
        # mase nests nothing, others write optimizer.lr: the last part is the name.
        name = ALIASES.get(last := raw.rsplit(".", 1)[-1].replace("-", "_").lower(), last)
        text = str(value).strip()
        try:
            if name not in FIELDS or name in fields:
                raise FieldError(name, value, "is no field of ours", "it is kept as text")
            fields[name] = parse_value(name, text.lower() if FIELDS[name].kind == "choice" else text)
        except FieldError:
            if len(other) < MAX_OTHER:
                other[raw[:MAX_NAME]] = text[:MAX_TEXT]
    return fields, other


def points_from_series(
    series: Mapping[str, Sequence[LoggedValue]], batch_size: int | None = None
) -> tuple[list[Point], list[str]]:
    """Return the points of a run from the readings of each tag, ordered by step, and what must be said about them.

    Lightning counts steps and epochs from zero and writes a tag ``epoch`` beside the others: its step 49 is 50 steps
    done, its epoch 0 at a validation one epoch done. Without that tag steps are taken as they stand, epochs as unknown.
    """
    lightning = EPOCH in series
    shift = 1 if lightning else 0
    chosen = {name: tag for name, tags in TAGS.items() if (tag := next((t for t in tags if t in series), None))}
    # Lightning's monitor of learning rates names them after the optimizer: lr-Adam.
    if rate := next((tag for tag in series if tag.startswith("lr-")), None):
        chosen.setdefault("learning_rate", rate)
    chosen |= {name: name for name in POINT_FIELDS if name.startswith("recall_") and name in series}
    points: dict[int, Point] = {}
    dropped = 0
    begin = min((reading.time_s for readings in series.values() for reading in readings), default=0.0)
    for name, tag in chosen.items():
        for step, time_s, value in series[tag]:
            if not math.isfinite(value):
                dropped += 1
                continue
            point = points.setdefault(step + shift, dict.fromkeys(POINT_FIELDS))
            # A point that was written twice, by a run taken up again, counts as it was written last.
            point |= {"step": step + shift, name: value, "time_s": max(0.0, time_s - begin)}
            if batch_size:
                point["samples"] = (step + shift) * batch_size
    ordered = [points[step] for step in sorted(points)]
    if lightning and ordered:
        ends = _epoch_ends(series, [chosen[name] for name in ("val_acc", "val_loss") if name in chosen])
        _set_epochs(ordered, ends)
    return ordered, [f"{dropped} values are not finite and are left out"] if dropped else []


def final_test_metrics(series: Mapping[str, Sequence[LoggedValue]]) -> tuple[float | None, float | None]:
    """Return test accuracy and test loss where a source holds them, the latest of each."""
    found: list[float | None] = []
    for tags in TEST_TAGS.values():
        tag = next((tag for tag in tags if tag in series), None)
        values = [reading.value for reading in series[tag] if math.isfinite(reading.value)] if tag else []
        found.append(values[-1] if values else None)
    return found[0], found[1]


def has_known_tags(series: Mapping[str, Sequence[LoggedValue]]) -> bool:
    """Whether a source holds anything that a curve here can show."""
    names = {tag for tags in TAGS.values() for tag in tags}
    return any(tag in names and series[tag] for tag in series)


def _epoch_ends(series: Mapping[str, Sequence[LoggedValue]], tags: Sequence[str]) -> dict[int, int]:
    """Return, for each number of epochs done, the step at which they were: that of the epoch's last validation."""
    epochs = {reading.step: int(reading.value) for reading in series[EPOCH] if math.isfinite(reading.value)}
    ends: dict[int, int] = {}
    for tag in tags:
        for reading in series[tag]:
            if (epoch := epochs.get(reading.step)) is not None:
                ends[epoch + 1] = max(ends.get(epoch + 1, 0), reading.step + 1)
    return ends


def _set_epochs(points: Sequence[Point], ends: Mapping[int, int]) -> None:
    if not ends:
        return
    done = sorted(ends)
    steps = np.array([0, *(ends[epoch] for epoch in done)], float)
    epochs = np.array([0, *done], float)
    if (np.diff(steps) <= 0).any():
        return
    rate = (epochs[-1] - epochs[-2]) / (steps[-1] - steps[-2])
    for point in points:
        step = float(point["step"] or 0)
        beyond = max(0.0, step - steps[-1])
        point["epoch"] = float(np.interp(step, steps, epochs) + rate * beyond)
