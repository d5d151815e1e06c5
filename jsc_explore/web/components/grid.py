"""The grid panel: a click selects a cell, shift-click adds one, a dragged box selects many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import streamlit as st

from jsc_explore.analysis.cells import Cell, Place
from jsc_explore.charts.grid import BOX, SELECTION, TOGGLED
from jsc_explore.charts.style import is_time
from jsc_explore.config import display_value
from jsc_explore.jobs.queue import Job
from jsc_explore.view_model import grid
from jsc_explore.view_model.grid import MAX_CELLS, Part
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS
from jsc_explore.web.components import cell_details
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import predictions, presentation
from jsc_explore.web.state.cached_repository import CachedRepository
from jsc_explore.web.state.url import EXPLORE

__all__ = ["cells_of", "draw", "draw_cell_list", "parts", "selected_of"]
GRID_KEY = "grid"


def cells_of(slice: Slice, jobs: Sequence[Job], selected: Sequence[Place]) -> list[Cell]:
    """Return the cells of the slice; ``jobs`` are the active and the failed ones."""
    return grid.cells_of(CachedRepository(), slice, jobs, selected)


def selected_of(cells: Sequence[Cell]) -> list[Cell]:
    """Return the selected cells in the order in which they were selected."""
    return grid.selected_of(cells, EXPLORE[CELLS])


def parts(slice: Slice, cells: Sequence[Cell], theme: str) -> list[Part]:
    """Return the grids to draw, one for each value of the facet."""
    predicted = partial(predictions.predictions, slice)
    return grid.parts(slice, cells, EXPLORE[CELLS], predicted, theme, presentation.text_scale())


def draw(slice: Slice, cells: Sequence[Cell]) -> None:
    """Draw the grids side by side, with a legend of their signs."""
    if not cells:
        st.info("No value of an axis passes its filter: widen it in the sidebar.", icon=":material/filter_alt_off:")
        return
    if len(cells) > MAX_CELLS:
        st.warning(
            f"{len(cells):,} cells are too many to draw (at most {MAX_CELLS:,}): narrow an axis under More filters.",
            icon=":material/grid_off:",
        )
        return
    drawn = parts(slice, cells, st.context.theme.type or "light")
    columns = st.columns(min(2, len(drawn)), gap="medium") if len(drawn) > 1 else [st.container()]
    for i, part in enumerate(drawn):
        with columns[i % len(columns)]:
            if part.title:
                st.markdown(f"**{part.title}**")
            key = GRID_KEY if i == 0 else f"{GRID_KEY}-{i}"
            if key not in st.session_state:
                # A chart that is drawn anew reports from the start. Compared with the last report of its predecessor,
                # the first shift-click would also remove the cells that were selected there.
                st.session_state.pop(f"_{key}", None)
            st.vega_lite_chart(
                part.figure.arrow_spec(),
                key=key,
                on_select=lambda key=key, part=part: _clicked(slice, key, part.cells, cells),
                selection_mode=[SELECTION, TOGGLED, BOX],
                alt=f"{part.figure.alt_text} {part.title}".strip(),
            )
    machines = CachedRepository().machines(slice) if is_time(slice.metric) else None
    if text := grid.legend_text(slice, cells, predictions.describe(slice, cells), machines):
        st.caption(plain(text))


def draw_cell_list(slice: Slice, cells: Sequence[Cell]) -> None:
    """Draw a popover that selects cells by keyboard; its content is made only when it is open."""
    popover = st.popover(
        "Select cells", icon=":material/keyboard:", type="tertiary", key="cell_list", on_change="rerun",
        help="Select cells by keyboard instead of clicking the grid",
    )  # fmt: skip
    if not popover.open:
        return
    widget = "cell list"
    # Described by its own place: cells of one config would have one name.
    at_place = {cell.place: cell.config.with_(**dict(zip(slice.axes, cell.place, strict=True))) for cell in cells}
    names = {place: cell_details.describe(config, slice) for place, config in at_place.items()}
    st.session_state[widget] = [cell.place for cell in selected_of(cells)]
    popover.multiselect(
        "Cells",
        list(names),
        key=widget,
        format_func=lambda place: names.get(place, ""),
        placeholder="Type a value",
        on_change=lambda: EXPLORE.change(CELLS, list(st.session_state[widget])),
    )


class Report(NamedTuple):
    """What a chart reports: the cell clicked last with the selection it was clicked in, those toggled, those boxed."""

    clicked: frozenset[tuple[str, Any]] = frozenset()
    toggled: frozenset[str] = frozenset()
    box: frozenset[str] = frozenset()


def change_selection(
    report: Report, before: Report, selected: frozenset[str], trainable: frozenset[str] = frozenset()
) -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the cells that are newly clicked and all that are selected now; None if nothing changes.

    A click on the only selected cell deselects it, unless it is ``trainable``. A chart reports all that was ever
    clicked or boxed in it: what was done is the difference to the report ``before``.
    """
    if report.box and report.box != before.box:
        return frozenset(), report.box
    if changed := report.toggled ^ before.toggled:
        return changed - selected, selected ^ changed
    if report.clicked and report.clicked != before.clicked:
        clicked = frozenset(config_id for config_id, _ in report.clicked)
        return (frozenset(), frozenset()) if clicked == selected and not clicked & trainable else (clicked, clicked)
    if report.clicked or report.box or before.box:
        # The end of a drag also counts as a click outside all cells, or the box was dismissed: keep the selection.
        return None
    return frozenset(), frozenset()


def _clicked(slice: Slice, key: str, own: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Handle a click or a box: select its cells, with shift add or remove one; train a missing cell if clicked."""
    selection = st.session_state[key].selection
    report = Report(
        frozenset((entry["config_id"], entry.get("selection_id")) for entry in selection.get(SELECTION, [])),
        frozenset(entry["config_id"] for entry in selection.get(TOGGLED, [])),
        _cells_in(selection.get(BOX) or {}, slice, own),
    )
    before = st.session_state.get(f"_{key}", Report())
    st.session_state[f"_{key}"] = report
    trainable = {cell.config_id for cell in cells if cell.state == "missing"} if slice.train_on_click else set()
    chosen = frozenset(cell.config_id for cell in selected_of(cells))
    changed = change_selection(report, before, chosen, frozenset(trainable))
    if changed is None:
        return
    new, selected = changed
    kept = [cell for cell in selected_of(cells) if cell.config_id in selected]
    added = [cell for cell in cells if cell.config_id in selected and cell not in kept]
    EXPLORE.change(CELLS, [cell.place for cell in (*kept, *added)])
    if slice.train_on_click:
        missing = [cell for cell in (*added, *kept) if cell.config_id in new and cell.state == "missing"]
        cell_details.train(missing, slice.seeds)


def _cells_in(box: Mapping[str, Any], slice: Slice, cells: Sequence[Cell]) -> frozenset[str]:
    """Return the config ids of the cells in a dragged box, given as the labels that it covers on each axis."""
    x_labels, y_labels = (set(map(str, box.get(name) or [])) for name in ("x", "y"))
    return frozenset(
        cell.config_id
        for cell in cells
        if display_value(slice.x, cell.x) in x_labels and display_value(slice.y, cell.y) in y_labels
    )
