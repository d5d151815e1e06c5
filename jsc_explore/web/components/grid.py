"""The grid panel: the cells of the slice, drawn; a click opens one, shift-click compares, a dragged box takes many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.charts.grid import BOX, SELECTION, TOGGLED
from jsc_explore.charts.style import PRESENTATION_SCALE, ordinal_label
from jsc_explore.jobs import Job
from jsc_explore.view_model import grid
from jsc_explore.view_model.grid import MAX_CELLS, Part, title
from jsc_explore.web.components import cell_details
from jsc_explore.web.components.sidebar import Slice
from jsc_explore.web.state import predictions, url
from jsc_explore.web.state.cached_repository import CachedRepository

__all__ = ["by_name", "cells_of", "chosen_of", "draw", "parts", "title"]
GRID_KEY = "grid"


def cells_of(view: Slice, jobs: Sequence[Job]) -> list[Cell]:
    """Return the cells of the slice; ``jobs`` are those under way and those that failed."""
    return grid.cells_of(CachedRepository(), view, jobs, url.chosen_cells())


def chosen_of(cells: Sequence[Cell]) -> list[Cell]:
    """Return the chosen cells in the order in which they were chosen."""
    return grid.chosen_of(cells, url.chosen_cells())


def parts(view: Slice, cells: Sequence[Cell], theme: str) -> list[Part]:
    """Return the grids to draw, one for each value of the facet."""
    size = PRESENTATION_SCALE if st.session_state["presentation"] else 1.0
    return grid.parts(view, cells, url.chosen_cells(), partial(predictions.predictions, view), theme, size)


def draw(view: Slice, cells: Sequence[Cell]) -> None:
    """Draw the grids side by side, and what their signs mean."""
    if not cells:
        st.info("No value of an axis passes its filter: widen it in the sidebar.", icon=":material/filter_alt_off:")
        return
    if len(cells) > MAX_CELLS:
        st.warning(
            f"{len(cells):,} cells cannot be read: narrow an axis under More filters, at most {MAX_CELLS:,} are drawn.",
            icon=":material/grid_off:",
        )
        return
    drawn = parts(view, cells, st.context.theme.type or "light")
    columns = st.columns(min(2, len(drawn)), gap="medium") if len(drawn) > 1 else [st.container()]
    for i, part in enumerate(drawn):
        with columns[i % len(columns)]:
            if part.title:
                st.markdown(f"**{part.title}**")
            key = GRID_KEY if i == 0 else f"{GRID_KEY}-{i}"
            st.vega_lite_chart(
                part.figure.for_page(),
                key=key,
                on_select=lambda key=key, part=part: _clicked(view, key, part.cells, cells),
                selection_mode=[SELECTION, TOGGLED, BOX],
                alt=f"{part.figure.words} {part.title}".strip(),
            )
    if signs := grid.legend_text(view, cells, predictions.words(view, cells)):
        st.caption(signs)


def by_name(view: Slice, cells: Sequence[Cell]) -> None:
    """Draw the door to choosing cells without a mouse; behind it nothing is made until it is open."""
    door = st.popover(
        "Select cells", icon=":material/keyboard:", type="tertiary", key="names_door", on_change="rerun",
        help="Cells by keyboard: what a click on the grid chooses",
    )  # fmt: skip
    if not door.open:
        return
    widget, names = "cells by name", {cell.place: cell_details.describe(cell.config, view) for cell in cells}
    st.session_state[widget] = [cell.place for cell in chosen_of(cells)]
    door.multiselect(
        "Cells",
        list(names),
        key=widget,
        format_func=lambda place: names.get(place, ""),
        placeholder="Type a value",
        on_change=lambda: url.choose_cells(st.session_state[widget]),
    )


def _clicked(view: Slice, key: str, own: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Take a click or a box: choose its cells, with shift add or take away one; train a missing one clicked."""
    selection = st.session_state[key].selection
    clicked, toggled = ({entry["config_id"] for entry in selection.get(name, [])} for name in (SELECTION, TOGGLED))
    box = _boxed(selection.get(BOX) or {}, own)
    # The chart remembers what was clicked and boxed in all its life; what differs from the last time was done just now.
    before = st.session_state.get(f"_{key}", (set(), set(), set()))
    st.session_state[f"_{key}"] = (clicked, toggled, box)
    chosen = {cell.config_id for cell in chosen_of(cells)}
    if box and box != before[2]:
        new, chosen = set(), box
    elif toggled != before[1]:
        new, chosen = (toggled ^ before[1]) - chosen, chosen ^ (toggled ^ before[1])
    elif clicked:
        new, chosen = clicked, clicked
    elif box or before[2]:
        # The end of a drag is also a click beside every cell, or the box was put away: what was chosen stays.
        return
    else:
        new, chosen = set(), set()
    kept = [cell for cell in chosen_of(cells) if cell.config_id in chosen]
    added = [cell for cell in cells if cell.config_id in chosen and cell not in kept]
    url.choose_cells([cell.place for cell in (*kept, *added)])
    if view.train_on_click:
        cell_details.train(
            [cell for cell in added + kept if cell.config_id in new and cell.state == "missing"], view.seeds
        )


def _boxed(box: Mapping[str, Any], cells: Sequence[Cell]) -> set[str]:
    """Return the cells within a dragged box, given as the labels it touches on each axis."""
    across, up = (set(map(str, box.get(name) or [])) for name in ("x", "y"))
    return {cell.config_id for cell in cells if ordinal_label(cell.x) in across and ordinal_label(cell.y) in up}
