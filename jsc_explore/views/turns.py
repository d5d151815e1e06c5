"""Pages are drawn in turn: a hundred threads that all draw at once get in each other's way.

Python runs one of them at a time whatever their number, and each waits for locks that another holds while it is not
running: a room of a hundred drew a slice in 15 s, which alone takes a twentieth of a second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# One draws, another reads the store or decodes, which leaves Python's lock to others.
_PLACES = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
_HERE = threading.local()


@contextmanager
def turn() -> Iterator[None]:
    """Draw what follows as soon as it is this page's turn; parts of a page share its turn."""
    if getattr(_HERE, "has", False):
        yield
        return
    with _PLACES:
        _HERE.has = True
        try:
            yield
        finally:
            _HERE.has = False


@contextmanager
def waiting() -> Iterator[None]:
    """Let others draw while this page waits for something that takes seconds."""
    if not getattr(_HERE, "has", False):
        yield
        return
    _PLACES.release()
    try:
        yield
    finally:
        _PLACES.acquire()
