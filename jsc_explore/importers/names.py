"""The table of names that other programs give to our quantities, for every reader alike; case does not matter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from jsc_explore.errors import FieldError
from jsc_explore.results import POINT_FIELDS

POSITIONS: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "_step", "global_step", "trainer/global_step"),
    "epoch": ("epoch",),
    "time_s": ("time_s", "_runtime", "relative time", "wall time", "wall_time", "_timestamp"),
}
TESTS = ("test_acc", "test_loss")
QUANTITIES = tuple(name for name in POINT_FIELDS if name not in POSITIONS and name != "samples")
_WORDS = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "acc": "acc", "accuracy": "acc", "loss": "loss",
}  # fmt: skip
# Lightning adds one of these suffixes; which value shows most is known for each part of the data.
_SUFFIXES = {"train": ("step", "", "epoch"), "val": ("epoch", "", "step"), "test": ("epoch", "", "step")}
# Lightning's monitor also logs these of an optimizer: lr-SGD-momentum.
_OTHER_RATES = {"momentum", "weight", "decay"}
MAX_LISTED = 8


def position_of(name: str) -> str | None:
    """Return the position (step, epoch, time_s) that a column name means, None if it means none."""
    return next((position for position, names in POSITIONS.items() if name.strip().lower() in names), None)


def quantity_of(tag: str) -> tuple[str, int] | None:
    """Return the quantity that a tag means and its rank among the tags of that quantity, None if it is not plain."""
    lower = tag.strip().lower()
    if lower in QUANTITIES or lower in TESTS:
        return lower, 1
    parts = [part for part in re.split(r"[^0-9a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", tag).lower()) if part]
    suffix = parts.pop() if len(parts) > 1 and parts[-1] in ("step", "epoch") else ""
    if (rate := _rate_rank(parts)) is not None:
        return "learning_rate", rate
    if len(parts) != 2:
        return None
    if parts[0] == "recall" and "_".join(parts) in QUANTITIES:
        return "_".join(parts), 1
    words = {_WORDS.get(part, "") for part in parts}
    part, metric = words & set(_SUFFIXES), words & {"acc", "loss"}
    if not part or not metric:
        return None
    (data,), (kind,) = part, metric
    return f"{data}_{kind}", _SUFFIXES[data].index(suffix)


def _rate_rank(parts: Sequence[str]) -> int | None:
    plain = "_".join(parts).replace("learning_rate", "lr").split("_")
    if plain in (["lr"], ["train", "lr"], ["lr", "train"]):
        return 1
    return 2 if plain[0] == "lr" and not _OTHER_RATES & set(plain) else None


def select_tags(
    tags: Iterable[str], mapping: Mapping[str, str], ignored: Iterable[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Return quantity -> the tag that is read for it, and notes on tags that are not read.

    ``mapping`` (tag -> quantity) is what the user said; it wins. ``ignored`` need no note.
    """
    ranked: dict[str, list[tuple[int, bool, str]]] = {}
    unknown: list[str] = []
    for tag in tags:
        if tag in mapping:
            ranked.setdefault(mapping[tag], []).append((-1, False, tag))
        elif found := quantity_of(tag):
            ranked.setdefault(found[0], []).append((found[1], tag != found[0], tag))
        elif tag not in ignored:
            unknown.append(tag)
    chosen = {quantity: min(candidates)[2] for quantity, candidates in ranked.items()}
    notes = [f"not read, because their meaning is not plain: {listed(unknown)} (--map TAG=QUANTITY)"] if unknown else []
    for quantity, candidates in ranked.items():
        if others := sorted(tag for _, _, tag in candidates if tag != chosen[quantity]):
            notes.append(f"{quantity} is read from {printable(chosen[quantity])}, not from {listed(others)}")
    return chosen, notes


def check_mapping(texts: Iterable[str]) -> dict[str, str]:
    """Return tag -> quantity of ``TAG=QUANTITY``. Raises FieldError for another form or an unknown quantity."""
    mapping: dict[str, str] = {}
    for text in texts:
        tag, equals, quantity = text.rpartition("=")
        if not equals or not tag:
            raise FieldError("map", text, "must be TAG=QUANTITY", "try --map val/accuracy=val_acc")
        if quantity not in (*QUANTITIES, *TESTS):
            known = ", ".join((*QUANTITIES, *TESTS))
            raise FieldError("map", text, f"{quantity} is no quantity", f"take one of {known}")
        mapping[tag] = quantity
    return mapping


def listed(names: Iterable[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    ordered = sorted(names)
    more = len(ordered) - MAX_LISTED
    shown = ", ".join(map(printable, ordered[:MAX_LISTED]))
    return f"{shown} and {more} more" if more > 0 else shown


def printable(name: str) -> str:
    """Return a name of another program for a message: one line, without control characters, at most 60 characters."""
    return "".join(char if char.isprintable() else "?" for char in name[:60])
