"""The live snapshot: queue and store as of one moment, read once for all sessions of the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import streamlit as st

from jsc_explore.errors import StoreError
from jsc_explore.jobs.queue import ENDED, EngineState, Job, Queue
from jsc_explore.results import Point
from jsc_explore.store import Store

# For how long a snapshot still lists a job that ended: its row must not vanish while somebody reads it.
ENDED_VISIBLE_S = 60.0
# Partial curves of cancelled runs that are kept in memory; those of older ones are dropped.
KEPT_CANCELLED = 100
# Panels are drawn up to seven times a second; sessions that ask within this time share one snapshot.
MAX_AGE_S = 0.1
# Seconds between two notes to the engine that somebody looks at a page.
VISIT_INTERVAL_S = 20.0


@dataclass(frozen=True, eq=False)
class LiveSnapshot:
    """Queue and store as of one moment. Immutable, and equal to itself alone: it can be the key of a cache.

    ``active`` jobs are queued or running, ``failed`` ones are all that failed, ``ended`` those that ended within
    ``ENDED_VISIBLE_S``; ``cancelled`` those cancelled while they were running, as long as they are not requested again.
    ``points`` holds the live curve of each running and cancelled job by run id. ``store_version`` is read after the
    queue, so that a run that ends in between is in both rather than in neither.
    """

    active: tuple[Job, ...] = ()
    failed: tuple[Job, ...] = ()
    ended: tuple[Job, ...] = ()
    cancelled: tuple[Job, ...] = ()
    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    store_version: int = 0
    engine: EngineState | None = None


class LivePoller:
    """Reads queue and store on demand, at most once per ``MAX_AGE_S`` for all sessions; of points the new ones."""

    def __init__(self, queue: Queue, store: Store) -> None:
        self._queue, self._store = queue, store
        self._lock = threading.Lock()
        self._read_at, self._visit_at = 0.0, float("-inf")
        self._snapshot = LiveSnapshot()

    def snapshot(self, *, max_age_s: float = MAX_AGE_S) -> LiveSnapshot:
        """Return the current snapshot; read again if older than ``max_age_s``. StoreError if it cannot be read."""
        with self._lock:
            if time.monotonic() - self._read_at > max_age_s:
                self._record_visit()
                self._snapshot = self._read()
                self._read_at = time.monotonic()
            return self._snapshot

    def _record_visit(self) -> None:
        """Tell the engine that it should be ready to train, now and then."""
        now = time.monotonic()
        if now - self._visit_at > VISIT_INTERVAL_S:
            self._visit_at = now
            with suppress(StoreError):  # A full disk is reported where runs are requested.
                self._queue.record_visit()

    def invalidate(self) -> None:
        """Make the next call read a new snapshot, because this server has just changed the queue."""
        self._read_at = 0.0

    def _read(self) -> LiveSnapshot:
        known, cancelled = dict(self._snapshot.points), {job.run_id: job for job in self._snapshot.cancelled}
        partial = {run_id: known.pop(run_id) for run_id in cancelled}
        active, new = self._queue.live({run_id: int(points[-1]["step"] or 0) for run_id, points in known.items()})
        points = {
            job.run_id: (*known.get(job.run_id, ()), *new.get(job.run_id, ()))
            for job in active
            if job.run_id in known or job.run_id in new
        }
        ended = self._queue.jobs(ENDED, since=time.time() - ENDED_VISIBLE_S)
        # The queue drops the points of a cancelled run: what has been shown of it is kept here.
        cancelled |= {job.run_id: job for job in ended if job.state == "cancelled" and job.run_id in known}
        requested = {job.run_id for job in active}
        kept = [job for run_id, job in cancelled.items() if run_id not in requested][-KEPT_CANCELLED:]
        points |= {job.run_id: partial.get(job.run_id) or known[job.run_id] for job in kept}
        failed, engine = self._queue.jobs(("failed",)), self._queue.engine()
        self._store.refresh()
        version = self._store.version
        return LiveSnapshot(tuple(active), tuple(failed), tuple(ended), tuple(kept), points, version, engine)


def ended_in_session(jobs: Sequence[Job]) -> list[Job]:
    """Return those of these jobs that ended since this session began: what ended before is no news to its visitor."""
    began_at = st.session_state.setdefault("_began at", time.time())
    return [job for job in jobs if (job.finished_at or 0.0) >= began_at]
