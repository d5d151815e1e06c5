"""What configs that nobody trained would likely score, computed once for all who look at the same runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Forecast, Prediction, predict
from jsc_explore.config import RunConfig
from jsc_explore.store.cells import cell_table
from jsc_explore.views import resources
from jsc_explore.views.slicing import Slice

_SHOWN = "shown predictions"


def forecast(runs: Sequence[RunConfig], score: str) -> Forecast:
    """Return what is expected of these runs, from those of the same data and protocol as the first."""
    return _forecast(resources.store().version, json.dumps([run.to_dict() for run in runs], sort_keys=True), score)


def predictions(view: Slice, cells: Sequence[Cell]) -> Mapping[str, Prediction]:
    """Return what cells without a run are expected to score, by config id; nothing where nothing can be said.

    While something trains, what was expected before stays, under the real scores as they come.
    """
    missing = [cell for cell in cells if not cell.n]
    if any(cell.active for cell in cells):
        kept: dict[str, Prediction] = st.session_state.get(_SHOWN, {})
        return kept
    if not missing:
        return {}
    found = forecast([cell.config for cell in missing], view.score).predictions
    shown = {cell.config_id: guess for cell, guess in zip(missing, found, strict=True) if guess is not None}
    st.session_state[_SHOWN] = shown
    return shown


@st.cache_data(show_spinner=False, max_entries=64)
def _forecast(version: int, configs: str, score: str) -> Forecast:
    rows: list[dict[str, Any]] = json.loads(configs)
    runs = [RunConfig.from_dict(row) for row in rows]
    first = runs[0]
    scope = {"dataset": [first.dataset], "protocol": [first.protocol], "data_digest": [data.digest(first.dataset)]}
    return predict(cell_table(resources.store(), score, scope).to_pylist(), runs, score)
