"""Predicted metrics of configs that are not trained yet, computed once for all sessions that show the same runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache

import streamlit as st

from jsc_explore.analysis import prediction
from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Calibration, Prediction, PredictionSet
from jsc_explore.analysis.support import KINDS, Kind
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.web.state import services
from jsc_explore.web.state.render_queue import yield_turn

_SHOWN, _CALIBRATIONS, _PENDING = "shown predictions", "calibrations of predictions", "pending predictions"
_BLOCKING = "wait for predictions"


def predict(runs: Sequence[RunConfig], metric: str) -> PredictionSet:
    """Return predictions of these runs, from the runs on the same data and validation as the first of them."""
    while True:
        with suppress(CancelledError):  # The store has changed meanwhile: ask again.
            return _request(services.store().version, _to_json(runs), metric).result()


def predictions(slice: Slice, cells: Sequence[Cell]) -> Mapping[str, Prediction]:
    """Return predicted metrics of missing cells by config id, without the cells that cannot be predicted.

    After every change of the store they take seconds to compute. Clicks do not wait for that: until then, and while
    runs train, this returns the predictions shown before. ``are_ready`` tells when to draw the page again; each run
    of the page starts with ``begin``.
    """
    # Cells that only the filter expression hides are measured; predicting them would cost a fit for every expression.
    missing = [cell for cell in cells if cell.state == "missing"]
    if any(cell.active for cell in cells) or not missing:
        return shown(slice.metric)
    runs = [cell.config for cell in missing]
    future = _request(services.store().version, _to_json(runs), slice.metric)
    if not future.done() and not st.session_state.get(_BLOCKING):
        st.session_state.setdefault(_PENDING, []).append(future)
        return shown(slice.metric)
    try:
        if not future.done():  # otherwise keep this page's turn
            with yield_turn():
                wait([future])
        found = future.result()
    except CancelledError:
        return shown(slice.metric)
    found_by_id = {
        cell.config_id: guess for cell, guess in zip(missing, found.predictions, strict=True) if guess is not None
    }
    st.session_state.setdefault(_SHOWN, {}).setdefault(slice.metric, {}).update(found_by_id)
    st.session_state.setdefault(_CALIBRATIONS, {})[slice.metric] = found.calibrations
    return found_by_id


def begin(wait: bool) -> None:
    """Start a run of a page; with ``wait``, ``predictions`` blocks until they are computed."""
    st.session_state.pop(_PENDING, None)
    st.session_state[_BLOCKING] = wait


def are_pending() -> bool:
    """Whether the page was drawn without predictions that are still being computed."""
    return bool(st.session_state.get(_PENDING))


def are_ready() -> bool:
    """Whether all pending predictions are computed; true once."""
    if any(not future.done() for future in st.session_state.get(_PENDING, [])):
        return False
    return bool(st.session_state.pop(_PENDING, []))


def shown(metric: str) -> Mapping[str, Prediction]:
    """Return all predictions shown in this session, by config id, also those of configs trained since."""
    known: Mapping[str, Prediction] = st.session_state.get(_SHOWN, {}).get(metric, {})
    return known


def describe(slice: Slice, cells: Sequence[Cell]) -> str:
    """Describe how reliable the predictions in a grid are, measured on held-out cells; empty if there are none."""
    known = shown(slice.metric)
    drawn = [known[cell.config_id] for cell in cells if cell.state == "missing" and cell.config_id in known]
    if not drawn:
        return ""
    calibrations: Mapping[Kind, Calibration] = st.session_state.get(_CALIBRATIONS, {}).get(slice.metric, {})
    return describe_kinds({prediction.kind for prediction in drawn}, calibrations)


def describe_kinds(kinds: Collection[Kind], calibrations: Mapping[Kind, Calibration]) -> str:
    """Describe how often bands held on held-out cells, for each of these kinds of predicted cells."""
    shares = [
        f"{calibrations[kind].inside} of {calibrations[kind].held_out} {text}"
        for kind, text in KINDS.items()
        if kind in kinds and kind in calibrations
    ]
    held = f"; held-out predictions inside theirs: {', '.join(shares)}" if shares else ""
    return f"predicted, with its 80% band{held}"


def _to_json(runs: Sequence[RunConfig]) -> str:
    return json.dumps([run.to_dict() for run in runs], sort_keys=True)


@lru_cache(maxsize=1)
def _worker() -> ThreadPoolExecutor:
    # One thread: two would not finish sooner, and would slow down clicks.
    return ThreadPoolExecutor(1, thread_name_prefix="predictions")


# Requested predictions, some of them not started yet, each with its store version.
_REQUESTED: list[tuple[int, Future[PredictionSet]]] = []
_REQUEST_LOCK = threading.Lock()


@st.cache_resource(show_spinner=False, max_entries=64)
def _request(version: int, configs: str, metric: str) -> Future[PredictionSet]:
    # Five seeds that end within a second change the store five times; only the last version is needed.
    with _REQUEST_LOCK:
        for earlier, future in list(_REQUESTED):
            if future.done() or (earlier < version and future.cancel()):
                _REQUESTED.remove((earlier, future))
        future = _worker().submit(_predict, services.store(), configs, metric)
        _REQUESTED.append((version, future))
    return future


def _predict(store: Store, configs: str, metric: str) -> PredictionSet:
    runs = [RunConfig.from_dict(row) for row in json.loads(configs)]
    cells = Repository(store).prediction_cells(runs, metric)
    return services.fits().call(prediction.predict, cells, runs, metric)
