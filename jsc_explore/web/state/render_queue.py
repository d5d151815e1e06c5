"""A priority queue for drawing pages: only as many threads draw at once as the machine has cores.

Python runs one thread at a time. When a hundred draw together, each of them waits for locks that another one holds
while it is not running: then a page that takes 0.05 s alone took 15 s. A click is served before automatic refreshes.
"""

from __future__ import annotations

import atexit
import gc
import heapq
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import streamlit as st

# By how much automatic drawing is put behind clicks: a refresh of a live panel, and of a whole page after a change.
LIVE_DELAY_S, PAGE_DELAY_S = 5.0, 10.0
# How often a waiting thread checks whether a newer click on its page has made its run obsolete.
_CHECK_S = 0.2


class RenderQueue:
    """A semaphore whose waiting threads are served by due time: that of their arrival plus their delay."""

    def __init__(self, slots: int) -> None:
        self._lock, self._free, self._number = threading.Lock(), slots, itertools.count()
        self._waiting: list[tuple[float, int, threading.Event]] = []

    def acquire(self, delay_s: float = 0.0, check: Callable[[], object] = lambda: None) -> None:
        """Wait for a slot. ``check`` is called meanwhile; if it raises, the thread leaves the queue without a slot."""
        served = threading.Event()
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return
            heapq.heappush(self._waiting, (time.monotonic() + delay_s, next(self._number), served))
        try:
            while not served.wait(_CHECK_S):
                check()
        except BaseException:
            self._withdraw(served)
            raise

    def release(self) -> None:
        """Pass the slot on to the waiting thread that is due first."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1

    def _withdraw(self, served: threading.Event) -> None:
        with self._lock:
            remaining = [entry for entry in self._waiting if entry[2] is not served]
            had_slot = len(remaining) == len(self._waiting)
            heapq.heapify(remaining)
            self._waiting = remaining
        if had_slot:
            self.release()


# At least two: while one thread draws, another may read the store or decode, which releases Python's lock.
_QUEUE = RenderQueue(max(2, os.cpu_count() or 1))
_THREAD = threading.local()
# A page releases Python's lock a hundred times, with everything that it sends, and gets it back only after this time
# if another thread runs. At Python's own 5 ms a page took twice as long as soon as others were drawn.
_SWITCH_S = 0.0005
# New objects before the garbage collector runs: each part of a page makes more than Python's default of 700.
_GC_THRESHOLD = 20_000


@lru_cache(maxsize=1)
def tune_interpreter() -> None:
    """Set Python's thread switching and garbage collection for many pages; call it after the first page is drawn.

    Only then is everything imported that a page needs.
    """
    sys.setswitchinterval(_SWITCH_S)
    # A collection stops all threads, for 0.1 s if it also had to check the objects of the imported libraries.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # Otherwise libraries report leaked objects at exit.
    gc.set_threshold(_GC_THRESHOLD, 20, 20)


@contextmanager
def render_turn(delay_s: float = 0.0) -> Iterator[None]:
    """Run the body when a slot of the queue is free; nested turns of one thread share its slot."""
    if getattr(_THREAD, "has_slot", False):
        yield
        return
    _QUEUE.acquire(delay_s, _check_obsolete)
    _THREAD.has_slot = True
    try:
        yield
    finally:
        _THREAD.has_slot = False
        _QUEUE.release()


@contextmanager
def yield_turn() -> Iterator[None]:
    """Give this thread's slot to others while the body waits for something that takes seconds."""
    if not getattr(_THREAD, "has_slot", False):
        yield
        return
    _QUEUE.release()
    try:
        yield
    finally:
        _QUEUE.acquire()


def _check_obsolete() -> None:
    # Streamlit raises here, on any access to its state, when a newer click has replaced this run.
    st.session_state.get("any key")
