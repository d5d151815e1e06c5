"""The Explore page: a grid of configs, their learning curves, and the jobs that are queued or running."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import streamlit as st

from jsc_explore.analysis.cells import Cell, Place
from jsc_explore.errors import JscError
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS
from jsc_explore.web.components import (
    cell_details,
    curves,
    export_dialog,
    grid,
    job_list,
    permissions,
    saved_views,
    sidebar,
    train_dialog,
)
from jsc_explore.web.state import compare_selection, dialogs, predictions, presentation, services
from jsc_explore.web.state.live import LiveSnapshot
from jsc_explore.web.state.render_queue import LIVE_DELAY_S, PAGE_DELAY_S, render_turn, tune
from jsc_explore.web.state.url import EXPLORE

# While something trains the curves are drawn seven times a second, all else once. A page on which nothing happens looks
# every few seconds whether somebody else has started a training.
CURVES_S, BODY_S, PREDICTIONS_S, WATCH_S = 0.15, 1.0, 0.4, 3.0
_BY_ITSELF = "_drawn by itself"


def page() -> None:
    """Draw the page."""
    with render_turn(PAGE_DELAY_S if st.session_state.pop(_BY_ITSELF, False) else 0.0):
        _page()
        tune()


def _page() -> None:
    EXPLORE.restore()
    try:
        store = services.store()
        services.serve()
        snapshot = services.live().snapshot()
    except JscError as error:
        st.error(str(error))
        return
    for problem in store.problems:
        st.warning(problem, icon=":material/broken_image:")
    slice = sidebar.draw(store)
    presentation.apply_style()
    if slice is None:
        return
    permissions.draw_status()
    predictions.begin(wait=dialogs.is_open())
    active = bool(snapshot.active)
    interval = partial(services.poll_interval, session=permissions.session())
    st.fragment(_body, run_every=interval(BODY_S) if active else None)(slice, active)
    looking = partial(interval, at_full_pace=services.LOOKING_AT_FULL_PACE)
    if predictions.awaited():
        st.fragment(_await_predictions, run_every=looking(PREDICTIONS_S))()
    elif not active:
        st.fragment(_watch, run_every=looking(WATCH_S))(snapshot.store_version)
    dialogs.draw(
        {
            "train": partial(train_dialog.dialog, slice),
            "export": partial(export_dialog.dialog, slice),
            "views": saved_views.views,
            "share": saved_views.share,
        }
    )


def _body(slice: Slice, was_active: bool) -> None:
    """Draw all but the sidebar: one fragment, so that a click on the grid draws the curves as well."""
    with render_turn(LIVE_DELAY_S if was_active else 0.0):
        snapshot = _snapshot()
        if snapshot is None:
            return
        if bool(snapshot.active) != was_active:
            # The intervals at which the fragments are drawn are set by a run of the whole page.
            _draw_page()
        _show_errors(partial(_head, slice, snapshot))
        # Grids side by side need the width of the page; the curves then stand below them.
        left, right = st.columns(2, gap="medium") if not slice.facet else (st.container(), st.container())
        with left:
            _show_errors(partial(_grid, slice, snapshot))
        with right, st.container(key="curves_panel"):
            every = services.poll_interval(CURVES_S, permissions.session()) if snapshot.active else None
            st.fragment(_curves, run_every=every)(slice)
        EXPLORE.write()


def _curves(slice: Slice) -> None:
    with render_turn(LIVE_DELAY_S):
        snapshot = _snapshot()
        if snapshot is not None:
            _show_errors(lambda: curves.draw(slice, _cells(slice, snapshot, _selected()), snapshot.points))
            EXPLORE.write()


def _snapshot() -> LiveSnapshot | None:
    try:
        return services.live().snapshot()
    except JscError as error:
        st.error(str(error))
        return None


def _show_errors(draw: Callable[[], None]) -> None:
    """Draw a panel; an error is shown in the panel's own place, and the other panels stay."""
    try:
        draw()
    except JscError as error:
        st.error(str(error))


def _draw_page() -> None:
    """Draw the whole page again, which nobody has clicked for: not under an open dialog, which would close."""
    if not dialogs.is_open():
        st.session_state[_BY_ITSELF] = True
        st.rerun()


def _await_predictions() -> None:
    """Draw the page again as soon as the predictions that it lacks are computed."""
    if predictions.are_ready():
        _draw_page()


def _watch(version: int) -> None:
    """Draw the page again as soon as anything trains, or the store holds other runs than those that were drawn."""
    snapshot = _snapshot()
    if snapshot is not None and (snapshot.store_version != version or snapshot.active):
        _draw_page()


def _selected() -> tuple[Place, ...]:
    return tuple(EXPLORE[CELLS])


@lru_cache(maxsize=128)
def _cells(slice: Slice, snapshot: LiveSnapshot, selected: tuple[Place, ...]) -> tuple[Cell, ...]:
    """Return the cells of a slice: built once for a snapshot, whatever number of panels and sessions draw them."""
    return tuple(grid.cells_of(slice, [*snapshot.active, *snapshot.failed], selected))


def _head(slice: Slice, snapshot: LiveSnapshot) -> None:
    """Draw the title, the buttons that open dialogs, and what the last request led to."""
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        st.markdown(f"##### {grid.title(slice, _cells(slice, snapshot, _selected()))}", width="stretch")
        dialogs.button("train", "Train…", ":material/model_training:", "Train any configuration")
        dialogs.button("export", "Export", ":material/download:", "Charts, tables and commands as files")
    permissions.draw_notice()


def _grid(slice: Slice, snapshot: LiveSnapshot) -> None:
    """Draw the grid, the jobs, and the selected cells."""
    cells = _cells(slice, snapshot, _selected())
    grid.draw(slice, cells)
    # Before what appears and vanishes: at another position it would be another element, and lose the focus.
    grid.draw_cell_list(slice, cells)
    job_list.draw(snapshot, slice)
    selected = grid.selected_of(cells)
    cell_details.draw(slice, selected)
    compare_selection.propose([cell.config for cell in selected])
