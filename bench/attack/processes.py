"""Attacks on processes: descriptors, ports and what is left after an end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
from websockets.exceptions import WebSocketException

from bench.attack.result import Result
from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store
from tests.page_session import PageSession
from tests.servers import ROOT, App, eventually, free_port, responds, running_app, running_process

# Files that a page may open in an attack on them: the default of macOS.
FILES = 256
LIMIT_S = 10.0
LONG = RunConfig(model="16-256-256-5", batch_size=8192, max_epochs=1000)


def terminated_app(work: Path) -> Result:
    """SIGTERM to the app alone while it trains: nothing is left after ten seconds, and the run is queued again."""
    return _ended_app(work, signal.SIGTERM)


def interrupted_app(work: Path) -> Result:
    """SIGINT to the app alone while it trains: nothing is left after ten seconds, and the run is queued again."""
    return _ended_app(work, signal.SIGINT)


def killed_app(work: Path) -> Result:
    """SIGKILL to the app alone while it trains: nothing is left after ten seconds, and the run is queued again."""
    return _ended_app(work, signal.SIGKILL)


def _ended_app(work: Path, number: signal.Signals) -> Result:
    with (
        running_app(work / "store") as app,
        closing(Store(work / "store", None)) as store,
        closing(Queue(work / "store")) as queue,
    ):
        submit(store, queue, [LONG], confirmed=True)
        # Engine, fork server, resource tracker and a worker; compilers may run, too.
        eventually(lambda: queue.jobs(("running",)), 2 * LIMIT_S)
        started = _of(work)
        os.kill(app.process.pid, number)
        app.process.wait(LIMIT_S)
        with suppress(AssertionError):
            eventually(lambda: not _of(work), LIMIT_S)
        left, lines = _of(work), app.log.read_text().splitlines()
        control = bool(queue.jobs(("queued",)))
    for process in left:
        process.kill()
    noise = len(lines) > 2 or any("Traceback" in line for line in lines)
    return Result(bool(left) or noise, control, f"{len(started)} processes, {len(left)} left, {len(lines)} lines")


def _of(work: Path) -> list[psutil.Process]:
    """Return the processes below the app of this directory, whoever their parent is by now, and that app."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            store = process.environ().get("JSC_EXPLORE_STORE", "")
            if process.status() != psutil.STATUS_ZOMBIE and store.startswith(str(work)):
                found.append(process)
    return found


def used_port(work: Path) -> Result:
    """A second app on a used port starts nothing and says in one line what to do."""
    with running_app(work / "store") as app:
        port = app.url.rpartition(":")[2]
        command = [sys.executable, "-m", "jsc_explore", "app", "--headless", "--store", str(work / "second")]
        second = subprocess.Popen(
            [*command, "--port", port], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "JSC_EXPLORE_STORE": str(work / "second")},
        )  # fmt: skip
        message = second.communicate(timeout=LIMIT_S)[1].strip()
        left = _of(work / "second")
        control = app.responds()
    for process in left:
        process.kill()
    explained = second.returncode != 0 and message.count("\n") == 0 and port in message
    return Result(bool(left) or not explained, control, message[:120])


def many_reloads(work: Path) -> Result:
    """A visitor who reloads a page 120 times, with 256 files allowed, shuts out nobody."""
    with _limited_app(work) as app:
        control = asyncio.run(_draws(app.url))
        with suppress(OSError, WebSocketException):
            asyncio.run(_reload(app.url, 120))
        return Result(not asyncio.run(_draws(app.url)), control, f"{_descriptors(app)} descriptors")


def many_visitors(work: Path) -> Result:
    """Visitors beyond the cap are told so; those who are there notice nothing."""
    with _limited_app(work) as app:
        told, works, control = asyncio.run(_fill(app.url, 2 * FILES))
        size = app.log.stat().st_size
        return Result(not (told and works) or size > 10_000, control, f"told={told} works={works} log={size} bytes")


def silent_connections(work: Path) -> Result:
    """Connections that ask for nothing are closed; the log does not grow by them."""
    with _limited_app(work) as app:
        control = asyncio.run(_draws(app.url))
        address = ("127.0.0.1", int(app.url.rpartition(":")[2]))
        held = [socket.create_connection(address, timeout=2) for _ in range(2 * FILES)]
        try:
            time.sleep(1)
            with suppress(AssertionError):
                eventually(lambda: responds(app.url), 1.5 * LIMIT_S)
            works, size = responds(app.url), app.log.stat().st_size
        finally:
            for one in held:
                one.close()
    return Result(not works or size > 10_000, control, f"works={works} log={size} bytes")


@contextmanager
def _limited_app(work: Path) -> Iterator[App]:
    port = free_port()
    url, store = f"http://localhost:{port}", work / "store"
    command = [sys.executable, "-m", "jsc_explore", "app", "--headless", "--read-only", "--port", str(port)]
    command = ["bash", "-c", f'ulimit -n {FILES} && exec "$@"', "app", *command, "--store", str(store)]
    variables = {"JSC_EXPLORE_SNAPSHOT": str(ROOT / "results.parquet"), "PYTHONPATH": str(ROOT)}
    with running_process(command, url, work, **variables) as (process, log):
        yield App(url, store, log, process)


async def _draws(url: str) -> bool:
    """Whether a new visitor sees the page."""
    try:
        async with PageSession(url) as session:
            await asyncio.wait_for(session.open(), LIMIT_S)
            return not session.errors
    except (OSError, WebSocketException, TimeoutError):
        return False


async def _reload(url: str, times: int) -> None:
    for _ in range(times):
        async with PageSession(url):
            pass


async def _fill(url: str, count: int) -> tuple[bool, bool, bool]:
    """Open sessions; return whether the page told that it is full, works for the first, and worked before."""
    async with PageSession(url) as first:
        await first.open()
        control, held = not first.errors, []
        try:
            with suppress(OSError, WebSocketException, TimeoutError):
                for _ in range(count):
                    session = PageSession(url)
                    await asyncio.wait_for(session.__aenter__(), 2)
                    held.append(session)
            told = await asyncio.to_thread(_is_told, url)
            try:
                await asyncio.wait_for(first.rerun(), LIMIT_S)
                works = not first.errors
            except (OSError, WebSocketException, TimeoutError):
                works = False
        finally:
            for session in held:
                with suppress(OSError, WebSocketException):
                    await session.__aexit__()
    return told, works, control


def _is_told(url: str) -> bool:
    """Whether a visitor is told by a page, and a service by its status, that there is no place now."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": "text/html"}), timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code == 503 and b"full" in error.read()
    except OSError:
        return False
    return False


def _descriptors(app: App) -> int:
    return int(psutil.Process(app.process.pid).num_fds())


ATTACKS: tuple[Callable[[Path], Result], ...] = (
    terminated_app, interrupted_app, killed_app, used_port, many_reloads, many_visitors, silent_connections,
)  # fmt: skip
