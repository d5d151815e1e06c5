"""An imported run, and the one rule by which its hyperparameters are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsc_explore.config import FIELDS, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.importers.names import printable
from jsc_explore.results import Point

MAX_NAME, MAX_TEXT, MAX_OTHER = 120, 500, 200
# Values per run: ten times what the lab logs in ten epochs, and still small enough for a page's memory.
MAX_POINTS = 300_000
ALIASES: Mapping[str, str] = {
    "lr": "learning_rate", "epochs": "max_epochs", "num_epochs": "max_epochs", "n_epochs": "max_epochs",
    "wd": "weight_decay", "bs": "batch_size", "batchsize": "batch_size", "optim": "optimizer",
    "training_optimizer": "optimizer", "network": "model", "lr_scheduler": "scheduler", "random_seed": "seed",
}  # fmt: skip
_NOT_TRAINING = {"test", "testing", "val", "valid", "validation", "eval", "evaluation", "predict"}


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


def hyperparameters(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Split hyperparameters into those that RunConfig has, converted and checked, and the rest as text; and notes.

    Some programs nest names (optimizer.lr): the last part counts, unless two of them differ. A value for testing or
    validation (data.test.batch_size) is none of the training; an empty one says nothing.
    """
    values: dict[str, dict[str, Any]] = {}
    other: dict[str, str] = {}
    for raw, value in found.items():
        text = "" if value is None else str(value).strip()
        *parents, last = raw.split(".")
        name = field_of(last)
        if not text:
            continue
        if name is not None and not any(_NOT_TRAINING & set(re.split(r"[^a-z]+", part.lower())) for part in parents):
            try:
                values.setdefault(name, {})[raw] = parse_number(name, text)
                continue
            except FieldError:
                pass
        if len(other) < MAX_OTHER:
            other[raw[:MAX_NAME]] = text[:MAX_TEXT]
    fields: dict[str, Any] = {}
    notes: list[str] = []
    for name, ours in values.items():
        # A name that is not nested is the run's own.
        top = {raw: value for raw, value in ours.items() if "." not in raw} or ours
        if len(set(top.values())) == 1:
            fields[name] = next(iter(top.values()))
        else:
            given = ", ".join(f"{printable(raw)} = {value}" for raw, value in top.items())
            notes.append(f"{name} is left out, because it is ambiguous: {given}")
            other |= {raw[:MAX_NAME]: str(value)[:MAX_TEXT] for raw, value in top.items()}
    return fields, other, notes


def field_of(name: str) -> str | None:
    """Return the field of RunConfig that a name means, None if there is none."""
    plain = name.strip().replace("-", "_").lower()
    plain = ALIASES.get(plain, plain)
    return plain if plain in FIELDS else None


def parse_number(name: str, text: str) -> Any:
    """Return a field's value: 64.0 and 6.4e1 are 64, capitals do not matter. Raises FieldError if it is invalid."""
    kind = FIELDS[name].kind
    if kind == "int":
        try:
            number = float(text)
        except ValueError:
            return parse_value(name, text)
        if number.is_integer() and abs(number) < 2**53:
            text = str(int(number))
    return parse_value(name, text.lower() if kind == "choice" else text)
