"""The page's server: Streamlit's application in uvicorn. ``jsc-explore app`` becomes this process."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from jsc_explore import paths, processes
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.store.directory import STORE_ID, open_directory

if TYPE_CHECKING:
    import uvicorn
    from streamlit.starlette import App

# Seconds that requests may take to end when the server is stopped.
STOP_TIMEOUT_S = 2
# As Streamlit's own server does it: a browser that does not answer for a minute has left.
PING_INTERVAL_S = 30.0


def main() -> None:
    """Serve the page on a socket that is open already, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m jsc_explore.web.server")
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the listening socket")
    parser.add_argument("--address", default="localhost")
    parser.add_argument("--hostname", action="append", default=[])
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--browser", action="store_true", help="open a browser")
    parser.add_argument("--engine", action="store_true", help="keep an engine running")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    processes.return_freed_memory()
    home = open_directory(paths.default_store(), expected_id=os.environ.get(STORE_ID, "")) if options.engine else None
    supervisor = Supervisor(home, paths.snapshot()) if home is not None else None
    if supervisor is not None:
        # It warms up while Streamlit is imported.
        supervisor.start()
    with suppress(KeyboardInterrupt):
        _serve(options, supervisor, processes.raise_file_limit())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Ends the engine. The interpreter's own end would wait for threads that still draw a page, and report at length
    # what these and DuckDB leave behind.
    atexit._run_exitfuncs()
    os._exit(0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _serve(options: argparse.Namespace, supervisor: Supervisor | None, file_limit: int) -> None:
    import uvicorn
    from starlette.middleware import Middleware
    from streamlit import config
    from streamlit.starlette import App

    from jsc_explore.web.request_filter import RequestFilter
    from jsc_explore.web.server_limits import MAX_SESSIONS, SessionLimit, max_connections, max_sessions
    from jsc_explore.web.state import services
    from jsc_explore.web.static_compression import StaticCompression

    listening = socket.socket(fileno=options.socket)
    port = listening.getsockname()[1]
    if supervisor is not None:
        services.supervisor.set(supervisor)
    sessions = min(options.sessions or MAX_SESSIONS, max_sessions(file_limit))
    middleware = [
        Middleware(RequestFilter, address=options.address, hostnames=options.hostname),
        Middleware(SessionLimit, sessions=sessions),
        Middleware(StaticCompression),
    ]
    app = App(paths.site_file("app.py"), lifespan=_lifespan, middleware=middleware)
    config.set_option("server.port", port)
    config.set_option("server.address", options.address)
    url, others = page_urls(options.address, port)
    where = f"{url}{f' (for others {others})' if others else ''}"
    print(f"jsc-explore: the page is on {where}, for up to {sessions} browser tabs; Ctrl+C ends it", file=sys.stderr)
    server = uvicorn.Server(_uvicorn_config(app, max_connections(file_limit, sessions)))
    if options.browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    server.run(sockets=[listening])


def page_urls(address: str, port: int) -> tuple[str, str]:
    """Return the page's URL on this machine and, if it listens on all interfaces, its URL for others.

    The first is a local one where possible, by which the person who runs the app is known.
    """
    if address in ("0.0.0.0", "::"):
        return f"http://localhost:{port}", f"http://{socket.gethostname()}:{port}, or its IP address"
    return f"http://{f'[{address}]' if ':' in address else address}:{port}", ""


def _uvicorn_config(app: App, connections: int) -> uvicorn.Config:
    import uvicorn
    from streamlit import config

    from jsc_explore.web.server_limits import LimitedConnection

    return uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="websockets-sansio",
        ws_max_size=int(config.get_option("server.maxMessageSize")) << 20,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_INTERVAL_S,
        ws_per_message_deflate=bool(config.get_option("server.enableWebsocketCompression")),
        limit_concurrency=connections,
        backlog=128,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        log_level="warning",
        access_log=False,
        server_header=False,
        use_colors=False,
    )


@asynccontextmanager
async def _lifespan(_: App) -> AsyncIterator[dict[str, Any]]:
    """Run what the server does beside requests."""
    from jsc_explore.web.server_limits import LoopErrors, close_disconnected_sessions

    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    # The first visitor's browser loads Streamlit's scripts meanwhile.
    threading.Thread(target=_import_pages, name="imports", daemon=True).start()
    sweep = asyncio.create_task(close_disconnected_sessions())
    try:
        yield {}
    finally:
        sweep.cancel()
        # Connections that end now are no errors.
        logging.disable(logging.ERROR)
        with suppress(asyncio.CancelledError):
            await sweep


def _import_pages() -> None:
    for name in ("explore", "compare", "overview", "data"):
        importlib.import_module(f"jsc_explore.web.pages.{name}")


if __name__ == "__main__":
    main()
