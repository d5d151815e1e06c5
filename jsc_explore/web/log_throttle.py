"""Throttle of Streamlit's log: what visitors provoke with forged messages is short lines, at most one a second.

A websocket carries any message: values of the wrong type for a widget raise in Streamlit's deserialisers or in a page,
and each would be a traceback in the log.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback

# The loggers that report an exception of a page's script, of a message and of a websocket.
LOGGERS = (
    "streamlit.error_util",
    "streamlit.runtime.app_session",
    "streamlit.runtime.fragment",
    "streamlit.runtime.scriptrunner.script_runner",
    "streamlit.web.server.starlette.starlette_websocket",
)
INTERVAL_S = 1.0
# Kinds of exceptions whose traceback is logged, once each: they differ in type and in the line that raised them.
MAX_KINDS = 50
MAX_LINE = 200


class LogThrottle(logging.Filter):
    """Lets the first exception of each kind pass with its traceback, then one line in ``INTERVAL_S``."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._kinds: set[tuple[str, str, int | None]] = set()
        self._logged_at, self._left_out = 0.0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record; shorten it unless it is the first of its kind."""
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else None
        now = time.monotonic()
        with self._lock:
            if error is not None and len(self._kinds) < MAX_KINDS and (kind := _kind_of(error)) not in self._kinds:
                self._kinds.add(kind)
                return True
            if now - self._logged_at < INTERVAL_S:
                self._left_out += 1
                return False
            left_out, self._left_out, self._logged_at = self._left_out, 0, now
        line = record.getMessage() if error is None else f"{type(error).__name__}: {error}"
        more = f" (and {left_out:,} messages left out)" if left_out else ""
        record.msg, record.args = _one_line(line) + more, ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


_THROTTLE = LogThrottle()


def throttle_log() -> None:
    """Throttle Streamlit's log; a second call changes nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_THROTTLE)


def _kind_of(error: BaseException) -> tuple[str, str, int | None]:
    frames = traceback.extract_tb(error.__traceback__)
    return (type(error).__name__, frames[-1].filename, frames[-1].lineno) if frames else (type(error).__name__, "", 0)


def _one_line(text: str) -> str:
    # Text of a visitor: no line of its own, no control characters.
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
