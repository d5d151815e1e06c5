"""The imported runs that are drawn over the curves, and their readings along the selected x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.statistics import smooth
from jsc_explore.charts.style import METRIC_PAIRS
from jsc_explore.config import format_value
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store.query.curves import LR_SUM

# More dashed lines than these cannot be told apart.
MAX_DRAWN = 6
MAX_READINGS = 1500
_PARTS = {"val": "validation", "train_eval": "training, evaluation mode", "train": "training, training mode"}
TABLE = pa.schema(
    [(name, pa.string()) for name in ("name", "quantity", "label")]
    + [(name, pa.float64()) for name in ("x", "value", "smooth")]
)


def select_imported(runs: Sequence[ImportedRun], names: Sequence[str] | None) -> tuple[list[ImportedRun], list[str]]:
    """Return the runs to draw, by default the first few, and notes about named runs that are not drawn."""
    known = {run.name: run for run in runs}
    wanted = list(known) if names is None else list(names)
    found = [known[name] for name in wanted if name in known]
    notes = [f"not imported here: {name}" for name in wanted if name not in known]
    if len(found) > MAX_DRAWN:
        notes.append(f"{MAX_DRAWN} of {len(found)} imported runs are drawn: select them under Imported")
    return found[:MAX_DRAWN], notes


def readings_table(
    runs: Sequence[ImportedRun],
    x: str,
    metric: str,
    *,
    x_range: tuple[float, float] | None = None,
    log: tuple[bool, bool] = (False, False),
    smoothing: float = 0.0,
) -> tuple[pa.Table, list[str]]:
    """Return the readings of runs as ``charts.imported`` draws them, and notes about thinned or missing ones.

    ``metric`` is one quantity, or ``acc`` or ``loss`` for those of validation and training, the latter also in training
    mode, as other programs log it. ``x_range`` selects a range of ``x``; readings that are not above zero are left out
    on the logarithmic axes, of x and y, in ``log``.
    """
    parts = [TABLE.empty_table()]
    notes: list[str] = []
    for run in runs:
        pair = (*METRIC_PAIRS[metric], f"train_{metric}") if metric in METRIC_PAIRS else ()
        lines = [_line(run, x, quantity, bool(pair), x_range, log, smoothing) for quantity in pair or (metric,)]
        parts += [line for line, _, _, _ in lines]
        if (stride := max(stride for _, stride, _, _ in lines)) > 1:
            notes.append(f"Of {run.name} one reading in {stride} is drawn; zoom in to see all")
        if hidden := sum(hidden for _, _, _, hidden in lines):
            count = "1 reading is" if hidden == 1 else f"{hidden} readings are"
            notes.append(f"of {run.name} {count} not above zero, which a logarithmic axis cannot show")
        if not any(found for _, _, found, _ in lines):
            notes.append(f"the imported run {run.name} has no such readings: select another metric or x axis")
    return pa.concat_tables(parts), notes


# Cached because a live page calls it at every refresh; a run of 40,000 points takes 0.16 s.
@lru_cache(maxsize=128)
def _line(
    run: ImportedRun,
    x: str,
    quantity: str,
    together: bool,
    x_range: tuple[float, float] | None,
    log: tuple[bool, bool],
    smoothing: float,
) -> tuple[pa.Table, int, bool, int]:
    """Return the readings of one line, the stride by which they are thinned, and whether the run has any at all.

    Last, the number of readings that the logarithmic axes cannot show.
    """
    part = f", {_PARTS[quantity.rpartition('_')[0]]}" if together else ""
    known = [
        (position, float(value))
        for position, value in zip(_positions(run, x), (point[quantity] for point in run.points), strict=True)
        if position is not None and value is not None
    ]
    inside = [pair for pair in known if x_range is None or x_range[0] <= pair[0] <= x_range[1]]
    pairs = [(position, value) for position, value in inside
             if (position > 0 or not log[0]) and (value > 0 or not log[1])]  # fmt: skip
    values = [value for _, value in pairs]
    stride = max(1, -(-len(pairs) // MAX_READINGS))
    rows = [
        {"name": run.name, "quantity": quantity, "label": f"imported: {run.name}{part}", "x": position, "value": value,
         "smooth": level}
        for i, ((position, value), level) in enumerate(
            zip(pairs, smooth(values, smoothing) if smoothing else values, strict=True))
        if i % stride == 0 or i == len(pairs) - 1
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=TABLE), stride, bool(known), len(inside) - len(pairs)


def last_epoch(runs: Sequence[ImportedRun]) -> float:
    """Return the last epoch of all runs, 0 if none is known."""
    return max((float(point["epoch"] or 0) for run in runs for point in run.points[-1:]), default=0.0)


def runs_table(runs: Sequence[ImportedRun]) -> pa.Table:
    """Return one row a run: name, final metrics, hyperparameters, and other values of its files."""
    rows = []
    for run in runs:
        last = {name: _last(run, name) for name in ("val_acc", "val_loss", "train_acc")}
        other = {**run.other, **({"notes": "; ".join(run.notes)} if run.notes else {})}
        rows.append(
            {"run": run.name, **last, "test_acc": run.test_acc, "test_loss": run.test_loss, **_texts(run.fields),
             "other": ", ".join(f"{name} = {value}" for name, value in other.items()), "source": run.source,
             "imported": run.imported_at}
        )  # fmt: skip
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: format_value(name, value) for name, value in fields.items()}


def _last(run: ImportedRun, quantity: str) -> float | None:
    values = [point[quantity] for point in run.points if point[quantity] is not None]
    return float(values[-1]) if values and values[-1] is not None else None


def _positions(run: ImportedRun, x: str) -> list[float | None]:
    if x != LR_SUM:
        return [None if (value := point[x]) is None else float(value) for point in run.points]
    total, before = 0.0, 0
    sums: list[float | None] = []
    for point in run.points:
        step, rate = point["step"], point["learning_rate"]
        if step is None or rate is None:
            sums.append(None)
            continue
        # The rate recorded at a point is that of the steps since the point before it.
        total, before = total + float(rate) * (int(step) - before), int(step)
        sums.append(total)
    return sums
