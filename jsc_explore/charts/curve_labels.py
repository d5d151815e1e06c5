"""The names of curves at their right ends, moved apart where they would overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pyarrow as pa

from jsc_explore.charts.figure import chart_from
from jsc_explore.charts.style import BACKGROUND, colours, readable

LABELS = "labels"
# More or longer names take too much of the chart: then a legend stands above it.
MAX_LABELS, MAX_LABEL_LENGTH = 12, 28
# Of one name, in pixels.
LINE_HEIGHT = 15
_LABELS = pa.schema(
    [(name, pa.string()) for name in ("group", *BACKGROUND)] + [(name, pa.float64()) for name in ("x", "end", "at")]
)


def fits_labels(groups: Sequence[str], size: float) -> bool:
    """Return whether there is room for these names right of a chart with fonts ``size`` times the default."""
    longest = max(map(len, groups), default=0)
    return 0 < len(groups) <= MAX_LABELS and longest <= MAX_LABEL_LENGTH / size


def label_table(
    medians: pa.Table, seeds: pa.Table, groups: Sequence[str], ordered: bool, y_range: tuple[float, float],
    log_y: bool, gap: float,
) -> pa.Table:  # fmt: skip
    """Return one row a group that is drawn: the end of its curve (``x``, ``end``), and ``at``, where its name stands.

    ``gap`` is the least distance of two names as a share of the y axis. Of several curves of a group the one that goes
    furthest is named: first a median without a silent class, of validation where there are two; else another median;
    else a seed. The columns ``light`` and ``dark`` are the colours of the names on each theme.
    """
    found: dict[str, tuple[tuple[int, float], float, float]] = {}

    def consider(group: str, kind: int, x: float, value: float) -> None:
        if group not in found or (kind, x) > found[group][0]:
            found[group] = ((kind, x), x, value)

    for x, value, group in zip(*(seeds[name].to_pylist() for name in ("x", "value", "group")), strict=True):
        consider(group, 0, x, value)
    columns = (medians[name].to_pylist() for name in ("x", "smooth", "group", "dash", "is_silent"))
    for x, value, group, dash, is_silent in zip(*columns, strict=True):
        consider(group, 1 if is_silent or dash == "training jets" else 2, x, value)
    scale, inverse = (math.log, math.exp) if log_y else (float, float)
    low, high = (scale(end) for end in y_range)
    names = [group for group in groups if group in found]
    ends = [min(max(found[name][2], y_range[0]), y_range[1]) for name in names]
    shares = move_apart([(scale(end) - low) / (high - low) for end in ends], gap)
    shades = {theme: dict(zip(groups, colours(len(groups), ordered, theme), strict=True)) for theme in BACKGROUND}
    rows = [
        {"group": name, "x": found[name][1], "end": end, "at": inverse(low + share * (high - low)),
         **{theme: readable(shades[theme][name], theme) for theme in BACKGROUND}}
        for name, end, share in zip(names, ends, shares, strict=True)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_LABELS)


def move_apart(places: Sequence[float], gap: float) -> list[float]:
    """Return places in [0, 1] at least ``gap`` apart, in the same order and as near to the given ones as can be.

    Neighbours that are too near form a block around their mean (least squares, by pooling adjacent violators). More
    than fit into [0, 1] get equal distances.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    gap = min(gap, 1 / max(1, len(places) - 1))
    blocks: list[tuple[float, int]] = []  # sum of its places without the gaps, and their number
    for rank, i in enumerate(order):
        total, count = places[i] - rank * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    free = [total / count for total, count in blocks for _ in range(count)]
    room = 1 - (len(places) - 1) * gap
    moved = list(places)
    for rank, i in enumerate(order):
        moved[i] = min(max(free[rank], 0.0), room) + rank * gap
    return moved


def label_layers(x: alt.X, y: alt.Y, visible: Any, picked: alt.Parameter, theme: str, size: float) -> list[alt.Chart]:
    """Return the names right of the chart, and thin lines that lead to them; a click on a name sets ``picked``."""
    base = chart_from(LABELS)
    colour = alt.Color(f"{theme}:N", scale=None, legend=None)
    leaders = (
        # Dotted: a thin solid line to the name of a curve that ends early would look measured.
        base.mark_rule(strokeWidth=size, strokeDash=[1, 4], aria=False)
        .encode(x=x, x2=alt.value(alt.expr(f"width + {5 * size}")), y=_at(y, "end"), y2="at:Q", color=colour,
                opacity=visible(0.6, 0.0))
    )  # fmt: skip
    names = (
        base.mark_text(align="left", baseline="middle", dx=8 * size, fontSize=12 * size, fontWeight=600,
                       cursor="pointer", tooltip=None)
        .encode(x=alt.value("width"), y=_at(y, "at"), text="group:N", color=colour, opacity=visible(1.0, 0.45))
        .properties(name=LABELS)
        .add_params(picked)
    )  # fmt: skip
    return [leaders, names]


def _at(y: alt.Y, field: str) -> alt.Y:
    """Return the y encoding of the chart for another column."""
    other: alt.Y = y.copy()
    other.shorthand = f"{field}:Q"
    return other
