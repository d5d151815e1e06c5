"""What configs that nobody trained would likely score, computed once for all who look at the same runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Forecast, Prediction
from jsc_explore.config import RunConfig
from jsc_explore.views.reading import KeptReader
from jsc_explore.views.slicing import Slice

_SHOWN = "shown predictions"


def forecast(runs: Sequence[RunConfig], score: str) -> Forecast:
    """Return what is expected of these runs, from those of the same data and protocol as the first."""
    return KeptReader().forecast(runs, score)


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
