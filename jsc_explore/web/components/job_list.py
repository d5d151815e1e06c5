"""The job list: progress, position in the queue and time left of active jobs; the result of those that just ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import streamlit as st

from jsc_explore.analysis.cells import current_epoch
from jsc_explore.config import RunConfig
from jsc_explore.jobs.estimate import estimate_time, format_seconds, waits_for_program
from jsc_explore.jobs.queue import Job
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS
from jsc_explore.web.components import cell_details, permissions
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import services
from jsc_explore.web.state.live import LiveSnapshot, ended_in_session
from jsc_explore.web.state.url import EXPLORE

# More rows than this, as in a sweep of hundreds, would push everything else off the screen; one line sums them up.
MAX_SHOWN = 5
_STATES = ("running", "queued", "failed", "cancelled", "diverged", "done")


@dataclass(frozen=True)
class Group:
    """The jobs of one config, as one row."""

    jobs: tuple[Job, ...]

    @property
    def config(self) -> RunConfig:
        """The config that they share."""
        return self.jobs[0].config

    @property
    def state(self) -> str:
        """The first state in the order running, queued, failed, cancelled, diverged, done that any job is in."""
        states = {job.state for job in self.jobs}
        return next(state for state in _STATES if state in states)

    @property
    def active(self) -> list[Job]:
        """The queued and running jobs, which can be cancelled."""
        return [job for job in self.jobs if job.state in ("queued", "running")]


def groups_of(active: Sequence[Job], ended: Sequence[Job]) -> list[Group]:
    """Group jobs by config and time of request, in the order of the requests."""
    ordered = sorted((*active, *ended), key=lambda job: (job.requested_at, job.config_id))
    return [Group(tuple(jobs)) for _, jobs in groupby(ordered, key=lambda job: (job.requested_at, job.config_id))]


def draw(snapshot: LiveSnapshot, slice: Slice) -> None:
    """Draw a row for each config with active or just ended jobs, and a message if the engine has a problem."""
    active, engine = snapshot.active, snapshot.engine
    if active and (engine is None or not engine.is_alive):
        st.info("The engine is starting; the requested runs wait for it.", icon=":material/hourglass_top:")
    elif engine is not None and engine.message not in ("", "starting"):
        st.warning(plain(engine.message), icon=":material/warning:")
    ids = {job.run_id for job in active}
    ended = ended_in_session([job for job in snapshot.ended if job.run_id not in ids])
    groups = groups_of(active, ended)
    # If there are too many, leave out the oldest ended ones first.
    while len(groups) > MAX_SHOWN and (ended_group := next((group for group in groups if not group.active), None)):
        groups.remove(ended_group)
    for group in groups[:MAX_SHOWN]:
        _row(group, active, slice)
    if rest := groups[MAX_SHOWN:]:
        jobs = [job for group in rest for job in group.active]
        why = permissions.cancel_refusal(jobs)
        with st.container(key="live-rest"):
            line, button = st.columns([5, 1], vertical_alignment="center")
            line.caption(f"and {len(rest)} more configurations, {len(jobs)} runs")
            runs = [job.run_id for job in jobs]
            button.button("Cancel", key="cancel-rest", on_click=permissions.cancel, args=(runs,), disabled=bool(why),
                          help=why or "Cancel all of these")  # fmt: skip


def _row(group: Group, active: Sequence[Job], slice: Slice) -> None:
    first, why = group.jobs[0], permissions.refusal()
    key = f"{first.config_id}-{int(first.requested_at * 1000)}"
    with st.container(key=f"live-{key}"):
        line, button = st.columns([5, 1], vertical_alignment="center")
        share, text = _progress(group, active)
        name = cell_details.describe(group.config, slice)
        line.progress(share, text=f"{name[0].upper() + name[1:]}: {text}")
        if group.active:
            stopping, no_cancel = all(job.cancel for job in group.active), permissions.cancel_refusal(group.active)
            button.button(
                "Cancel",
                key=f"cancel-{key}",
                on_click=permissions.cancel,
                args=([job.run_id for job in group.active],),
                disabled=stopping or bool(no_cancel),
                help=no_cancel or None,
                width="stretch",
            )
        elif group.state in ("failed", "cancelled"):
            runs = [job.config for job in group.jobs if job.state in ("failed", "cancelled")]
            button.button("Retry", key=f"retry-{key}", on_click=permissions.train, args=(runs,), disabled=bool(why),
                          help=why or None, width="stretch")  # fmt: skip
        elif slice.passes(group.config):
            place = tuple(getattr(group.config, name) for name in slice.axes)
            button.button("Show", key=f"show-{key}", on_click=EXPLORE.change, args=(CELLS, [place]), width="stretch")


def _progress(group: Group, active: Sequence[Job]) -> tuple[float, str]:
    """Return the completed share in [0, 1], and the state as text."""
    jobs = group.jobs
    seeds = f"{len(jobs)} seed{'s' if len(jobs) > 1 else ''}"
    share = sum(job.share_done if job.state != "done" else 1.0 for job in jobs) / len(jobs)
    if group.state == "running":
        epoch = current_epoch(share, group.config)
        compiling = ", compiling its program" if any(waits_for_program(services.store(), job) for job in jobs) else ""
        return share, f"{seeds}, epoch {epoch} of {group.config.max_epochs}{compiling}, {_time_left(jobs, share)}"
    if group.state == "queued":
        waiting = list(dict.fromkeys(job.config_id for job in active if job.state == "queued"))
        return share, f"{seeds}, place {waiting.index(jobs[0].config_id) + 1} of {len(waiting)} in the queue"
    if group.state == "failed":
        reason = next((job.error for job in jobs if job.error), "") or "no reason given"
        return share, f"failed: {reason.strip().splitlines()[-1][:120]}"
    if group.state == "cancelled":
        return share, f"{seeds}, cancelled"
    return 1.0, f"{seeds} finished and stored" + (", diverged" if group.state == "diverged" else "")


def _time_left(jobs: Sequence[Job], share: float) -> str:
    started = min((job.started_at for job in jobs if job.started_at), default=None)
    # The first quarter does not show the speed: starting takes a while, and most evaluations come early.
    if started is None or share < 0.25:
        seconds = estimate_time(services.store(), [job.config for job in jobs]).seconds
        return f"about {format_seconds(seconds * (1 - share))} left"
    return f"about {format_seconds((time.time() - started) * (1 - share) / share)} left"
