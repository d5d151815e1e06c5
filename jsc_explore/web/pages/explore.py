"""The Explore page: a grid of configs, their learning curves, and what is under way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.errors import JscError
from jsc_explore.jobs import Job
from jsc_explore.jobs.queue.queue import ACTIVE
from jsc_explore.results import Point
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
from jsc_explore.web.components.sidebar import Slice
from jsc_explore.web.state import compare_selection, predictions, presentation, services, url
from jsc_explore.web.state.render_queue import LIVE_DELAY_S, PAGE_DELAY_S, render_turn, tune

# Curves grow five times a second and more; the grid's figures and the rows of what is under way are read more slowly.
# A page on which nothing happens looks every few seconds whether somebody else has asked for something.
CURVES_S, GRID_S, AWAIT_S, WATCH_S = 0.15, 1.0, 0.4, 3.0
_DRAWN, _DOOR, _BY_ITSELF = "_drawn cells", "_open door", "_drawn by itself"
# Side by side only where both charts are readable; a click on a chart focuses the page, which needs no frame.
_STYLE = """<style>
[data-testid=stColumn]:has(.st-key-grid, .st-key-curves_panel) {min-width: min(100%, 440px);}
[data-testid=stMain]:focus-visible {outline: none; box-shadow: none;}
/* As high with one line of words as with two: nothing jumps when they change. */
[class*=st-key-live-] {min-height: 4.75rem;}
.st-key-head > div:first-child {flex: 1 1 18rem; width: auto; min-width: min(100%, 16rem);}
/* Room for a chart's toolbar, which floats over its upper edge. */
.st-key-curve_controls, .st-key-head {margin-bottom: 1.2rem;}
</style>"""
# On the bright blue of the dark theme white letters cannot be read.
_DARK = """<style>
[data-testid=stMultiSelect] span[title], [data-testid=stMultiSelect] span[title] ~ *,
[data-testid=stBaseButton-primary], [data-testid=stBaseButton-primary] p {color: #101418;}
</style>"""


def page() -> None:
    """Draw the page."""
    with render_turn(PAGE_DELAY_S if st.session_state.pop(_BY_ITSELF, False) else 0.0):
        _page()
        tune()


def _page() -> None:
    for line in url.restore():
        st.warning(line, icon=":material/link_off:")
    try:
        store, queue = services.store(), services.queue()
    except JscError as error:
        st.error(str(error))
        return
    services.serve()
    for problem in store.problems:
        st.warning(problem, icon=":material/broken_image:")
    store.refresh()
    view = sidebar.draw(store, _ask_for)
    dark = st.context.theme.type == "dark"
    st.html(_STYLE + (_DARK if dark else "") + presentation.style())
    if view is None:
        return
    permissions.door()
    active = bool(queue.jobs(ACTIVE))
    door = st.session_state.pop(_DOOR, None)
    # A page that draws itself anew takes away the dialog over it, and the files that it has just made.
    predictions.begin(wait=door is not None)
    st.session_state[_DRAWN] = list(url.chosen_cells())
    curves_s, grid_s = (
        services.poll_interval(every, permissions.session()) if active else None for every in (CURVES_S, GRID_S)
    )
    _fragment(_head, grid_s)(view, active)
    # Grids side by side need the width of the page; the curves then stand below them.
    left, right = st.columns(2, gap="medium") if not view.facet else (st.container(), st.container())
    with left:
        _fragment(_left, grid_s)(view, active)
    with right, st.container(key="curves_panel"):
        _fragment(_right, curves_s)(view, active)
    looks = partial(services.poll_interval, session=permissions.session(), at_full_pace=services.LOOKING_AT_FULL_PACE)
    if predictions.awaited():
        st.fragment(_await, run_every=looks(AWAIT_S))()
    elif not active and door is None:
        st.fragment(_watch, run_every=looks(WATCH_S))(store.version)
    if door == "train":
        train_dialog.dialog(view)
    elif door == "files":
        export_dialog.dialog(view)
    elif door == "views":
        saved_views.views()
    elif door == "share":
        saved_views.share()


def _fragment(panel: Callable[[Slice, bool], None], every: float | None) -> Callable[[Slice, bool], None]:
    """Return a panel that is drawn anew by itself, and says what is wrong in its own place."""

    def drawn(view: Slice, active: bool) -> None:
        with render_turn(LIVE_DELAY_S if every else 0.0):
            # A box behind a door that was closed has taken its state along; the address has it still.
            url.restore_filters()
            try:
                panel(view, active)
            except JscError as error:
                st.error(str(error))
            url.write()

    drawn.__qualname__ = panel.__qualname__
    result: Callable[[Slice, bool], None] = st.fragment(drawn, run_every=every)
    return result


def _ask_for(door: str) -> None:
    st.session_state[_DOOR] = door


def _open(door: str) -> None:
    _ask_for(door)
    st.rerun()


def _draw_anew() -> None:
    """Draw the whole page, which nobody has clicked for."""
    st.session_state[_BY_ITSELF] = True
    st.rerun()


def _await() -> None:
    """Draw the page anew as soon as the predictions that it lacks are found."""
    if predictions.is_due():
        _draw_anew()


def _watch(version: int) -> None:
    """Draw the page anew as soon as anything trains, or the store holds other runs than those that were drawn."""
    try:
        with render_turn(PAGE_DELAY_S):
            services.store().refresh()
        if services.store().version != version or services.queue().jobs(ACTIVE):
            _draw_anew()
    except JscError:
        return  # The panels say what is wrong, in their own place, when they are drawn next.


def _now(active: bool) -> tuple[list[Job], dict[str, list[Point]]]:
    """Read queue and store as of now; a page that began or ended to be live is drawn anew as a whole."""
    # The queue first, then the store: a run that ends in between is seen twice rather than not at all.
    jobs, points = services.queue().live()
    services.store().refresh()
    if bool(jobs) != active:
        _draw_anew()
    return jobs, points


def _cells(view: Slice, jobs: list[Job]) -> list[Cell]:
    return grid.cells_of(view, [*jobs, *services.queue().jobs(("failed",))])


def _head(view: Slice, active: bool) -> None:
    """Say in one line what is seen, and hold the doors to what is not: the form and the files."""
    jobs, _ = _now(active)
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        st.markdown(f"##### {grid.title(view, _cells(view, jobs))}", width="stretch")
        if st.button("Train…", icon=":material/model_training:", help="Train any configuration"):
            _open("train")
        if st.button("Export", icon=":material/download:", help="Charts, tables and commands as files"):
            _open("files")
    permissions.draw_pending_notice()


def _left(view: Slice, active: bool) -> None:
    """The grid, what is under way, and the chosen cells."""
    if st.session_state[url.CELLS] != st.session_state.get(_DRAWN) or permissions.has_pending_notice():
        # A click on the grid concerns the curves, and what a request came to the head: both are other fragments.
        st.rerun()
    jobs, _ = _now(active)
    cells = _cells(view, jobs)
    grid.draw(view, cells)
    # Before all that comes and goes: in another place it would be another element, without the focus.
    grid.by_name(view, cells)
    job_list.draw(services.queue(), jobs, view)
    chosen = grid.chosen_of(cells)
    cell_details.draw(view, chosen)
    compare_selection.offer([cell.config for cell in chosen])


def _right(view: Slice, active: bool) -> None:
    """The curves."""
    jobs, points = _now(active)
    curves.controls()
    curves.draw(view, _cells(view, jobs), points)
