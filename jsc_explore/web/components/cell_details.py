"""Details of the selected cells: results, failures, commands, and buttons that train more seeds."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.charts.grid import seed_texts
from jsc_explore.config import FIELDS, RunConfig, display_value
from jsc_explore.jobs.estimate import estimate_time
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.tables import command
from jsc_explore.web.components import permissions
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services

# Details of more cells than this would push everything else off the screen; then only their sum is shown.
MAX_SHOWN = 3
EXTRA_SEEDS = 3


def train(cells: Sequence[Cell], count: int) -> None:
    """Request ``count`` more seeds of each cell."""
    permissions.train([cell.config.with_(seed=seed) for cell in cells for seed in cell.next_seeds(count)])


def draw(slice: Slice, selected: Sequence[Cell]) -> None:
    """Draw the details of the selected cells, with buttons that train more seeds of each or of all."""
    if not selected:
        st.caption(
            "Click a cell to see its curves, shift-click to compare several, drag a box over many"
            + ("." if permissions.refusal() else "; a click on + trains it.")
        )
        return
    if len(selected) > 1:
        _draw_all(slice, selected)
    if len(selected) <= MAX_SHOWN:
        for cell in selected:
            _draw_one(slice, cell)


def runs_text(runs: Sequence[RunConfig]) -> str:
    """Return the number of runs and their estimated time: 14 runs, about 9 s."""
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}, {estimate_time(services.store(), runs).duration}"


def time_text(runs: Sequence[RunConfig]) -> str:
    """Return the estimated time of runs, with its usual error if that is known: about 9 s, usually within 20%."""
    return str(estimate_time(services.store(), runs))


def _draw_all(slice: Slice, selected: Sequence[Cell]) -> None:
    missing = [run for cell in selected for run in cell.missing_seeds()]
    more = [cell.config.with_(seed=seed) for cell in selected for seed in cell.next_seeds(EXTRA_SEEDS)]
    refusal = permissions.refusal()
    with st.container(horizontal=True, vertical_alignment="center", key="together"):
        st.markdown(f"**{len(selected)} cells**")
        st.button(
            f"Train missing seeds: {runs_text(missing)}" if missing else f"All have {slice.seeds} seeds",
            key="train-missing",
            type="primary" if missing else "secondary",
            disabled=not missing or bool(refusal),
            on_click=permissions.train,
            args=(missing,),
            help=refusal or f"Up to {slice.seeds} seeds in each selected cell: {time_text(missing)}",
        )
        st.button(
            f"Add {EXTRA_SEEDS} seeds to each: {runs_text(more)}",
            key="add-to-each",
            disabled=bool(refusal),
            on_click=permissions.train,
            args=(more,),
            help=refusal or None,
        )


def describe(config: RunConfig, slice: Slice) -> str:
    """Describe a config by its values on the axes and the fields that differ from the base of the slice."""
    names = [*slice.axes]
    names += [
        name for name in FIELDS if name not in (*names, "seed") and config.is_relevant(name)
        and getattr(config, name) != getattr(slice.base, name)
    ]  # fmt: skip
    return ", ".join(f"{FIELDS[name].inline_label} {display_value(name, getattr(config, name))}" for name in names)


def _draw_one(slice: Slice, cell: Cell) -> None:
    name = describe(cell.config, slice)
    with st.container(horizontal=True, vertical_alignment="center", key=f"detail-{cell.config_id}"):
        st.markdown(f"**{name[0].upper() + name[1:]}**  \n{_result(slice, cell)}", width="stretch")
        if cell.state not in ("running", "queued"):
            count = {"missing": slice.seeds, "failed": slice.seeds, "partly": len(cell.missing_seeds())}.get(
                cell.state, 0
            )
            runs = [cell.config.with_(seed=seed) for seed in cell.next_seeds(count or EXTRA_SEEDS)]
            verb = {"missing": "Train ", "failed": "Retry: "}.get(cell.state, "Add ")
            refusal = permissions.refusal()
            st.button(
                verb + runs_text(runs),
                key=f"train-{cell.config_id}",
                on_click=permissions.train,
                args=(runs,),
                disabled=bool(refusal),
                type="secondary" if cell.n else "primary",
                help=refusal or f"More seeds of this configuration: {time_text(runs)}",
            )
        with st.popover("Command", type="tertiary", help="The command line that reproduces these runs"):
            st.code(command(cell.config, cell.seeds or range(slice.seeds)), language="shell", wrap_lines=True)
    if cell.failed:
        reason = (cell.failed[0].error or "no reason given").strip()
        st.error(f"{len(cell.failed)} failed: {plain(reason.splitlines()[-1])}", icon=":material/error:")
        with st.expander("Traceback"):
            st.code(reason, language=None)
            st.caption("  \n".join(map(plain, services.queue().history(cell.failed[0].run_id))))


def _result(slice: Slice, cell: Cell) -> str:
    if not cell.n:
        return {
            "missing": "Not trained yet.",
            "failed": "The training failed.",
            "hidden": f"{cell.n_hidden} runs, left out by the filter expression.",
        }.get(cell.state, "Training.")
    notes = seed_texts(cell, slice.metric)
    if cell.n_silent:
        notes[0] = f":orange[† {notes[0]}]"
    if cell.n_diverged:
        notes.append(f":red[‡ {cell.n_diverged} diverged]")
    if cell.n_hidden:
        notes.append(f"{cell.n_hidden} left out by the filter expression")
    return " · ".join(notes)
