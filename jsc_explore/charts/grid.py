"""The grid: one cell a config, its colour the score, its text the figures, its state at a glance."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import altair as alt
import pyarrow as pa

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.intervals import half_width
from jsc_explore.charts.style import (
    FAINT,
    INK,
    MUTED,
    SEQUENCE,
    Drawing,
    format_score,
    is_share,
    is_time,
    ordinal_label,
)

CELL_HEIGHT = 50
AXIS_HEIGHT = 60
# A click chooses one cell, a click with shift adds or takes away one.
SELECTION, TOGGLED = "cell", "toggled"
# A fixed range: the same colour means the same accuracy on every screen. 0.2 is guessing among five classes.
SHARE_DOMAIN = (0.2, 0.8)
DARK, BRIGHT = "#101418", "#FFFFFF"


def grid_table(cells: Sequence[Cell], score: str, chosen: Collection[str] = ()) -> pa.Table:
    """Return one row a cell, ready to draw: labels, colour value, two lines of text, tooltip; chosen cells marked."""
    rows = []
    low, high = score_domain(cells, score)
    for cell in cells:
        share = (cell.mean - low) / (high - low) if cell.mean is not None and high > low else 0.0
        # Bright is good: the colours of losses and times run the other way.
        brightness = share if is_share(score) else 1 - share
        rows.append(
            {
                "x": ordinal_label(cell.x),
                "y": ordinal_label(cell.y),
                "config_id": cell.config_id,
                "state": cell.state,
                # Vega leaves out marks without a number; an empty cell must still be seen and clicked.
                "score": low if cell.mean is None else cell.mean,
                "first": _first_line(cell, score),
                "second": _second_line(cell),
                "alone": "+" if cell.state == "missing" else "",
                "bright": brightness > 0.45,
                "filled": cell.mean is not None,
                "chosen": cell.config_id in chosen,
                "tooltip": _tooltip(cell, score),
            }
        )
    return pa.Table.from_pylist(rows)


def score_domain(cells: Sequence[Cell], score: str) -> tuple[float, float]:
    """Return the range that colours span: fixed for shares, from least to greatest otherwise."""
    if is_share(score):
        return SHARE_DOMAIN
    means = [cell.mean for cell in cells if cell.mean is not None]
    return (min(means), max(means)) if means else (0.0, 1.0)


def grid_chart(
    table: pa.Table,
    titles: tuple[str, str],
    orders: tuple[Sequence[str], Sequence[str]],
    score: str,
    domain: tuple[float, float],
    ground: str = "light",
) -> Drawing:
    """Draw a grid table; ``cell`` selects the ``config_id`` clicked, ``toggled`` those clicked with shift.

    ``titles`` and ``orders`` are those of x and y; ``ground`` is light or dark.
    """
    x = alt.X("x:N", sort=list(orders[0]), title=titles[0], axis=alt.Axis(labelAngle=0, ticks=False, domain=False))
    # Growing values grow upwards.
    y = alt.Y("y:N", sort=list(reversed(orders[1])), title=titles[1], axis=alt.Axis(ticks=False, domain=False))
    base = alt.Chart(table).encode(x=x, y=y)
    # Low loss and short time are good: bright is good in every grid.
    scale = alt.Scale(scheme=SEQUENCE, domain=list(domain), clamp=True, reverse=not is_share(score))
    click = alt.selection_point(name=SELECTION, fields=["config_id"], toggle=False, on="click[!event.shiftKey]")
    shift = alt.selection_point(name=TOGGLED, fields=["config_id"], toggle="true", on="click[event.shiftKey]")
    colour = alt.condition("datum.filled", alt.Color("score:Q", scale=scale, legend=None), alt.value("transparent"))
    chosen = alt.datum.chosen
    cells = base.mark_rect(cornerRadius=4, cursor="pointer").encode(
        color=colour,
        stroke=alt.condition(chosen, alt.value(INK[ground]), alt.value(FAINT[ground])),
        strokeWidth=alt.condition(chosen, alt.value(3), alt.value(1)),
        tooltip=[alt.Tooltip("tooltip:N", title=" ")],
    )
    text = (
        alt.when("!datum.filled").then(alt.value(MUTED[ground])).when("datum.bright").then(alt.value(DARK))
        .otherwise(alt.value(BRIGHT))
    )  # fmt: skip
    first = base.mark_text(dy=-7, fontSize=14, fontWeight=600, cursor="pointer").encode(text="first:N", color=text)
    second = base.mark_text(dy=11, fontSize=11, cursor="pointer").encode(text="second:N", color=text)
    alone = base.mark_text(fontSize=16, cursor="pointer").encode(text="alone:N", color=text)
    height = CELL_HEIGHT * max(1, len(orders[1])) + AXIS_HEIGHT
    return alt.layer(cells.add_params(click, shift), first, second, alone).properties(height=height)


def _first_line(cell: Cell, score: str) -> str:
    if cell.state == "running":
        return f"{100 * cell.share_done:.0f}%  ▶"
    if cell.mean is not None:
        return format_score(score, cell.mean)
    return {"queued": "…", "failed": "✕", "done": "diverged"}.get(cell.state, "")


def _second_line(cell: Cell) -> str:
    if cell.state == "running":
        return f"training {len(cell.active)}"
    if cell.state == "queued":
        return "queued"
    if cell.state == "failed":
        return "failed"
    if cell.state == "missing":
        return ""
    notes = [f"n={cell.n}"]
    if cell.n_dead:
        notes.append(f"†{cell.n_dead}")
    if cell.n_diverged:
        notes.append(f"‡{cell.n_diverged}")
    return " ".join(notes)


def _tooltip(cell: Cell, score: str) -> str:
    name = f"{ordinal_label(cell.x)} × {ordinal_label(cell.y)}"
    if cell.state == "missing":
        # A tooltip stays open over the training that a click begins: it says only what stays true.
        return name
    if cell.state == "failed":
        return f"{name}: failed, click to see why"
    spread = None if is_time(score) else half_width(cell.sd, cell.n)
    interval = "" if spread is None else ", 95% interval"
    parts = [f"{format_score(score, cell.mean, spread)} (mean of {cell.n} seeds{interval})"] if cell.n else []
    if cell.n_dead:
        parts.append(f"{cell.n_dead} with a dead class")
    if cell.n_diverged:
        parts.append(f"{cell.n_diverged} diverged")
    if cell.active:
        parts.append(f"{len(cell.active)} under way, {100 * cell.share_done:.0f}%")
    return f"{name}: {'; '.join(parts)}"
