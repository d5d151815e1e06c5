"""The grid of a slice: its cells, the charts that show them, its title and legend text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.analysis.cells import Cell, Place, axis_values, build_cells
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.grid import grid_figure, grid_table, metric_domain
from jsc_explore.charts.style import PREDICTED_SIGN, SILENT_SIGN, is_time, times_text
from jsc_explore.config import FIELDS, display_value
from jsc_explore.jobs.queue import Job
from jsc_explore.store.query.filters import Between
from jsc_explore.view_model.curve_selection import default_cells
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice

# A larger grid cannot be read, and would slow down every click.
MAX_CELLS = 1500


@dataclass(frozen=True)
class Part:
    """The grid of one facet: its title (empty without facets), cells and figure."""

    title: str
    cells: list[Cell]
    figure: Figure


def cells_of(repository: Repository, slice: Slice, jobs: Sequence[Job], selected: Sequence[Place]) -> list[Cell]:
    """Return the cells of the slice, and those at ``selected`` places; ``jobs`` are the active, failed, cancelled."""
    rows = repository.grid(slice)
    jobs = [job for job in jobs if slice.passes(job.config)]
    axes = {
        name: _axis(slice, name, [row[name] for row in rows], [place[i] for place in selected], jobs)
        for i, name in enumerate(slice.axes)
    }
    several = bool(slice.several)
    return build_cells(slice.base, axes, slice.digest, rows, jobs, slice.seeds, repository.seeds, several=several)


def _axis(slice: Slice, name: str, stored: Sequence[Any], selected: Sequence[Any], jobs: Sequence[Job]) -> list[Any]:
    values = axis_values(name, stored, [*selected, *(getattr(job.config, name) for job in jobs)])
    allowed = slice.filters.get(name)
    if isinstance(allowed, Between):
        return [value for value in values if allowed.low <= value <= allowed.high]
    return [value for value in values if value in allowed] if allowed else values


def selected_of(cells: Sequence[Cell], places: Sequence[Place]) -> list[Cell]:
    """Return the cells at these places, in the order of the places; one of those with the same config."""
    by_place = {cell.place: cell for cell in cells}
    selected = [by_place[place] for place in places if place in by_place]
    return list({cell.config_id: cell for cell in selected}.values())


def parts(
    slice: Slice,
    cells: Sequence[Cell],
    places: Sequence[Place],
    predicted: Callable[[Sequence[Cell]], Mapping[str, Prediction]],
    theme: str,
    size: float,
) -> list[Part]:
    """Return the grids to draw, one for each value of the facet; cells at ``places`` are marked as selected.

    Without any, the cells whose curves are drawn instead are outlined. ``predicted`` returns predictions of the metric
    of cells without a run, by config id.
    """
    selected = {cell.config_id for cell in selected_of(cells, places)}
    shown = set() if selected else {cell.config_id for cell in default_cells(slice, cells)}
    domain = metric_domain(cells, slice.metric)
    has_colours = any(cell.value is not None for cell in cells)
    axes = (slice.x, slice.y)
    orders = tuple(
        tuple(dict.fromkeys(display_value(name, cell.place[i]) for cell in cells)) for i, name in enumerate(axes)
    )
    facets: dict[Any, list[Cell]] = {}
    for cell in cells:
        facets.setdefault(cell.facet, []).append(cell)
    return [
        Part(
            f"{FIELDS[slice.facet].label}: {display_value(slice.facet, value)}" if slice.facet else "",
            facet_cells,
            grid_figure(
                grid_table(facet_cells, slice.axes, slice.metric, selected, domain, predicted(facet_cells), shown),
                # One bar of colours for all facets.
                axes, (orders[0], orders[1]), slice.metric, domain, theme, size, has_colours and value == [*facets][-1],
            ),
        )
        for value, facet_cells in facets.items()
    ]  # fmt: skip


def legend_text(
    slice: Slice, cells: Sequence[Cell], predicted: str = "", machines: Mapping[str, Sequence[str]] | None = None
) -> str:
    """Return the meaning of the signs that occur in the grid; ``predicted`` describes the predictions, if any.

    Of a grid of times it also says what they are; ``machines`` has the backends of the devices that measured them.
    """
    states = {cell.state for cell in cells}
    meanings = [
        (_figure_text(cells), bool(states & {"done", "partly"})),
        (f"dashed: fewer than {slice.seeds}", "partly" in states),
        (SILENT_SIGN, any(cell.n_silent for cell in cells)),
        ("‡: diverged", any(cell.n_diverged for cell in cells)),
        ("+: missing", "missing" in states),
        ("✕: failed", "failed" in states),
        (f"{PREDICTED_SIGN}: {predicted}", bool(predicted)),
        ("–: left out by the filter expression", "hidden" in states),
        ("×: several configs in a cell, with the range of their runs", any(cell.n_configs > 1 for cell in cells)),
        ("outlined: drawn as curves", bool(states & {"done", "partly"})),
    ]
    line = ", ".join(text for text, occurs in meanings if occurs)
    line = line[:1].upper() + line[1:]
    return line + (f". {times_text(machines or {})}" if is_time(slice.metric) else "")


def _figure_text(cells: Sequence[Cell]) -> str:
    if not any(cell.n_silent for cell in cells):
        return "the median of n seeds"
    return "the median of the n seeds without a silent class, or of all where each has one"
