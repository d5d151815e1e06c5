"""What a view of the Explore page shows, in words: its title, the values that are held fixed, its counts of runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jsc_explore import __version__
from jsc_explore.analysis.cells import Cell
from jsc_explore.charts.figure import Heading
from jsc_explore.charts.style import SILENT_SIGN
from jsc_explore.config import FIELDS, display_value, format_value
from jsc_explore.store.query.filters import Between
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.slice import Slice

# Above this share of runs with a silent class, the final ReLU hides what the axes of the grid change.
SILENT_SHARE = 0.25
# Fields in the order of how often they are changed. The data set is last: all that is shown is of one.
_ORDER = (
    "model", "max_epochs", "batch_size", "learning_rate", "final_relu", "validation", "optimizer", "scheduler",
    "momentum", "weight_decay", "patience", "precision", "dataset",
)  # fmt: skip
_TITLE = ("model", "max_epochs")
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}


def title(slice: Slice) -> str:
    """Return what is seen in one short line: metric, network and epochs where they are held fixed."""
    metric = METRICS[slice.metric].split(",")[0]
    if slice.metric.startswith("best_"):
        metric += " of the best epoch"
    fixed = [held_text(slice, name) for name in _TITLE if name not in (*slice.axes, *slice.several)]
    return " · ".join([metric[0].upper() + metric[1:], *fixed])


def held_fields(slice: Slice) -> list[str]:
    """Return the fields on no axis whose value can change a result, the most used first."""
    return [name for name in _ORDER if name not in slice.axes and slice.base.is_relevant(name)]


def held_text(slice: Slice, name: str) -> str:
    """Return the value at which a field is held, or the values that pass its filter: final ReLU on, Adam or SGD."""
    allowed, label = slice.filters.get(name), FIELDS[name].inline_label
    if allowed is None:
        return f"any {label}"
    if isinstance(allowed, Between):
        if allowed.low < allowed.high:
            return f"{label} {format_value(name, allowed.low)} to {format_value(name, allowed.high)}"
        return _value_text(name, allowed.low)
    if len(allowed) == 1:
        return _value_text(name, allowed[0])
    return f"{label} {' or '.join(display_value(name, value) for value in allowed)}"


def fixed_text(slice: Slice, *, beside_title: bool = False) -> str:
    """Return all values that are held fixed and the filter expression, in one line; or only those not in the title."""
    where = [f"where {slice.text}"] if slice.text else []
    in_title = [name for name in _TITLE if name not in slice.several] if beside_title else []
    return " · ".join([*(held_text(slice, name) for name in held_fields(slice) if name not in in_title), *where])


def axes_text(slice: Slice) -> str:
    """Return the axes: by batch size and learning rate."""
    *names, last = [FIELDS[name].inline_label for name in slice.axes]
    return f"by {', '.join(names)} and {last}"


def counts_text(slice: Slice, cells: Sequence[Cell]) -> str:
    """Return how many runs the grid shows, how many of its cells have none, and the filter expression."""
    runs, missing = count_runs(slice, cells), sum(cell.state == "missing" for cell in cells)
    where = f", where {slice.text}" if slice.text else ""
    return f"{runs:,} run{'s' if runs != 1 else ''}, {missing} of {len(cells)} cells missing{where}"


def count_runs(slice: Slice, cells: Sequence[Cell]) -> int:
    """Return the number of runs in the grid; cells of one config show the same runs."""
    return sum({slice.place_of(cell.config): cell.n + cell.n_diverged for cell in cells}.values())


def silent_runs_text(slice: Slice, cells: Sequence[Cell]) -> str:
    """Return how many runs have a silent class, where the final ReLU is on and these are many; else empty."""
    if slice.base.final_relu is False or "final_relu" in (*slice.axes, *slice.several):
        return ""
    silent = sum({slice.place_of(cell.config): cell.n_silent for cell in cells}.values())
    runs = count_runs(slice, cells)
    if not silent or silent < SILENT_SHARE * runs:
        return ""
    return f"† In {silent:,} of {runs:,} runs a class is never predicted."


def export_heading(slice: Slice, now: datetime) -> Heading:
    """Return what stands above a chart of the view in a file: title, fixed values, signs, data, date and version."""
    return Heading(
        f"{title(slice)}, {axes_text(slice)}",
        (f"Held fixed: {fixed_text(slice)}", f"{SILENT_SIGN}.", export_note(slice.digest, now)),
    )


def export_note(digest: str, now: datetime) -> str:
    """Return which jets were trained on, by their digest, when the file was made, and with which version."""
    return f"Data {digest[:12]}; exported on {now:%Y-%m-%d} by JSC Explore {__version__}."


def _value_text(name: str, value: Any) -> str:
    shown = display_value(name, value)
    if name == "model":
        return shown
    if name == "max_epochs":
        return f"{shown} epoch{'s' if value != 1 else ''}"
    if name == "final_relu":
        return f"final ReLU {'on' if value else 'off'}"
    if name == "validation":
        return f"validated on {shown.partition(' (')[0]}"
    if name == "optimizer":
        return _OPTIMIZERS[value]
    if name == "scheduler":
        return f"{shown} schedule"
    if name == "dataset":
        return f"{shown} jets"
    if name == "patience" and not value:
        return "no early stopping"
    if name == "weight_decay" and not value:
        return "no weight decay"
    return f"{FIELDS[name].inline_label} {shown}"
