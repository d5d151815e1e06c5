"""The server's limits: how many sessions it holds, what those beyond are told, and that sessions left behind close."""

import asyncio
import errno
import logging
from types import SimpleNamespace

import pytest

from jsc_explore.web import server_limits
from jsc_explore.web.server_limits import LoopErrors, SessionLimit, max_connections, max_sessions

PAGE = {"type": "http", "method": "GET", "path": "/", "headers": [(b"accept", b"text/html,*/*")]}
SCRIPT = {"type": "http", "method": "GET", "path": "/static/a.js", "headers": [(b"accept", b"*/*")]}
SOCKET = {"type": "websocket", "path": "/_stcore/stream", "headers": []}


class Runtime:
    """Streamlit's runtime with these sessions, of which the active ones have a browser."""

    def __init__(self, sessions, active=()):
        self.sessions, self.active = list(sessions), set(active)
        self._session_mgr = SimpleNamespace(
            list_sessions=lambda: [SimpleNamespace(session=SimpleNamespace(id=name)) for name in self.sessions]
        )

    def is_active_session(self, name):
        return name in self.active

    def close_session(self, name):
        self.sessions.remove(name)


@pytest.fixture
def runtime(monkeypatch):
    made = Runtime([])
    monkeypatch.setattr(server_limits.runtime, "get_instance", lambda: made)
    return made


async def ask(limit, scope):
    """Send a request or open a websocket; return what the server sends."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    await limit(scope, receive, send)
    return sent


async def serve(scope, receive, send):
    await send({"type": "served"})


def test_the_number_of_sessions_follows_from_the_limit_of_open_files():
    assert max_sessions(256) == 26
    assert max_sessions(1024) == 154
    assert max_sessions(65_536) == server_limits.MAX_SESSIONS
    assert max_sessions(64) == 1
    for files in (256, 1024, 65_536):
        sessions = max_sessions(files)
        connections = max_connections(files, sessions)
        assert connections >= 3 * sessions
        assert connections + 3 * sessions + server_limits.RESERVED_FILES <= files


def test_a_visitor_beyond_the_limit_is_told_by_page_and_status_and_the_others_are_served(runtime):
    async def visit():
        leave = asyncio.Event()

        async def stay(scope, receive, send):
            await send({"type": "served"})
            if scope["type"] == "websocket":
                await leave.wait()

        limit = SessionLimit(stay, sessions=1)
        first = asyncio.create_task(ask(limit, SOCKET))
        await asyncio.sleep(0)
        beyond = [await ask(limit, scope) for scope in (PAGE, SOCKET)]
        script = await ask(limit, SCRIPT)
        leave.set()
        return beyond, script, await first, await ask(limit, PAGE)

    beyond, script, first, later = asyncio.run(visit())
    for start, body in beyond:
        assert start["status"] == 503
        assert (b"retry-after", b"60") in start["headers"]
        assert b"This page is full" in body["body"]
    assert script == first == later == [{"type": "served"}]


def test_a_session_without_a_browser_gives_its_place_to_a_visitor(runtime):
    runtime.sessions = ["left first", "left later"]
    limit = SessionLimit(serve, sessions=2)
    assert asyncio.run(ask(limit, SOCKET)) == [{"type": "served"}]
    assert runtime.sessions == ["left later"]


def test_sessions_whose_browser_has_left_are_closed_after_a_while(runtime, monkeypatch):
    monkeypatch.setattr(server_limits, "SWEEP_INTERVAL_S", 0.0)
    monkeypatch.setattr(server_limits, "KEEP_SESSION_S", 0.0)
    runtime.sessions, runtime.active = ["here", "left"], {"here"}

    async def sweep():
        task = asyncio.create_task(server_limits.close_disconnected_sessions())
        while "left" in runtime.sessions:
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(sweep())
    assert runtime.sessions == ["here"]


def test_exhausted_files_are_one_line_in_the_log_and_other_errors_are_reported_as_before(caplog):
    handler, reported = LoopErrors(), []
    loop = SimpleNamespace(default_exception_handler=reported.append)
    with caplog.at_level(logging.ERROR):
        for _ in range(1000):
            handler(loop, {"exception": OSError(errno.EMFILE, "Too many open files")})
    assert len(caplog.records) == 1
    assert "ulimit -n" in caplog.text
    handler(loop, {"exception": OSError(errno.EIO, "broken")})
    assert len(reported) == 1
