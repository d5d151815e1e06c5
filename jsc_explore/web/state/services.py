"""What all sessions of one server share: the store, the queue and the engine's supervisor."""

from __future__ import annotations

import atexit
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from streamlit import runtime

from jsc_explore import paths
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.queue import Queue
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.web.state.live import LivePoller

T = TypeVar("T")


class _Once(Generic[T]):
    """Made at its first call and the same ever after.

    Streamlit's cache would do, but any visitor's browser may tell a server to clear it: another engine would start.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, threading.Lock(), list[T]()
        self.__doc__ = make.__doc__

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def clear(self) -> None:
        """Forget it; the next call makes another one."""
        with self._lock:
            self._made.clear()


@_Once
def store() -> Store:
    """Return the one store of this server."""
    return Store(paths.default_store(), paths.snapshot())


@_Once
def queue() -> Queue:
    """Return the one queue of this server; an empty one of its own beside a store that can only be read here."""
    if store().read_only is None:
        return Queue(paths.default_store())
    directory = tempfile.TemporaryDirectory(prefix="jsc-explore-")
    atexit.register(directory.cleanup)
    return Queue(Path(directory.name))


@_Once
def live() -> LivePoller:
    """Return the one reader of queue and store for all panels of this server."""
    return LivePoller(queue(), store())


@_Once
def imported() -> ImportedRuns:
    """Return the imported runs of this server's store."""
    return ImportedRuns(paths.default_store())


@_Once
def supervisor() -> Supervisor:
    """Return the supervisor that keeps an engine on the store while this server runs."""
    keeper = Supervisor(paths.default_store(), paths.snapshot())
    keeper.start()
    atexit.register(keeper.stop)
    return keeper


def serve() -> None:
    """See to it that an engine serves the store, where this page may train at all."""
    if not Access.from_environment().read_only and store().read_only is None:
        supervisor()


# Sessions that were served within this time share the server; up to so many live pages it serves at their full pace,
# and more of those that only look whether anything has happened.
_PRESENT_S, AT_FULL_PACE, LOOKING_AT_FULL_PACE = 30.0, 2, 10
_SEEN: dict[str, float] = {}


def poll_interval(every_s: float, session: str, at_full_pace: int = AT_FULL_PACE) -> float:
    """Return how often a live panel of this session is to be drawn, in seconds: the more look on, the more slowly.

    Drawn five times a second each, a hundred pages would ask for more than two cores can draw, and clicks would wait.
    """
    now = time.monotonic()
    _SEEN[session] = now
    for gone in [name for name, seen in list(_SEEN.items()) if now - seen >= _PRESENT_S or not _is_connected(name)]:
        _SEEN.pop(gone, None)
    return every_s * max(1.0, len(_SEEN) / at_full_pace)


def _is_connected(session: str) -> bool:
    # Who has loaded the page anew has left a session behind.
    return not runtime.exists() or runtime.get_instance().is_active_session(session)


def saved_views() -> SavedViews:
    """Return the saved views of this server's store."""
    return SavedViews(paths.default_store())
