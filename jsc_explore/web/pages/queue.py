"""The Queue page, for whoever runs the app: who asked for what, how long it takes, Cancel; and what ended recently."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import streamlit as st

from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, display_value
from jsc_explore.errors import JscError
from jsc_explore.jobs.estimate import format_seconds
from jsc_explore.jobs.queue import Job
from jsc_explore.web.components import permissions
from jsc_explore.web.components.job_list import work_left
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import presentation, services, visitor
from jsc_explore.web.state.live import LiveSnapshot
from jsc_explore.web.state.render_queue import LIVE_DELAY_S, render_turn

POLL_S = 2.0
# Requests and entries of the history that are listed, and the ended runs that are read for the history.
MAX_REQUESTS, MAX_HISTORY, MAX_ENDED = 50, 50, 500
_NAMED = ("model", "batch_size", "learning_rate")


@dataclass(frozen=True)
class Entry:
    """Jobs in one line: those of one request, or those of one config that ended in one way."""

    jobs: tuple[Job, ...]

    @property
    def content(self) -> str:
        """Their config, or the number of configs if there are several."""
        configs = {job.config_id: job.config for job in self.jobs}
        return describe(self.jobs[0].config) if len(configs) == 1 else f"{len(configs):,} configurations"

    @property
    def outcome(self) -> str:
        """How they ended; if they failed, with the reason."""
        state, error = self.jobs[0].state, (self.jobs[0].error or "").strip()
        return f"failed: {error.splitlines()[-1][:200]}" if state == "failed" and error else state


def page() -> None:
    """Draw the page; visitors read in one line that it is not for them."""
    presentation.apply_style()
    st.markdown("##### Queue")
    if not visitor.is_owner():
        st.caption("This page is for the person who runs the app, in a browser on the same machine.")
        return
    st.fragment(_body, run_every=services.poll_interval(POLL_S, visitor.session()))()


def requests_of(active: Sequence[Job]) -> list[Entry]:
    """Return the active jobs by request, those that start first on top."""
    found: dict[tuple[str, float], list[Job]] = {}
    for job in active:
        found.setdefault((job.session, job.requested_at), []).append(job)
    return [Entry(tuple(jobs)) for jobs in found.values()]


def history_of(ended: Sequence[Job]) -> list[Entry]:
    """Return ended jobs by request, config and outcome, those that ended last on top."""

    def key(job: Job) -> tuple[str, float, str, str]:
        return job.session, job.requested_at, job.config_id, job.state

    entries = [Entry(tuple(jobs)) for _, jobs in groupby(sorted(ended, key=key), key)]
    return sorted(entries, key=lambda entry: -_ended_at(entry))


def describe(config: RunConfig) -> str:
    """Describe a config by network, batch size, learning rate, and what differs from the defaults."""
    values = config.to_dict()
    names = [name for name in FIELDS if name in _NAMED or (name != "seed" and values[name] != DEFAULTS[name])]
    return ", ".join(f"{FIELDS[name].inline_label} {display_value(name, values[name])}" for name in names)


def _body() -> None:
    with render_turn(LIVE_DELAY_S):
        try:
            snapshot = services.live().snapshot()
            ended = services.queue().ended(MAX_ENDED)
        except JscError as error:
            st.error(plain(error))
            return
        permissions.draw_notice()
        _draw_active(snapshot)
        _draw_history(history_of(ended))


def _draw_active(snapshot: LiveSnapshot) -> None:
    active = snapshot.active
    if snapshot.engine is not None and snapshot.engine.message not in ("", "starting"):
        st.warning(plain(snapshot.engine.message), icon=":material/warning:")
    if not active:
        st.caption("Nothing is waiting or training.")
        return
    requests = requests_of(active)
    with st.container(horizontal=True, vertical_alignment="center", key="queue_head"):
        st.markdown(_progress(active))
        why = permissions.refusal()
        with st.popover("Cancel all", type="tertiary", key="cancel_all"):
            st.button(f"Cancel {_runs(active)} of everybody", key="cancel everything", on_click=permissions.cancel,
                      args=([job.run_id for job in active],), disabled=bool(why), help=why or None)  # fmt: skip
    for request in requests[:MAX_REQUESTS]:
        first = request.jobs[0]
        key = f"{first.session}-{int(first.requested_at * 1000)}"
        with st.container(horizontal=True, vertical_alignment="center", key=f"request-{key}"):
            asked = f"{plain(permissions.name_of(first))}, {_ago(first.requested_at)}"
            st.markdown(f"**{asked}:** {plain(request.content)}  \n{_progress(request.jobs)}", width="stretch")
            runs, stopping = [job.run_id for job in request.jobs], all(job.cancel for job in request.jobs)
            st.button("Cancel", key=f"cancel-request-{key}", on_click=permissions.cancel, args=(runs,),
                      disabled=stopping or bool(why), help=why or None)  # fmt: skip
    if len(requests) > MAX_REQUESTS:
        st.caption(f"and {len(requests) - MAX_REQUESTS:,} more requests")


def _draw_history(entries: Sequence[Entry]) -> None:
    st.markdown("##### Ended recently")
    if not entries:
        st.caption("Nothing yet.")
        return
    rows = [
        [
            _ago(_ended_at(entry)),
            permissions.name_of(entry.jobs[0]),
            entry.content,
            f"{len(entry.jobs):,}",
            entry.outcome,
        ]
        for entry in entries[:MAX_HISTORY]
    ]
    lines = ["| ended | asked by | configuration | runs | outcome |", "|---|---|---|---|---|"]
    st.markdown("\n".join([*lines, *(f"| {' | '.join(map(plain, row))} |" for row in rows)]))


def _progress(jobs: Sequence[Job]) -> str:
    """Return how many of these jobs train, and the expected seconds: 5 runs, 2 in training, about 9 s left."""
    running = sum(job.state == "running" for job in jobs)
    left = work_left(jobs)
    parts = [_runs(jobs), f"{running:,} in training" if running else "waiting"]
    parts += ["stopping"] if all(job.cancel for job in jobs) else []
    if left is not None:
        parts.append(f"about {format_seconds(left)} {'left' if running else 'of training'}")
    return ", ".join(parts)


def _runs(jobs: Sequence[Job]) -> str:
    return f"{len(jobs):,} run{'s' if len(jobs) != 1 else ''}"


def _ended_at(entry: Entry) -> float:
    return max(job.finished_at or 0.0 for job in entry.jobs)


def _ago(at: float) -> str:
    return f"{format_seconds(time.time() - at)} ago"
