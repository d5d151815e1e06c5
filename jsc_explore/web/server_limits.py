"""Server limits: how many connections and sessions the page's server holds, and what a visitor beyond them is told."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from typing import Any

import streamlit
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import runtime
from uvicorn.protocols.http.h11_impl import H11Protocol

from jsc_explore import processes

log = logging.getLogger("jsc_explore.server")
# Files that the server itself needs: databases, results, sockets of its threads.
RESERVED_FILES = 100
# A session has a connection, two more while it loads, and the event loop of its script.
FILES_PER_SESSION, FILES_PER_EVENT_LOOP = 6, 3
# Each also takes a few megabytes of memory.
MAX_SESSIONS = 1_000
# Seconds for which a session without a browser is kept, so that a browser may return to it after a bad connection.
KEEP_SESSION_S = 40.0
SWEEP_INTERVAL_S = 5.0
# A connection that has not sent a whole request after this long is closed.
FIRST_REQUEST_S = 10.0
# Seconds between two lines about exhausted files in the log.
REPORT_INTERVAL_S = 60.0
_FULL = """<!doctype html><html lang="en"><meta charset="utf-8"><title>JSC Explore</title>
<meta http-equiv="refresh" content="60"><body style="font-family: sans-serif; margin: 3rem">
<h1>This page is full</h1>
<p>It has as many visitors as it can serve. It tries again in a minute by itself.</p></body></html>
"""
_HEADERS = [(b"content-type", b"text/html; charset=utf-8"), (b"retry-after", b"60"), (b"connection", b"close")]


def max_sessions(file_limit: int) -> int:
    """Return how many sessions a server may hold that may open this many files."""
    return max(1, min(MAX_SESSIONS, (file_limit - RESERVED_FILES) // FILES_PER_SESSION))


def max_connections(file_limit: int, sessions: int) -> int:
    """Return how many connections such a server may hold, those of its sessions included."""
    return max(1, file_limit - RESERVED_FILES - sessions * FILES_PER_EVENT_LOOP)


class SessionLimit:
    """ASGI middleware: refuse visitors beyond ``sessions`` with a page that says so; the others notice nothing.

    A session whose browser has left is closed early if its place is needed.
    """

    def __init__(self, app: ASGIApp, sessions: int) -> None:
        self.app, self.sessions, self._connected = app, sessions, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a websocket, or refuse it."""
        if scope["type"] == "websocket":
            await self._serve_session(scope, receive, send)
        elif scope["type"] == "http" and _is_page(scope) and self._is_full():
            await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _FULL.encode()})
        else:
            await self.app(scope, receive, send)

    async def _serve_session(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_full():
            await receive()
            await send({"type": "websocket.http.response.start", "status": 503, "headers": _HEADERS})
            await send({"type": "websocket.http.response.body", "body": _FULL.encode()})
            return
        self._connected += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._connected -= 1

    def _is_full(self) -> bool:
        if self._connected >= self.sessions:
            return True
        left = disconnected_sessions()
        for session in left[: max(0, self._connected + len(left) + 1 - self.sessions)]:
            runtime.get_instance().close_session(session)
        return False


def _is_page(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")


def disconnected_sessions() -> list[str]:
    """Return the ids of the sessions whose browser has left, the longest first."""
    server = runtime.get_instance()
    # The public interface names no sessions.
    sessions = [info.session.id for info in server._session_mgr.list_sessions()]
    return [session for session in sessions if not server.is_active_session(session)]


async def close_disconnected_sessions() -> None:
    """Close sessions whose browser has left for ``KEEP_SESSION_S``; never returns.

    Streamlit only forgets them, at the next time that a session ends: their event loops, of three files each, then stay
    open until a garbage collection finds them.
    """
    left_at: dict[str, float] = {}
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        now = time.monotonic()
        left_at = {session: left_at.get(session, now) for session in disconnected_sessions()}
        closed = [session for session, at in left_at.items() if now - at >= KEEP_SESSION_S]
        for session in closed:
            runtime.get_instance().close_session(session)
        if closed and not runtime.get_instance()._session_mgr.list_sessions():
            # Nobody waits for it now, and a visitor's first page fills the caches again in a tenth of a second.
            streamlit.cache_data.clear()
            streamlit.cache_resource.clear()
            processes.collect_garbage()


class LimitedConnection(H11Protocol):
    """An HTTP connection that is refused beyond the server's limit, and closed if it does not send a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or answer at once that there are too many."""
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency:
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\n" + _header_lines() + _FULL.encode())
            transport.close()
        self.loop.call_later(FIRST_REQUEST_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if not self.headers and self.transport.get_protocol() is self:
            self.transport.close()


def _header_lines() -> bytes:
    headers = [*_HEADERS, (b"content-length", b"%d" % len(_FULL.encode()))]
    return b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n"


class LoopErrors:
    """Exception handler of the event loop: one line a minute when no more files can be opened.

    asyncio then pauses for a second before it accepts connections again, but reports each attempt with a traceback.
    """

    def __init__(self) -> None:
        self._reported_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error of the event loop."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._reported_at > REPORT_INTERVAL_S:
            self._reported_at = time.monotonic()
            log.error("no more files can be opened (%s): new visitors wait; raise the limit with ulimit -n", error)
