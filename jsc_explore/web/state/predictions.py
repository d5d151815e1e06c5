"""What configs that nobody trained would likely metric, computed once for all who look at the same runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Calibration, Forecast, Prediction
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.view_model.repository import Repository
from jsc_explore.web.components.sidebar import Slice
from jsc_explore.web.state import services
from jsc_explore.web.state.render_queue import waiting

_SHOWN, _CALIBRATION, _AWAITED = "shown predictions", "calibration of predictions", "awaited predictions"
_WAITS = "waits for predictions"


def forecast(runs: Sequence[RunConfig], metric: str) -> Forecast:
    """Return what is expected of these runs, from those of the same data and validation as the first."""
    while True:
        with suppress(CancelledError):  # The store has changed meanwhile.
            return _later(services.store().version, _written(runs), metric).result()


def predictions(view: Slice, cells: Sequence[Cell]) -> Mapping[str, Prediction]:
    """Return what missing cells are expected to metric, by config id; nothing where nothing can be said.

    Finding it takes seconds after every change of the store, which nobody who clicks a cell shall wait for: meanwhile,
    and while something trains, what was expected before stays, under the real metrics as they come. ``is_due`` tells
    when the page, which began with ``begin``, is to be drawn anew.
    """
    # What a filter in words leaves out is known; asking for it would fit the process anew for every filter.
    missing = [cell for cell in cells if cell.state == "missing"]
    if any(cell.active for cell in cells) or not missing:
        return kept(view.metric)
    runs = [cell.config for cell in missing]
    future = _later(services.store().version, _written(runs), view.metric)
    if not future.done() and not st.session_state.get(_WAITS):
        st.session_state.setdefault(_AWAITED, []).append(future)
        return kept(view.metric)
    try:
        if not future.done():  # else nobody shall wait for another turn
            with waiting():
                wait([future])
        found = future.result()
    except CancelledError:
        return kept(view.metric)
    shown = {cell.config_id: guess for cell, guess in zip(missing, found.predictions, strict=True) if guess is not None}
    st.session_state.setdefault(_SHOWN, {}).setdefault(view.metric, {}).update(shown)
    st.session_state[_CALIBRATION] = found.calibration
    return shown


def begin(wait: bool) -> None:
    """Begin to draw a page, which lacks nothing yet; with ``wait`` it waits for what it asks for and never will."""
    st.session_state.pop(_AWAITED, None)
    st.session_state[_WAITS] = wait


def awaited() -> bool:
    """Whether the page, as it was drawn last, lacks predictions that are being found."""
    return bool(st.session_state.get(_AWAITED))


def is_due() -> bool:
    """Whether what the page lacked has been found since."""
    if any(not future.done() for future in st.session_state.get(_AWAITED, [])):
        return False
    return bool(st.session_state.pop(_AWAITED, []))


def kept(metric: str) -> Mapping[str, Prediction]:
    """Return every prediction that this page has shown, by config id: what was expected stays when it was trained."""
    known: Mapping[str, Prediction] = st.session_state.get(_SHOWN, {}).get(metric, {})
    return known


def words(view: Slice, cells: Sequence[Cell]) -> str:
    """Say how far the predictions in a grid can be trusted, as measured on cells held out; empty if there are none."""
    if not any(cell.config_id in kept(view.metric) for cell in cells if cell.state == "missing"):
        return ""
    found: Calibration | None = st.session_state.get(_CALIBRATION)
    if found is None:
        return "predicted from the cells around"
    return f"predicted; {found.inside} of {found.held_out} measured cells, held out, lay inside their 80% band"


def _written(runs: Sequence[RunConfig]) -> str:
    return json.dumps([run.to_dict() for run in runs], sort_keys=True)


@lru_cache(maxsize=1)
def _worker() -> ThreadPoolExecutor:
    # One: what is found in turn is found as soon, and clicks are answered meanwhile.
    return ThreadPoolExecutor(1, thread_name_prefix="forecast")


# What was asked for and may not have begun, with the version of the store that it was asked of.
_ASKED: list[tuple[int, Future[Forecast]]] = []
_ASKING = threading.Lock()


@st.cache_resource(show_spinner=False, max_entries=64)
def _later(version: int, configs: str, metric: str) -> Future[Forecast]:
    # Five seeds that end within a second change the store five times; only what is asked of the last is wanted still.
    with _ASKING:
        for earlier, future in list(_ASKED):
            if future.done() or (earlier < version and future.cancel()):
                _ASKED.remove((earlier, future))
        future = _worker().submit(_forecast, services.store(), configs, metric)
        _ASKED.append((version, future))
    return future


def _forecast(store: Store, configs: str, metric: str) -> Forecast:
    return Repository(store).forecast([RunConfig.from_dict(row) for row in json.loads(configs)], metric)
