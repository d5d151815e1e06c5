"""The popover of imported runs beside the curves: selects those to draw, and lists them."""

from __future__ import annotations

import streamlit as st

from jsc_explore.view_model.imported_runs import MAX_DRAWN, runs_table, select_imported
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services
from jsc_explore.web.state.url import EXPLORE

_WIDGET = "_imported drawn"


def any_drawn() -> bool:
    """Whether any imported run is drawn."""
    return bool(select_imported(services.imported().all(), EXPLORE["imported"])[0])


def draw() -> None:
    """Draw the popover, if there are imported runs."""
    imported = services.imported()
    runs = imported.all()
    if not runs:
        return
    names = [run.name for run in runs]
    with st.popover(f"Imported ({len(runs)})", icon=":material/input:", help="Runs that other programs trained"):
        drawn, _ = select_imported(runs, EXPLORE["imported"])
        # Set from the state, which may name runs that are not imported here.
        st.session_state[_WIDGET] = [run.name for run in drawn]
        st.multiselect("Drawn over the curves", names, key=_WIDGET, max_selections=MAX_DRAWN, on_change=_changed)
        st.caption(
            "Dashed lines with names. Another program trained these runs: they are not part of any median, seed count "
            "or cell. `jsc-explore import --remove NAME` removes one."
        )
        st.dataframe(runs_table(runs), hide_index=True, column_config=_COLUMNS)
        for problem in imported.problems:
            st.warning(plain(problem), icon=":material/broken_image:")


def _changed() -> None:
    names = list(st.session_state[_WIDGET])
    default = [run.name for run in services.imported().all()][:MAX_DRAWN]
    # The default selection is not written to the URL.
    EXPLORE.change("imported", None if names == default else names)


_COLUMNS = {name: st.column_config.NumberColumn(format="percent") for name in ("val_acc", "train_acc", "test_acc")}
