"""The one place where logged values become the points of a curve; every reader passes through its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jsc_explore.errors import FieldError
from jsc_explore.importers.names import TESTS, printable, select_tags
from jsc_explore.results import POINT_FIELDS, Point

EPOCH = "epoch"
# Steps above are times (nanoseconds); times a batch size they would leave 64 bits.
MAX_STEP, MAX_EPOCH = 10**12, 10**9
ROUNDING = 1e-6
# Seconds by which clocks of several writers may differ.
_JITTER_S = 1.0


class LoggedValue(NamedTuple):
    """One value that a logger wrote. ``order`` is its place in the source: the line of a table, the number of an event.

    ``time_s`` is in seconds from any start; ``epoch`` counts epochs done, if the source says it beside the value.
    """

    step: int | None
    time_s: float | None
    value: float
    epoch: float | None = None
    order: int = 0


Series = Mapping[str, Sequence[LoggedValue]]


@dataclass(frozen=True)
class CheckedCurve:
    """The points of a run ordered by step, its last test accuracy and loss, and notes on what was left out."""

    points: list[Point]
    test_acc: float | None = None
    test_loss: float | None = None
    notes: list[str] = field(default_factory=list)


def checked_curve(
    run: str,
    series: Series,
    *,
    mapping: Mapping[str, str] | None = None,
    batch_size: int | None = None,
    restarts: Sequence[tuple[int, int]] = (),
    is_table: bool = False,
) -> CheckedCurve:
    """Return the curve of one run from the logged values of each tag.

    Lightning counts steps and epochs from zero and logs a tag ``epoch``: its step 49 means 50 steps done. Without that
    tag steps are used unchanged. ``restarts`` has (order, step) of each restart that the source itself states. Raises
    FieldError, naming tag and value, if a share, a step, an epoch or a time is impossible.
    """
    chosen, notes = select_tags(series, mapping or {}, ignored=(EPOCH, "samples"))
    is_lightning = EPOCH in series
    good: dict[str, list[LoggedValue]] = {}
    dropped = 0
    for quantity, tag in (chosen | {name: name for name in ("samples", EPOCH) if name in series}).items():
        kept = []
        name = printable(tag)
        for logged in series[tag]:
            if not math.isfinite(logged.value):
                dropped += 1
                continue
            place = f"line {logged.order}, column {name}" if is_table else f"run {printable(run)}, tag {name}"
            kept.append(_checked(quantity, logged, place, is_table))
        if kept:
            good[quantity] = kept
    if dropped:
        notes.append("1 value is not finite and is left out" if dropped == 1 else
                     f"{dropped} values are not finite and are left out")  # fmt: skip
    tests = {name: found[-1].value for name in TESTS if (found := good.pop(name, None))}
    good, more = _without_abandoned(good, restarts, is_table)
    epochs = good.pop(EPOCH, [])
    points = _points(good, 1 if is_lightning else 0, batch_size, is_table)
    if is_lightning and points:
        epoch_tags = [q for q, tag in chosen.items() if q.startswith("val_") or tag.endswith("_epoch")]
        has_ends = any(good.get(quantity) for quantity in epoch_tags)
        more += _set_epochs(points, epochs, has_ends=has_ends, is_over=bool(tests))
    more += _check_clock(points)
    return CheckedCurve(points, tests.get("test_acc"), tests.get("test_loss"), notes + more)


def _checked(quantity: str, logged: LoggedValue, place: str, is_table: bool) -> LoggedValue:
    step, time_s, value, epoch, _ = logged

    def where(name: str) -> str:
        return f"{place.partition(',')[0]}, column {name}" if is_table else f"{place}, {name}"

    if step is not None and step < 0:
        raise FieldError(where("step"), str(step), "must not be negative", "count from zero")
    if step is not None and step > MAX_STEP:
        rule = f"is more than {MAX_STEP:,}: it is a time rather than a step"
        raise FieldError(where("step"), str(step), rule, "log the number of optimizer steps")
    if epoch is not None and not 0 <= epoch <= MAX_EPOCH:
        raise FieldError(where("epoch"), f"{epoch:g}", f"must lie in [0, {MAX_EPOCH:,}]", "count epochs from zero")
    if is_table and time_s is not None and time_s < 0:
        raise FieldError(where("time_s"), f"{time_s:g}", "must not be negative", "count from zero")
    if quantity == "samples" and not (0 <= value <= 2**62 and value == int(value)):
        raise FieldError(place, f"{value:g}", "must be a whole number that is not negative", "count jets seen")
    if not quantity.endswith("_acc") and not quantity.startswith("recall_"):
        return logged
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise FieldError(place, f"{value:g}", "must be a share in [0, 1]", "write 0.713 for 71.3%")
    return logged._replace(value=min(1.0, max(0.0, value)))


def _without_abandoned(
    series: Mapping[str, list[LoggedValue]], stated: Sequence[tuple[int, int]], is_table: bool
) -> tuple[dict[str, list[LoggedValue]], list[str]]:
    """Return the series without what a restart abandoned: earlier values at and after the step it restarted from."""
    events: list[tuple[int, str, LoggedValue]] = [
        (one.order, quantity, one) for quantity, values in series.items() for one in values
    ]
    events += [(order, "", LoggedValue(step, None, 0.0)) for order, step in stated]
    events.sort(key=lambda event: event[0])
    kept: dict[str, list[LoggedValue]] = {quantity: [] for quantity in series}
    abandoned: list[float] = []
    count = 0
    for _, quantity, logged in events:
        last = kept[quantity][-1] if kept.get(quantity) else None
        goes_back = last is not None and _unit(last) == _unit(logged) and _position(logged) < _position(last)
        if not quantity or (goes_back and quantity != EPOCH):
            lost = 0
            for name, values in kept.items():
                # Steps only rise in what was kept: what the restart abandoned is at the end.
                while values and _unit(values[-1]) == _unit(logged) and _position(values[-1]) >= _position(logged):
                    values.pop()
                    lost += name != EPOCH
            abandoned += [_position(logged)] if lost else []
            count += lost
        if quantity:
            kept[quantity].append(logged)
    if is_table and 4 * len(abandoned) > len({order for order, _, _ in events}):
        # Rows in another order than that of the steps: a sorted table, no restart.
        return dict(series), ["the rows are not in the order of their steps: they are sorted"]
    if not abandoned:
        return kept, []
    return kept, [f"the run was resumed at step {min(abandoned):g}: {count} values of the abandoned trail are left out"]


def _unit(logged: LoggedValue) -> str:
    return EPOCH if logged.step is None else "step"


def _position(logged: LoggedValue) -> float:
    return float(logged.step if logged.step is not None else logged.epoch or 0.0)


def _points(series: Series, shift: int, batch_size: int | None, is_table: bool) -> list[Point]:
    times = [one.time_s for values in series.values() for one in values if one.time_s is not None]
    start = 0.0 if is_table else min((time for time in times if math.isfinite(time)), default=0.0)
    points: dict[tuple[bool, float], Point] = {}
    for name, values in series.items():
        for step, time_s, value, epoch, _ in values:
            done = None if step is None else step + shift
            key = (done is None, float(done if done is not None else epoch or 0.0))
            point = points.setdefault(key, dict.fromkeys(POINT_FIELDS))
            # A value that was logged twice at a step counts as it was logged last.
            point |= {"step": done, name: int(value) if name == "samples" else value}
            if epoch is not None:
                point["epoch"] = epoch
            if time_s is not None and math.isfinite(time_s):
                point["time_s"] = max(time_s - start, float(point["time_s"] or 0.0))
            if batch_size and done is not None and point["samples"] is None:
                point["samples"] = done * batch_size
    return [points[key] for key in sorted(points)]


def _check_clock(points: Sequence[Point]) -> list[str]:
    """Leave out the times if a clock went back, and say so."""
    latest = 0.0
    for point in points:
        time_s = point["time_s"]
        if time_s is None:
            continue
        if time_s < latest - _JITTER_S:
            for one in points:
                one["time_s"] = None
            return [f"the clock goes back at step {point['step']}: times are left out"]
        latest = max(latest, float(time_s))
        point["time_s"] = latest
    return []


def _set_epochs(points: Sequence[Point], epochs: Sequence[LoggedValue], *, has_ends: bool, is_over: bool) -> list[str]:
    """Set the epochs done at each point, a fraction within an epoch, from the epoch that is logged at each step.

    An epoch is over when a later one began or when it is as long as the one before it; a single epoch if the training
    is over (``is_over``).
    """
    last: dict[int, int] = {}
    for logged in epochs:
        if 0 <= logged.value <= MAX_EPOCH:
            epoch = int(logged.value)
            last[epoch] = max(last.get(epoch, -1), int(logged.step or 0))
    ends, before = {0: 0}, 0.0
    for epoch in sorted(last):
        start = max(ends)
        length = (last[epoch] + 1 - ends[start]) / (epoch + 1 - start)
        if epoch < max(last) or (length >= before if before else is_over):
            ends[epoch + 1], before = last[epoch] + 1, length
    done = sorted(ends)
    steps, counts = np.array([ends[epoch] for epoch in done], float), np.array(done, float)
    if not has_ends or len(done) < 2 or (np.diff(steps) <= 0).any():
        return ["the length of an epoch is not known: draw it along steps"]
    rate = (counts[-1] - counts[-2]) / (steps[-1] - steps[-2])
    for point in points:
        step = float(point["step"] or 0)
        point["epoch"] = float(np.interp(step, steps, counts) + rate * max(0.0, step - steps[-1]))
    return []
