"""Pages are drawn in turn: a hundred threads that all draw at once get in each other's way.

Python runs one of them at a time whatever their number, and each waits for locks that another holds while it is not
running: a room of a hundred drew a slice in 15 s, which alone takes a twentieth of a second. Whoever has clicked goes
before what draws itself anew.
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

# How long what nobody has clicked for gives way: a live panel, and a whole page that has seen something new.
LIVE_DELAY_S, PAGE_DELAY_S = 5.0, 10.0
# One who waits looks this often whether he is wanted still: meanwhile somebody may have clicked on that very page.
_LOOK_S = 0.2


class Line:
    """So many places, given to whoever was due first: at the time he came, later by the patience he brought."""

    def __init__(self, places: int) -> None:
        self._lock, self._free, self._number = threading.Lock(), places, itertools.count()
        self._waiting: list[tuple[float, int, threading.Event]] = []

    def enter(self, delay_s: float = 0.0, look: Callable[[], object] = lambda: None) -> None:
        """Wait for a place; ``look`` is called meanwhile, and who raises an error there has left the line."""
        called = threading.Event()
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return
            heapq.heappush(self._waiting, (time.monotonic() + delay_s, next(self._number), called))
        try:
            while not called.wait(_LOOK_S):
                look()
        except BaseException:
            self._withdraw(called)
            raise

    def leave(self) -> None:
        """Give the place to who is due first."""
        with self._lock:
            if self._waiting:
                heapq.heappop(self._waiting)[2].set()
            else:
                self._free += 1

    def _withdraw(self, called: threading.Event) -> None:
        with self._lock:
            left = [one for one in self._waiting if one[2] is not called]
            had_place = len(left) == len(self._waiting)
            heapq.heapify(left)
            self._waiting = left
        if had_place:
            self.leave()


# One draws, another reads the store or decodes, which leaves Python's lock to others.
_LINE = Line(max(2, os.cpu_count() or 1))
_HERE = threading.local()
# A page lets go of Python's lock a hundred times, with everything it sends, and another thread then keeps it for so
# long: at Python's own 5 ms a page took twice the time as soon as others were drawn.
_SWITCH_S = 0.0005
# Objects made before rubbish is looked for: a page makes more than Python's 700 with each of its parts.
_RUBBISH_AFTER = 20_000


@lru_cache(maxsize=1)
def tune() -> None:
    """Set Python up for a room of pages, once, when the first has been drawn and so all that it needs imported."""
    sys.setswitchinterval(_SWITCH_S)
    # Everything stands still while rubbish is looked for: 0.1 s, were it among all that the libraries hold too.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # Libraries complain at the end of what is not given back.
    gc.set_threshold(_RUBBISH_AFTER, 20, 20)


@contextmanager
def render_turn(delay_s: float = 0.0) -> Iterator[None]:
    """Draw what follows as soon as it is this page's turn; parts of a page share its turn."""
    if getattr(_HERE, "has", False):
        yield
        return
    _LINE.enter(delay_s, _is_wanted)
    _HERE.has = True
    try:
        yield
    finally:
        _HERE.has = False
        _LINE.leave()


@contextmanager
def waiting() -> Iterator[None]:
    """Let others draw while this page waits for something that takes seconds."""
    if not getattr(_HERE, "has", False):
        yield
        return
    _LINE.leave()
    try:
        yield
    finally:
        _LINE.enter()


def _is_wanted() -> None:
    # Streamlit ends a run that a click has made superfluous whenever it touches its state.
    st.session_state.get("wanted")
