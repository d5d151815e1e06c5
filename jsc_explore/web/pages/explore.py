"""The Explore page: a grid of configs, their learning curves, and the jobs that are queued or running."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache, partial

import streamlit as st

from jsc_explore.analysis.cells import Cell, Place
from jsc_explore.errors import JscError
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS, CURVES, RESPONSE
from jsc_explore.web.components import (
    best_config,
    cell_details,
    curves,
    export_dialog,
    grid,
    headline,
    job_list,
    permissions,
    response,
    saved_views,
    sidebar,
    train_dialog,
)
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import compare_selection, dialogs, predictions, presentation, services, visitor
from jsc_explore.web.state.live import LiveSnapshot, ended_in_session
from jsc_explore.web.state.render_queue import LIVE_DELAY_S, PAGE_DELAY_S, render_turn, tune_interpreter
from jsc_explore.web.state.url import EXPLORE

# While something trains the curves are drawn seven times a second, all else once. An idle page checks every few seconds
# whether somebody else has started a training.
CURVES_S, BODY_S, PREDICTIONS_S, WATCH_S = 0.15, 1.0, 0.4, 3.0
_AUTOMATIC, _DRAWN_AT = "_automatic rerun", "_end of the last fragment run"
# The browser removes what a fragment did not draw again when it receives the end of that run. Streamlit withdraws this
# message if another fragment starts before it is sent, which takes some 10 ms: then old elements stay.
_SENT_AFTER_S = 0.3


def page() -> None:
    """Draw the page."""
    with render_turn(PAGE_DELAY_S if st.session_state.pop(_AUTOMATIC, False) else 0.0):
        _page()
        tune_interpreter()


def _page() -> None:
    EXPLORE.restore()
    try:
        store = services.store()
        services.start_engine()
        snapshot = services.live().snapshot()
    except JscError as error:
        st.error(plain(error))
        return
    for problem in store.problems:
        st.warning(plain(problem), icon=":material/broken_image:")
    slice, counts = sidebar.draw(store)
    presentation.apply_style()
    if slice is None:
        return
    permissions.draw_status()
    headline.draw(slice, counts)
    predictions.begin(wait=dialogs.is_open())
    active = bool(snapshot.active)
    interval = partial(services.poll_interval, session=visitor.session())
    st.fragment(_body, run_every=interval(BODY_S) if active else None)(slice, active)
    # The end of a run of the whole page is always sent.
    st.session_state.pop(_DRAWN_AT, None)
    watch_interval = partial(interval, full_rate_sessions=services.FULL_RATE_WATCHERS)
    if predictions.are_pending():
        st.fragment(_await_predictions, run_every=watch_interval(PREDICTIONS_S))()
    elif not active:
        st.fragment(_watch, run_every=watch_interval(WATCH_S))(snapshot.store_version)
    dialogs.draw(
        {
            "train": partial(train_dialog.dialog, slice),
            "export": partial(export_dialog.explore_dialog, slice),
            "views": saved_views.views,
            "share": saved_views.share,
        }
    )


def _body(slice: Slice, was_active: bool) -> None:
    """Draw all but the sidebar in one fragment, so that a click on the grid redraws the curves, too."""
    with render_turn(LIVE_DELAY_S if was_active else 0.0):
        snapshot = _snapshot()
        if snapshot is None:
            return
        if bool(snapshot.active) != was_active:
            # Only a run of the whole page sets the intervals of the fragments.
            _rerun_page()
        _show_errors(lambda: headline.draw_counts(slice, _cells(slice, snapshot)))
        permissions.draw_notice()
        # Grids side by side need the width of the page: then the curves are below them.
        left, right = st.columns(2, gap="medium") if not slice.facet else (st.container(), st.container())
        with left:
            _show_errors(partial(_grid, slice, snapshot))
        with right, st.container(key="curves_panel", gap="xsmall"):
            is_live = snapshot.active and EXPLORE["panel"] == CURVES
            every = services.poll_interval(CURVES_S, visitor.session()) if is_live else None
            st.fragment(_panel, run_every=every)(slice)
        EXPLORE.write()
        st.session_state[_DRAWN_AT] = time.monotonic()


def _panel(slice: Slice) -> None:
    """Draw the panel that is chosen: the curves, or the metric against one hyperparameter."""
    with render_turn(LIVE_DELAY_S):
        snapshot = _snapshot()
        if snapshot is not None:
            names = {CURVES: "Curves", RESPONSE: response.label(slice)}
            EXPLORE.widget(
                st.segmented_control, "panel", "Panel", list(names), format_func=names.get, required=True,
                label_visibility="collapsed",
            )  # fmt: skip
            if EXPLORE["panel"] == RESPONSE:
                _show_errors(partial(response.draw, slice))
            else:
                _show_errors(lambda: curves.draw(slice, _cells(slice, snapshot), snapshot.points))
            EXPLORE.write()
            st.session_state[_DRAWN_AT] = time.monotonic()


def _snapshot() -> LiveSnapshot | None:
    try:
        return services.live().snapshot()
    except JscError as error:
        st.error(plain(error))
        return None


def _show_errors(draw: Callable[[], None]) -> None:
    """Draw a panel; an error is shown in its place, and the other panels are still drawn."""
    try:
        draw()
    except JscError as error:
        st.error(plain(error))


def _rerun_page() -> None:
    """Run the whole page again without a click; not while a dialog is open, which would close."""
    if not dialogs.is_open():
        st.session_state[_AUTOMATIC] = True
        st.rerun()


def _await_predictions() -> None:
    """Run the page again as soon as its pending predictions are computed."""
    if predictions.are_ready():
        _rerun_page()


def _watch(version: int) -> None:
    """Run the page again when something trains, the store has changed, or old elements may have stayed."""
    may_have_old_elements = time.monotonic() - st.session_state.get(_DRAWN_AT, -math.inf) < _SENT_AFTER_S
    snapshot = _snapshot()
    if may_have_old_elements or (snapshot is not None and (snapshot.store_version != version or snapshot.active)):
        _rerun_page()


def _selected() -> tuple[Place, ...]:
    return tuple(EXPLORE[CELLS])


def _cells(slice: Slice, snapshot: LiveSnapshot) -> tuple[Cell, ...]:
    """Return the cells of a slice, with the runs that were cancelled in the time of this session."""
    cancelled = frozenset(job.run_id for job in ended_in_session(snapshot.cancelled))
    return _cells_of(slice, snapshot, _selected(), cancelled)


@lru_cache(maxsize=128)
def _cells_of(
    slice: Slice, snapshot: LiveSnapshot, selected: tuple[Place, ...], cancelled: frozenset[str]
) -> tuple[Cell, ...]:
    # Built once per snapshot for all panels, and for all sessions that show the same.
    jobs = [*snapshot.active, *snapshot.failed, *(job for job in snapshot.cancelled if job.run_id in cancelled)]
    return tuple(grid.cells_of(slice, jobs, selected))


def _grid(slice: Slice, snapshot: LiveSnapshot) -> None:
    """Draw the grid, the jobs, the selected cells, and the best config."""
    cells = _cells(slice, snapshot)
    grid.draw(slice, cells)
    # Before the elements that come and go: at another position it would be a new element and lose the focus.
    grid.draw_cell_list(slice, cells)
    job_list.draw(snapshot, slice)
    selected = grid.selected_of(cells)
    cell_details.draw(slice, selected)
    best_config.draw(slice, snapshot)
    compare_selection.propose([cell.config for cell in selected])
