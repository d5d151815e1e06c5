"""The cells that were chosen: what is known of each, and what may be asked for, alone and together."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.intervals import half_width
from jsc_explore.charts.style import format_metric, is_time
from jsc_explore.config import FIELDS, RunConfig, format_value
from jsc_explore.jobs.estimate import expected, expected_seconds, format_seconds
from jsc_explore.view_model.tables import command
from jsc_explore.web.components import permissions
from jsc_explore.web.components.sidebar import Slice
from jsc_explore.web.state import services

# More cells than this are spoken of together alone: they would push everything else off the screen.
MAX_SHOWN = 3
EXTRA_SEEDS = 3


def train(cells: Sequence[Cell], count: int) -> None:
    """Ask for ``count`` further seeds of each cell."""
    permissions.train([cell.config.with_(seed=seed) for cell in cells for seed in cell.next_seeds(count)])


def draw(view: Slice, chosen: Sequence[Cell]) -> None:
    """Show what is known of the chosen cells, and offer more seeds; for several cells at once, too."""
    if not chosen:
        st.caption(
            "Click a cell to see its curves, shift-click to compare several, drag a box over many"
            + ("." if permissions.refusal() else "; a click on + trains it.")
        )
        return
    if len(chosen) > 1:
        _together(view, chosen)
    if len(chosen) <= MAX_SHOWN:
        for cell in chosen:
            _detail(view, cell)


def offer(runs: Sequence[RunConfig]) -> str:
    """Return how many runs and how long, as one says it: 14 runs, about 9 s."""
    seconds = expected_seconds(services.store(), runs)
    time = f"about {format_seconds(seconds)}" if seconds is not None else "time not known yet"
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''}, {time}"


def estimate(runs: Sequence[RunConfig]) -> str:
    """Return how long runs take and how far that can be trusted: about 9 s, usually within 20%."""
    found = expected(services.store(), runs)
    return "time not known yet" if found is None else str(found)


def _together(view: Slice, chosen: Sequence[Cell]) -> None:
    missing_seeds = [run for cell in chosen for run in cell.missing_seeds()]
    more = [cell.config.with_(seed=seed) for cell in chosen for seed in cell.next_seeds(EXTRA_SEEDS)]
    why = permissions.refusal()
    with st.container(horizontal=True, vertical_alignment="center", key="together"):
        st.markdown(f"**{len(chosen)} cells**")
        st.button(
            f"Fill these: {offer(missing_seeds)}" if missing_seeds else f"All have {view.seeds} seeds",
            key="fill",
            type="primary" if missing_seeds else "secondary",
            disabled=not missing_seeds or bool(why),
            on_click=permissions.train,
            args=(missing_seeds,),
            help=why or f"Every chosen cell up to {view.seeds} seeds: {estimate(missing_seeds)}",
        )
        st.button(
            f"Add {EXTRA_SEEDS} seeds to each: {offer(more)}",
            key="add-to-each",
            disabled=bool(why),
            on_click=permissions.train,
            args=(more,),
            help=why or None,
        )


def describe(config: RunConfig, view: Slice) -> str:
    """Return what tells a config from the others on this page: its axes, and what differs from the slice."""
    names = [*view.axes]
    names += [
        name for name in FIELDS if name not in (*names, "seed") and config.is_relevant(name)
        and getattr(config, name) != getattr(view.base, name)
    ]  # fmt: skip
    return ", ".join(f"{FIELDS[name].inline_label} {format_value(name, getattr(config, name))}" for name in names)


def _detail(view: Slice, cell: Cell) -> None:
    name = describe(cell.config, view)
    with st.container(horizontal=True, vertical_alignment="center", key=f"detail-{cell.config_id}"):
        st.markdown(f"**{name[0].upper() + name[1:]}**  \n{_knowledge(view, cell)}", width="stretch")
        if cell.state not in ("running", "queued"):
            count = {"missing": view.seeds, "failed": view.seeds, "partly": len(cell.missing_seeds())}.get(
                cell.state, 0
            )
            runs = [cell.config.with_(seed=seed) for seed in cell.next_seeds(count or EXTRA_SEEDS)]
            verb = {"missing": "Train ", "failed": "Retry: "}.get(cell.state, "Add ")
            why = permissions.refusal()
            st.button(
                verb + offer(runs),
                key=f"train-{cell.config_id}",
                on_click=permissions.train,
                args=(runs,),
                disabled=bool(why),
                type="secondary" if cell.n else "primary",
                help=why or f"Further seeds of this configuration: {estimate(runs)}",
            )
        with st.popover("Command", type="tertiary", help="The command line that reproduces these runs"):
            st.code(command(cell.config, cell.seeds or range(view.seeds)), language="shell", wrap_lines=True)
    if cell.failed:
        reason = (cell.failed[0].error or "no reason given").strip()
        st.error(f"{len(cell.failed)} failed: {reason.splitlines()[-1]}", icon=":material/error:")
        with st.expander("Traceback"):
            st.code(reason, language=None)
            st.caption("  \n".join(map(str, services.queue().history(cell.failed[0].run_id))))


def _knowledge(view: Slice, cell: Cell) -> str:
    if not cell.n:
        return {
            "missing": "Not trained yet.",
            "failed": "The training failed.",
            "hidden": f"{cell.n_hidden} runs, left out by the filter in words.",
        }.get(cell.state, "Under way.")
    if cell.n_configs > 1:
        span = f"{format_metric(view.metric, cell.low)} to {format_metric(view.metric, cell.high)}"
        return f"{cell.n} runs of {cell.n_configs} configs, {span}, mean {format_metric(view.metric, cell.mean)}"
    spread = None if is_time(view.metric) else half_width(cell.sd, cell.n)
    figure = format_metric(view.metric, cell.mean, spread)
    notes = [f"{figure} ({cell.n} seed{'s' if cell.n > 1 else ''}{', 95% interval' if spread is not None else ''})"]
    if cell.n_silent:
        notes.append(f":orange[† {cell.n_silent} never predict a class]")
    if cell.n_diverged:
        notes.append(f":red[‡ {cell.n_diverged} diverged]")
    if cell.n_hidden:
        notes.append(f"{cell.n_hidden} left out by the filter in words")
    return " · ".join(notes)
