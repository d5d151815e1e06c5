"""The panels beside the charts: what is under way, and what is known of the chosen cells."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import streamlit as st

from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.intervals import half_width
from jsc_explore.charts.style import format_score, is_time
from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, format_value
from jsc_explore.errors import JscError
from jsc_explore.jobs import Job, Queue
from jsc_explore.jobs.ask import ask
from jsc_explore.jobs.estimate import expected_seconds, format_seconds
from jsc_explore.views import resources
from jsc_explore.views.slicing import Slice

# More jobs than this are summed up in one line: a fill of hundreds would push everything else off the screen.
MAX_SHOWN = 4


def train(view: Slice, cells: Sequence[Cell], count: int) -> None:
    """Ask for ``count`` further seeds of each cell."""
    runs = [cell.config.with_(seed=seed) for cell in cells for seed in cell.next_seeds(count)]
    if not runs:
        return
    try:
        ask(resources.store(), resources.queue(), runs)
    except JscError as error:
        st.session_state["flash"] = str(error)


def under_way(queue: Queue, jobs: Sequence[Job], view: Slice) -> None:
    """Show every config under way: progress, time left, Cancel; and the engine's state if it is not well."""
    state = queue.engine()
    if jobs and (state is None or not state.alive):
        st.info("The engine is starting; what was asked for waits for it.", icon=":material/hourglass_top:")
    elif state is not None and state.message not in ("", "starting"):
        st.warning(state.message, icon=":material/warning:")
    ordered = sorted(jobs, key=lambda job: (job.state != "running", job.requested_at, job.config_id))
    groups = [list(group) for _, group in groupby(ordered, key=lambda job: job.config_id)]
    for group in groups[:MAX_SHOWN]:
        _progress(queue, group, view)
    if rest := groups[MAX_SHOWN:]:
        line, button = st.columns([5, 1], vertical_alignment="center")
        line.caption(f"and {len(rest)} more configurations, {sum(len(group) for group in rest)} runs")
        button.button(
            "Cancel", key="cancel-rest", on_click=queue.cancel, args=([job.run_id for group in rest for job in group],)
        )


def cell_details(view: Slice, chosen: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Show what is known of the chosen cells, and offer more seeds."""
    if not chosen:
        st.caption("Click a cell to see its curves, shift-click to compare several; a click on + trains it.")
        return
    for cell in chosen[:MAX_SHOWN]:
        _detail(view, cell)
    if len(chosen) > MAX_SHOWN:
        st.caption(f"and {len(chosen) - MAX_SHOWN} more cells")


def describe(config: RunConfig, view: Slice) -> str:
    """Return what tells a config from the others on this page: its axes, and what differs from the slice."""
    names = [view.x, view.y]
    names += [n for n in FIELDS if n not in (*names, "seed") and getattr(config, n) != getattr(view.base, n)]
    return ", ".join(f"{FIELDS[name].label.lower()} {format_value(name, getattr(config, name))}" for name in names)


def command(config: RunConfig, seeds: int) -> str:
    """Return the command line that trains, or answers, the same from a shell."""
    options = [
        f"--{name.replace('_', '-')} {_quoted(format_value(name, value))}"
        for name, value in config.to_dict().items()
        if value != DEFAULTS[name] and name != "seed"
    ]
    return " ".join(["jsc-explore train", *options, f"--seeds {seeds}"])


def _progress(queue: Queue, group: Sequence[Job], view: Slice) -> None:
    first = group[0]
    share = sum(job.share_done for job in group) / len(group)
    line, button = st.columns([5, 1], vertical_alignment="center")
    name = describe(first.config, view)
    seeds = f"{len(group)} seed{'s' if len(group) > 1 else ''}"
    if first.state == "queued":
        text = f"{name}: {seeds} waiting"
    else:
        epoch = min(first.config.max_epochs, int(share * first.config.max_epochs) + 1)
        text = f"{name}: {seeds}, epoch {epoch} of {first.config.max_epochs}, {_time_left(group, share)}"
    line.progress(share, text=text[0].upper() + text[1:])
    button.button(
        "Cancel",
        key=f"cancel-{first.config_id}",
        on_click=queue.cancel,
        args=([job.run_id for job in group],),
        disabled=all(job.cancel for job in group),
    )


def _time_left(group: Sequence[Job], share: float) -> str:
    started = min((job.started_at for job in group if job.started_at), default=None)
    # The first quarter says little about the speed: starting takes a while, and evaluations crowd at the beginning.
    if started is None or share < 0.25:
        seconds = expected_seconds(resources.store(), [job.config for job in group])
        return f"about {format_seconds(seconds * (1 - share))} left" if seconds is not None else "time not known yet"
    return f"about {format_seconds((time.time() - started) * (1 - share) / share)} left"


def _detail(view: Slice, cell: Cell) -> None:
    name = describe(cell.config, view)
    text, button = st.columns([5, 2], vertical_alignment="center")
    text.markdown(f"**{name[0].upper() + name[1:]}**  \n{_knowledge(view, cell)}")
    if cell.state in ("done", "missing", "failed"):
        runs = [cell.config.with_(seed=seed) for seed in cell.next_seeds(view.seeds)]
        expected = format_seconds(expected_seconds(resources.store(), runs))
        verb = {"done": f"Add {view.seeds} seeds", "failed": "Retry"}.get(cell.state, f"Train {view.seeds} seeds")
        button.button(
            verb,
            key=f"train-{cell.config_id}",
            on_click=train,
            args=(view, [cell], view.seeds),
            type="secondary" if cell.state == "done" else "primary",
            help=f"Expected: {expected}",
            width="stretch",
        )
    with st.popover("Command line", type="tertiary"):
        st.code(command(cell.config, max(cell.n, view.seeds)), language="shell", wrap_lines=True)
    if cell.failed:
        reason = (cell.failed[0].error or "no reason given").strip()
        st.error(f"{len(cell.failed)} failed: {reason.splitlines()[-1]}", icon=":material/error:")
        with st.expander("Traceback"):
            st.code(reason, language=None)


def _knowledge(view: Slice, cell: Cell) -> str:
    if not cell.n:
        return {"missing": "Not trained yet.", "failed": "The training failed."}.get(cell.state, "Under way.")
    spread = None if is_time(view.score) else half_width(cell.sd, cell.n)
    figure = format_score(view.score, cell.mean, spread)
    notes = [f"{figure} ({cell.n} seed{'s' if cell.n > 1 else ''}{', 95% interval' if spread is not None else ''})"]
    if cell.n_dead:
        notes.append(f":orange[{cell.n_dead} with a dead class]")
    if cell.n_diverged:
        notes.append(f":red[{cell.n_diverged} diverged]")
    return " · ".join(notes)


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text
