"""What configs that nobody trained would likely score, computed once for all who look at the same runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Calibration, Forecast, Prediction, predict
from jsc_explore.config import RunConfig
from jsc_explore.store.cells import cell_table
from jsc_explore.views import resources
from jsc_explore.views.slicing import Slice

_SHOWN, _CALIBRATION = "shown predictions", "calibration of predictions"


def forecast(runs: Sequence[RunConfig], score: str) -> Forecast:
    """Return what is expected of these runs, from those of the same data and protocol as the first."""
    return _forecast(resources.store().version, json.dumps([run.to_dict() for run in runs], sort_keys=True), score)


def predictions(view: Slice, cells: Sequence[Cell]) -> Mapping[str, Prediction]:
    """Return what cells without a run are expected to score, by config id; nothing where nothing can be said.

    While something trains, what was expected before stays, under the real scores as they come.
    """
    missing = [cell for cell in cells if not cell.n]
    if any(cell.active for cell in cells):
        return kept(view.score)
    if not missing:
        return {}
    found = forecast([cell.config for cell in missing], view.score)
    shown = {cell.config_id: guess for cell, guess in zip(missing, found.predictions, strict=True) if guess is not None}
    st.session_state.setdefault(_SHOWN, {}).setdefault(view.score, {}).update(shown)
    st.session_state[_CALIBRATION] = found.calibration
    return shown


def kept(score: str) -> Mapping[str, Prediction]:
    """Return every prediction that this page has shown, by config id: what was expected stays when it was trained."""
    known: Mapping[str, Prediction] = st.session_state.get(_SHOWN, {}).get(score, {})
    return known


def calibration_words() -> str:
    """Say how far the predictions shown can be trusted, as measured on cells that were held out."""
    found: Calibration | None = st.session_state.get(_CALIBRATION)
    if found is None:
        return "predicted from the cells around"
    return f"predicted; {found.inside} of {found.held_out} measured cells, held out, lay inside their 80% band"


@st.cache_data(show_spinner=False, max_entries=64)
def _forecast(version: int, configs: str, score: str) -> Forecast:
    rows: list[dict[str, Any]] = json.loads(configs)
    runs = [RunConfig.from_dict(row) for row in rows]
    first = runs[0]
    scope = {"dataset": [first.dataset], "protocol": [first.protocol], "data_digest": [data.digest(first.dataset)]}
    return predict(cell_table(resources.store(), score, scope).to_pylist(), runs, score)
