"""The popover of imported runs beside the curves: which are drawn, and what is known of them."""

from __future__ import annotations

import streamlit as st

from jsc_explore.view_model.imported_runs import MAX_DRAWN, runs_table, select_imported
from jsc_explore.web.state import services
from jsc_explore.web.state.url import EXPLORE

_WIDGET = "_imported drawn"


def any_drawn() -> bool:
    """Whether an imported run is among what is drawn."""
    return bool(select_imported(services.imported().all(), EXPLORE["imported"])[0])


def draw() -> None:
    """Draw the popover, where anything is imported."""
    imported = services.imported()
    runs = imported.all()
    if not runs:
        return
    names = [run.name for run in runs]
    with st.popover(f"Imported ({len(runs)})", icon=":material/input:", help="Runs that other programs trained"):
        drawn, _ = select_imported(runs, EXPLORE["imported"])
        # The widget follows the state, which may name runs that are not here.
        st.session_state[_WIDGET] = [run.name for run in drawn]
        st.multiselect("Drawn over the curves", names, key=_WIDGET, max_selections=MAX_DRAWN, on_change=_changed)
        st.caption(
            "Dashed, each with its name. They were trained by another program: they enter no mean, count as no seed "
            "and fill no cell. `jsc-explore import --remove NAME` takes one away."
        )
        st.dataframe(runs_table(runs), hide_index=True, column_config=_COLUMNS)
        for problem in imported.problems:
            st.warning(problem, icon=":material/broken_image:")


def _changed() -> None:
    names = list(st.session_state[_WIDGET])
    everything = [run.name for run in services.imported().all()][:MAX_DRAWN]
    # The runs that are drawn by default need not be in the URL.
    EXPLORE.change("imported", None if names == everything else names)


_COLUMNS = {name: st.column_config.NumberColumn(format="percent") for name in ("val_acc", "train_acc", "test_acc")}
