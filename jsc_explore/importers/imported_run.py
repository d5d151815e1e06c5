"""An imported run, and the conversion of another program's logged values to the points of a curve."""

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
# Values per run: ten times what the lab logs in ten epochs, and still small enough for a page's memory.
MAX_POINTS = 300_000
EPOCH = "epoch"
# Quantity -> its names in the lab's training script and Lightning's loggers; the first one present is used.
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
    """One value that a logger wrote, with its step and its time in seconds."""

    step: int
    time_s: float
    value: float


@dataclass(frozen=True)
class ImportedRun:
    """A run that another program trained; it never counts as a seed of a config and is in no median.

    ``name`` comes from its folder or from the column ``run``, ``source`` is the file name without folders, ``sha256``
    that of the content read. ``fields`` are the hyperparameters that RunConfig has too, ``other`` the rest as text.
    ``notes`` say what could not be read. A point has None for epoch, time or samples if the source lacks them.
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
        # Charts of a run are cached by the run.
        return hash((self.name, self.sha256))


def hyperparameters(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Split hyperparameters into those that RunConfig has, converted and checked, and the rest as text."""
    fields: dict[str, Any] = {}
    other: dict[str, str] = {}
    for raw, value in found.items():
        # Some programs nest names (optimizer.lr): the last part counts.
        name = ALIASES.get(last := raw.rsplit(".", 1)[-1].replace("-", "_").lower(), last)
        text = str(value).strip()
        try:
            if name not in FIELDS or name in fields:
                raise FieldError(name, value, "is not a field of RunConfig", "it is kept as text")
            fields[name] = parse_value(name, text.lower() if FIELDS[name].kind == "choice" else text)
        except FieldError:
            if len(other) < MAX_OTHER:
                other[raw[:MAX_NAME]] = text[:MAX_TEXT]
    return fields, other


def points_from_series(
    series: Mapping[str, Sequence[LoggedValue]], batch_size: int | None = None
) -> tuple[list[Point], list[str]]:
    """Return the points of a run, ordered by step, from the logged values of each tag, and notes on skipped values.

    Lightning counts steps and epochs from zero and logs a tag ``epoch``: its step 49 means 50 steps done, its epoch 0
    at a validation means one epoch done. Without that tag steps are used unchanged and epochs are unknown.
    """
    lightning = EPOCH in series
    shift = 1 if lightning else 0
    chosen = {name: tag for name, tags in TAGS.items() if (tag := next((t for t in tags if t in series), None))}
    # Lightning's LearningRateMonitor names the tag after the optimizer: lr-Adam.
    if rate := next((tag for tag in series if tag.startswith("lr-")), None):
        chosen.setdefault("learning_rate", rate)
    chosen |= {name: name for name in POINT_FIELDS if name.startswith("recall_") and name in series}
    points: dict[int, Point] = {}
    dropped = 0
    start = min((logged.time_s for values in series.values() for logged in values), default=0.0)
    for name, tag in chosen.items():
        for step, time_s, value in series[tag]:
            if not math.isfinite(value):
                dropped += 1
                continue
            point = points.setdefault(step + shift, dict.fromkeys(POINT_FIELDS))
            # A resumed run may log a step twice: the last value counts.
            point |= {"step": step + shift, name: value, "time_s": max(0.0, time_s - start)}
            if batch_size:
                point["samples"] = (step + shift) * batch_size
    ordered = [points[step] for step in sorted(points)]
    if lightning and ordered:
        ends = _epoch_ends(series, [chosen[name] for name in ("val_acc", "val_loss") if name in chosen])
        _set_epochs(ordered, ends)
    return ordered, [f"{dropped} values are not finite and are skipped"] if dropped else []


def final_test_metrics(series: Mapping[str, Sequence[LoggedValue]]) -> tuple[float | None, float | None]:
    """Return the last logged test accuracy and test loss, None if a source lacks them."""
    found: list[float | None] = []
    for tags in TEST_TAGS.values():
        tag = next((tag for tag in tags if tag in series), None)
        values = [logged.value for logged in series[tag] if math.isfinite(logged.value)] if tag else []
        found.append(values[-1] if values else None)
    return found[0], found[1]


def has_known_tags(series: Mapping[str, Sequence[LoggedValue]]) -> bool:
    """Return whether a source has a tag that a curve can show."""
    names = {tag for tags in TAGS.values() for tag in tags}
    return any(tag in names and series[tag] for tag in series)


def _epoch_ends(series: Mapping[str, Sequence[LoggedValue]], tags: Sequence[str]) -> dict[int, int]:
    """Return epochs done -> steps done at that moment, which is the epoch's last validation."""
    epochs = {logged.step: int(logged.value) for logged in series[EPOCH] if math.isfinite(logged.value)}
    ends: dict[int, int] = {}
    for tag in tags:
        for logged in series[tag]:
            if (epoch := epochs.get(logged.step)) is not None:
                ends[epoch + 1] = max(ends.get(epoch + 1, 0), logged.step + 1)
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
