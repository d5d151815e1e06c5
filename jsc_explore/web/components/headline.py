"""The head of the Explore page: what it is for, what is seen, what is held fixed, and what leads on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.view_model import headline
from jsc_explore.view_model.questions import QUESTIONS, Question
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS
from jsc_explore.web.components import filters
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import dialogs
from jsc_explore.web.state.url import EXPLORE

INTRODUCTION = "**JSC Explore**: how hyperparameters shape the training of small networks that sort particle jets"


def draw(slice: Slice, counts: Mapping[str, Mapping[Any, int]]) -> None:
    """Draw the sentence about the page, the title with its buttons, and a chip for each value that is held fixed.

    ``counts`` has the stored values of each field with their numbers of runs.
    """
    with st.container(key="headline", gap="xxsmall"):
        large = EXPLORE["presentation"]
        if not large:
            st.caption(INTRODUCTION)
        with st.container(horizontal=True, vertical_alignment="center", key="head", gap="small"):
            st.markdown(f"##### {plain(headline.title(slice))}", width="stretch")
            _draw_questions()
            dialogs.button("train", "Train…", ":material/model_training:", "Train any configuration")
            dialogs.button("export", "Export", ":material/download:", "Charts, tables and commands as files")
            if large:
                st.button(
                    "End", icon=":material/fullscreen_exit:", key="end_presentation", help="Leave presentation mode",
                    on_click=EXPLORE.change, args=("presentation", False),
                )  # fmt: skip
        # A lecture shows the values and does not change them one by one.
        if large:
            st.caption(plain(headline.fixed_text(slice, beside_title=True)))
        else:
            _draw_chips(slice, counts)


def draw_counts(slice: Slice, cells: Sequence[Cell]) -> None:
    """Draw how many runs are seen; where many have a silent class, a button that compares without the final ReLU."""
    # The containers are always drawn: otherwise what follows would move to another position and lose the focus.
    with st.container(horizontal=True, vertical_alignment="center", key="counts", gap="small"):
        silent = headline.silent_runs_text(slice, cells)
        counts = f"{headline.counts_text(slice, cells)}."
        st.caption(f"{plain(counts)} {plain(silent)}".rstrip(), width="content")
        if silent and st.button(
            "Compare without the final ReLU", key="without_final_relu", type="tertiary", icon=":material/compare:",
            help="Two grids side by side. The final ReLU sets negative outputs to zero; a class whose output is "
            "always zero is not learned any more",
        ):  # fmt: skip
            _compare_final_relu()
            # This is drawn in a fragment, and the slice is that of the whole page.
            st.rerun()


def _draw_questions() -> None:
    popover = st.popover(
        "Questions", icon=":material/help:", key="questions", on_change="rerun", help="Views that answer the lab"
    )
    if popover.open:
        with popover:
            for number, question in enumerate(QUESTIONS):
                st.button(
                    question.text, key=f"question {number}", type="tertiary", on_click=_open_question, args=(question,)
                )


def _draw_chips(slice: Slice, counts: Mapping[str, Mapping[Any, int]]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="chips", gap="xxsmall"):
        for name in headline.held_fields(slice):
            popover = st.popover(plain(headline.held_text(slice, name)), key=f"chip {name}", on_change="rerun")
            # Made only when it is open: each widget costs the browser some 10 ms before it draws the first chart.
            if popover.open:
                with popover:
                    filters.draw(EXPLORE, name, False, counts[name], place="chip")


def _open_question(question: Question) -> None:
    EXPLORE.load({**question.query, **({"presentation": "yes"} if EXPLORE["presentation"] else {})})
    EXPLORE.write()


def _compare_final_relu() -> None:
    state = {**EXPLORE, "facet": "final_relu"}
    EXPLORE.params.reset_filters(state, ["final_relu"])
    # Places of cells have one value more with a facet.
    EXPLORE.update(state | {CELLS: [], "zoom": None})
