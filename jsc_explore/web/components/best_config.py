"""The line about the best config of the grid, with a button that trains seeds which did not choose it."""

from __future__ import annotations

import streamlit as st

from jsc_explore.view_model.best_config import BestConfig, best_text, find_best_config
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.web.components import cell_details, permissions
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services
from jsc_explore.web.state.live import LiveSnapshot


def draw(slice: Slice, snapshot: LiveSnapshot) -> None:
    """Draw the line and the button, if at least two configs have enough seeds."""
    # The container is always drawn: otherwise what follows would move to another position and lose the focus.
    with st.container(key="best"):
        found = _found(services.store().version, slice)
        if found is None:
            return
        line, button = st.columns([4, 1], vertical_alignment="center")
        line.caption(plain(best_text(found, slice)))
        active = {job.config.seed for job in snapshot.active if job.config_id == found.config_id}
        if runs := found.next_held_back(slice.seeds, active):
            refusal = permissions.refusal()
            button.button(
                f"Train {len(runs)} held-back seeds", key="held-back", on_click=permissions.train, args=(runs,),
                help=refusal or f"Seeds that did not choose it have an unbiased median: {cell_details.time_text(runs)}",
                disabled=bool(refusal),
            )  # fmt: skip


@st.cache_resource(show_spinner=False, max_entries=128, hash_funcs={Slice: repr})
def _found(version: int, slice: Slice) -> BestConfig | None:
    return find_best_config(Repository(services.store()), slice)
