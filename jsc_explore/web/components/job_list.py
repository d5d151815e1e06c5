"""The job list: one line of constant height that says what trains now, and a popover with all jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

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

# A sweep may have thousands; more rows take long to draw and nobody reads them.
MAX_LISTED = 20
_STATES = ("running", "queued", "failed", "cancelled", "diverged", "done")
_CLEARED = "_cleared jobs"


@dataclass(frozen=True)
class Group:
    """The jobs of one config that were requested together."""

    jobs: tuple[Job, ...]

    @property
    def config(self) -> RunConfig:
        """The config that they share."""
        return self.jobs[0].config

    @property
    def key(self) -> str:
        """Config and time of request as text."""
        return f"{self.jobs[0].config_id}-{int(self.jobs[0].requested_at * 1000)}"

    @property
    def state(self) -> str:
        """The first state in the order running, queued, failed, cancelled, diverged, done that any job is in."""
        states = {job.state for job in self.jobs}
        return next(state for state in _STATES if state in states)

    @property
    def active(self) -> list[Job]:
        """The queued and running jobs, which can be cancelled."""
        return [job for job in self.jobs if job.state in ("queued", "running")]

    @property
    def share_done(self) -> float:
        """The completed share in [0, 1], the mean over the jobs."""
        return sum(job.share_done if job.state != "done" else 1.0 for job in self.jobs) / len(self.jobs)


def groups_of(active: Sequence[Job], ended: Sequence[Job]) -> list[Group]:
    """Group jobs by config and time of request, in the order of the requests."""
    ordered = sorted((*active, *ended), key=lambda job: (job.requested_at, job.config_id))
    return [Group(tuple(jobs)) for _, jobs in groupby(ordered, key=lambda job: (job.requested_at, job.config_id))]


def draw(snapshot: LiveSnapshot, slice: Slice) -> None:
    """Draw the line and, for several configs, the popover; a message above if the engine has a problem."""
    engine = snapshot.engine
    if engine is not None and engine.message not in ("", "starting"):
        st.warning(plain(engine.message), icon=":material/warning:")
    ids = {job.run_id for job in snapshot.active}
    just_ended = ended_in_session([job for job in snapshot.ended if job.run_id not in ids])
    cleared = st.session_state.get(_CLEARED, ())
    groups = [one for one in groups_of(snapshot.active, just_ended) if one.active or one.key not in cleared]
    active, ended = [one for one in groups if one.active], [one for one in groups if not one.active]
    current = active or ended
    with st.container(key="jobs", horizontal=True, vertical_alignment="center"):
        line = st.container()
        if not current:
            line.caption("Nothing is waiting or training.")
        elif len(current) == 1:
            _draw_row(line, "line", current[0], snapshot, slice)
        else:
            share, text = summary(active, ended)
            line.progress(share, text=text)
        if len(groups) > 1:
            _draw_popover(active, ended, snapshot, slice)


def _draw_popover(active: Sequence[Group], ended: Sequence[Group], snapshot: LiveSnapshot, slice: Slice) -> None:
    popover = st.popover("All jobs", type="tertiary", key="all_jobs", on_change="rerun")
    if not popover.open:
        return
    listed = [*active, *reversed(ended)]
    for group in listed[:MAX_LISTED]:
        _draw_row(popover, "list", group, snapshot, slice)
    if len(listed) > MAX_LISTED:
        popover.caption(f"and {len(listed) - MAX_LISTED:,} more configurations")
    with popover.container(horizontal=True):
        if jobs := [job for group in active for job in group.active]:
            why, runs = permissions.cancel_refusal(jobs), [job.run_id for job in jobs]
            st.button(f"Cancel all ({len(jobs):,} runs)", key="cancel-all", on_click=permissions.cancel, args=(runs,),
                      disabled=bool(why), help=why or None)  # fmt: skip
        if ended:
            st.button("Clear finished", key="clear-all", on_click=_clear, args=([group.key for group in ended],))


def _draw_row(place: DeltaGenerator, prefix: str, group: Group, snapshot: LiveSnapshot, slice: Slice) -> None:
    name, key = cell_details.describe(group.config, slice), f"{prefix}-{group.key}"
    with place.container(horizontal=True, vertical_alignment="center", key=f"job-{key}"):
        st.progress(group.share_done, text=plain(f"{name[0].upper() + name[1:]}: {status(group, snapshot, slice)}"))
        if group.active:
            stopping, why = all(job.cancel for job in group.active), permissions.cancel_refusal(group.active)
            runs = [job.run_id for job in group.active]
            st.button("Cancel", key=f"cancel-{key}", on_click=permissions.cancel, args=(runs,),
                      disabled=stopping or bool(why), help=why or None)  # fmt: skip
            return
        if group.state in ("failed", "cancelled"):
            again, why = (
                [job.config for job in group.jobs if job.state in ("failed", "cancelled")],
                permissions.refusal(),
            )
            st.button("Retry", key=f"retry-{key}", on_click=permissions.train, args=(again,), disabled=bool(why),
                      help=why or None)  # fmt: skip
        elif slice.passes(group.config):
            cell = slice.place_of(group.config)
            st.button("Show", key=f"show-{key}", on_click=EXPLORE.change, args=(CELLS, [cell]))
        st.button("Clear", key=f"clear-{key}", on_click=_clear, args=([group.key],))


def _clear(keys: Sequence[str]) -> None:
    st.session_state[_CLEARED] = {*st.session_state.get(_CLEARED, ()), *keys}


# ---- the words


def summary(active: Sequence[Group], ended: Sequence[Group]) -> tuple[float, str]:
    """Return the completed share and the text of the line for several configs."""
    counts = [
        (word, sum(group.state in states for group in ended))
        for word, states in (("failed", ("failed",)), ("cancelled", ("cancelled",)), ("finished", ("done", "diverged")))
    ]
    ends = [f"{count} {word}" for word, count in counts if count]
    if not active:
        return 1.0, f"{len(ended)} configurations: {', '.join(ends)}"
    jobs = [job for group in active for job in group.active]
    running = sum(job.state == "running" for job in jobs)
    parts = [f"{running:,} of {len(jobs):,} runs in training"]
    if (left := work_left(jobs)) is not None:
        parts.append(f"about {format_seconds(left)} left")
    done = sum(group.share_done for group in active) / len(active)
    return done, f"{len(active)} configurations: {', '.join([*parts, *ends])}"


def status(group: Group, snapshot: LiveSnapshot, slice: Slice) -> str:
    """Return what the jobs of a config do now, for how long, and how long they will take; or how they ended."""
    jobs, state = group.jobs, group.state
    seeds = f"{len(jobs)} seed{'s' if len(jobs) > 1 else ''}"
    if state == "failed":
        reason = next((job.error for job in jobs if job.error), "") or "no reason given"
        return f"failed: {reason.strip().splitlines()[-1][:120]}"
    if state == "cancelled":
        return f"{seeds}, cancelled"
    if not group.active:
        return f"{seeds} finished and stored" + (", diverged" if state == "diverged" else "")
    if all(job.cancel for job in group.active):
        return f"{seeds}, stopping"
    if state == "queued":
        before = _ahead_of(group, snapshot.active)
        wait = work_left(before)
        left = None if wait is None else wait + _expected(jobs)
        since = min(job.requested_at for job in jobs)
        now = f"waiting {_waits_for(before, snapshot, slice)}"
    else:
        share = group.share_done
        since = min((job.started_at for job in jobs if job.started_at), default=time.time())
        # The first quarter does not show the speed: starting takes a while, and most evaluations come early.
        left = _expected(jobs) * (1 - share) if share < 0.25 else (time.time() - since) * (1 - share) / share
        now = f"epoch {current_epoch(share, group.config)} of {group.config.max_epochs}"
        if any(waits_for_program(services.store(), job) for job in jobs):
            now += ", compiling its program"
    ahead = "" if left is None else f", about {format_seconds(left)} left"
    return f"{seeds}, {now}, {format_seconds(time.time() - since)} so far{ahead}"


def work_left(jobs: Sequence[Job]) -> float | None:
    """Return the expected seconds until these active jobs are done, on all cores; None if unknown for one of them."""
    if not all(job.expected_s for job in jobs):
        return None
    each = [job.expected_s * (1 - job.share_done) for job in jobs]
    return max([sum(each) / (os.cpu_count() or 1), *each], default=0.0)


def _expected(jobs: Sequence[Job]) -> float:
    return estimate_time(services.store(), [job.config for job in jobs]).seconds


def _ahead_of(group: Group, active: Sequence[Job]) -> list[Job]:
    """Return the active jobs that start before the first of the group; ``active`` is in the order of starts."""
    own = {job.run_id for job in group.jobs}
    return list(takewhile(lambda job: job.run_id not in own, active))


def _waits_for(before: Sequence[Job], snapshot: LiveSnapshot, slice: Slice) -> str:
    if snapshot.engine is None or not snapshot.engine.is_alive:
        return "for the engine to start"
    configs = list({job.config_id: job.config for job in before}.values())
    if not configs:
        return "for a worker"
    return (
        f"behind {cell_details.describe(configs[0], slice) if len(configs) == 1 else f'{len(configs)} configurations'}"
    )
