"""What all sessions of one server share: store, queue, live poller, fits, supervisor; and how often pages poll."""

from __future__ import annotations

import atexit
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from streamlit import runtime

from jsc_explore import paths
from jsc_explore.analysis.fit_process import FitProcess
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.queue import Queue
from jsc_explore.store import Store
from jsc_explore.store.directory import STORE_ID, open_directory
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.web.state.live import LivePoller

T = TypeVar("T")


class _Singleton(Generic[T]):
    """A function whose first result is returned by every later call.

    Streamlit's cache is not used, since any visitor's browser can have the server clear it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), list[T]()
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def set(self, made: T) -> None:
        """Return this object from every later call."""
        with self._lock:
            self._made[:] = [made]

    def clear(self) -> None:
        """Drop the result; the next call makes another one."""
        with self._lock:
            self._made.clear()


@_Singleton
def store() -> Store:
    """Return the one store of this server."""
    # The command ``app`` has made it, and tells its id: a store renamed since then is not made again.
    home = open_directory(paths.default_store(), expected_id=os.environ.get(STORE_ID, ""))
    return Store(home, paths.snapshot())


@_Singleton
def queue() -> Queue:
    """Return the one queue of this server; an empty temporary one if the store is read-only."""
    if store().read_only is None:
        return Queue(store().home)
    directory = tempfile.TemporaryDirectory(prefix="jsc-explore-")
    atexit.register(directory.cleanup)
    return Queue(Path(directory.name))


@_Singleton
def live() -> LivePoller:
    """Return the one poller of queue and store for all panels of this server."""
    return LivePoller(queue(), store())


@_Singleton
def fits() -> FitProcess:
    """Return the process that fits surrogate models for all pages of this server."""
    return FitProcess()


@_Singleton
def imported() -> ImportedRuns:
    """Return the imported runs of this server's store."""
    return ImportedRuns(store().home)


@_Singleton
def supervisor() -> Supervisor:
    """Return the supervisor that keeps an engine on the store while this server runs."""
    made = Supervisor(store().home, paths.snapshot())
    made.start()
    return made


def start_engine() -> None:
    """Start the supervisor of an engine, once, unless training is switched off or the store is read-only."""
    if not Access.from_environment().read_only and store().read_only is None:
        supervisor()


# A session counts as active for this long after its last poll.
_ACTIVE_S = 30.0
# Up to this many active sessions poll at the full rate: those that draw live panels, and those that only check whether
# anything has changed, which costs less.
FULL_RATE_SESSIONS, FULL_RATE_WATCHERS = 2, 10
_LAST_POLL: dict[str, float] = {}


def poll_interval(every_s: float, session: str, full_rate_sessions: int = FULL_RATE_SESSIONS) -> float:
    """Return the seconds between two polls of this session: ``every_s``, and longer the more sessions are active.

    A hundred pages drawn five times a second each are more than two cores can draw; clicks would have to wait.
    """
    now = time.monotonic()
    _LAST_POLL[session] = now
    for name, polled in list(_LAST_POLL.items()):
        if now - polled >= _ACTIVE_S or not _is_connected(name):
            _LAST_POLL.pop(name, None)
    return every_s * max(1.0, len(_LAST_POLL) / full_rate_sessions)


def _is_connected(session: str) -> bool:
    # Each reload of a page leaves a disconnected session behind.
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


def saved_views() -> SavedViews:
    """Return the saved views of this server's store."""
    return SavedViews(store().home)
