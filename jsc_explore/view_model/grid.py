"""The cells of a slice, the grids that show them, and the one line that says what is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.analysis.cells import Cell, Place, axis_values, build_cells, with_seeds
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.grid import grid_figure, grid_table, metric_domain
from jsc_explore.charts.style import MARK, is_time, ordinal_label
from jsc_explore.config import FIELDS, format_value
from jsc_explore.jobs import Job
from jsc_explore.store.query.filters import Between
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice

# A grid of more cells than this is no longer read, and would cost every click.
MAX_CELLS = 1500
TIMES = "Times are those of a whole stack of replicas, on the machine that trained it: compare like with like."


@dataclass(frozen=True)
class Part:
    """One drawn grid: its facet's title (empty without facets), its cells and its figure."""

    title: str
    cells: list[Cell]
    figure: Figure


def cells_of(reader: Repository, view: Slice, jobs: Sequence[Job], chosen: Sequence[Place]) -> list[Cell]:
    """Return the cells of the slice, those at ``chosen`` places included; ``jobs`` are those not done."""
    rows = reader.grid(view)
    own = [job for job in jobs if view.passes(job.config)]
    axes = {
        name: _axis(view, name, [row[name] for row in rows], [place[i] for place in chosen], own)
        for i, name in enumerate(view.axes)
    }
    cells = build_cells(view.base, axes, view.digest, rows, own, view.seeds)
    return with_seeds(cells, reader.seeds(tuple(cell.config_id for cell in cells)))


def _axis(view: Slice, name: str, stored: Sequence[Any], chosen: Sequence[Any], jobs: Sequence[Job]) -> list[Any]:
    values = axis_values(name, stored, [*chosen, *(getattr(job.config, name) for job in jobs)])
    allowed = view.filters.get(name)
    if isinstance(allowed, Between):
        return [value for value in values if allowed.low <= value <= allowed.high]
    return [value for value in values if value in allowed] if allowed else values


def chosen_of(cells: Sequence[Cell], places: Sequence[Place]) -> list[Cell]:
    """Return the cells at these places in the order in which they were chosen."""
    by_place = {cell.place: cell for cell in cells}
    return [by_place[place] for place in places if place in by_place]


def parts(
    view: Slice,
    cells: Sequence[Cell],
    places: Sequence[Place],
    predicted: Callable[[Sequence[Cell]], Mapping[str, Prediction]],
    theme: str,
    size: float,
) -> list[Part]:
    """Return the grids to draw, one for each value of the facet; cells at ``places`` are marked as chosen.

    ``predicted`` returns what cells without a run are expected to metric, by config id.
    """
    chosen = {cell.config_id for cell in chosen_of(cells, places)}
    domain = metric_domain(cells, view.metric)
    titles = (FIELDS[view.x].label, FIELDS[view.y].label)
    orders = tuple(
        tuple(dict.fromkeys(ordinal_label(value) for value in values))
        for values in ((cell.x for cell in cells), (cell.y for cell in cells))
    )
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.facet, []).append(cell)
    return [
        Part(
            f"{FIELDS[view.facet].label}: {format_value(view.facet, value)}" if view.facet else "",
            own,
            grid_figure(
                grid_table(own, view.metric, chosen, domain, predicted(own)),
                titles, (orders[0], orders[1]), view.metric, domain, theme, size,
            ),
        )
        for value, own in groups.items()
    ]  # fmt: skip


def legend_text(view: Slice, cells: Sequence[Cell], predicted: str = "") -> str:
    """Say what the signs in the grid mean, those that occur; ``predicted`` says it of predictions, where some are."""
    states = {cell.state for cell in cells}
    meanings = [
        ("n: seeds", bool(states & {"done", "partly"})),
        (f"dashed: fewer than {view.seeds}", "partly" in states),
        ("†: a class is never predicted", any(cell.n_silent for cell in cells)),
        ("‡: diverged", any(cell.n_diverged for cell in cells)),
        ("+: missing", "missing" in states),
        ("✕: failed", "failed" in states),
        (f"{MARK}: {predicted}", bool(predicted)),
        ("–: left out by the filter in words", "hidden" in states),
        ("×: the mean over several configs, see the tooltip", any(cell.n_configs > 1 for cell in cells)),
    ]
    line = ", ".join(text for text, shown in meanings if shown)
    return line + (f". {TIMES}" if is_time(view.metric) else "")


def title(view: Slice, cells: Sequence[Cell]) -> str:
    """Return the one line that says what is seen."""
    runs = sum(cell.n for cell in cells)
    missing = sum(cell.state == "missing" for cell in cells)
    base, free = view.base, (*view.axes, *view.several)
    epochs = f" after {base.max_epochs} epoch{'s' if base.max_epochs > 1 else ''}" if "max_epochs" not in free else ""
    network = base.model if "model" not in free else "several networks"
    metric = METRICS[view.metric].split(",")[0].capitalize()
    if view.metric.startswith("best_"):
        epochs = epochs.replace("after", "at the best of")
    honest = (
        " (measured on the training jets, as in the lab)" if base.validation == "train" and "val" in view.metric else ""
    )
    names = [FIELDS[name].inline_label for name in view.axes]
    several = (
        f", several values of {' and '.join(FIELDS[n].inline_label for n in view.several)}" if view.several else ""
    )
    where = f", where {view.text}" if view.text else ""
    return (
        f"{metric} of {network}{epochs}{honest}, by {', '.join(names[:-1])} and {names[-1]}{several}{where}: "
        f"{runs:,} runs, {missing} of {len(cells)} cells missing"
    )
