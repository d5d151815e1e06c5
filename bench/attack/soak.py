"""Soak: sessions that come, use the page and leave; what the server keeps of them, and who still gets in."""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from bench.frame import Bound, Report
from jsc_explore import data
from jsc_explore.config import RunConfig
from tests.page_session import PageSession, clicked
from tests.servers import ROOT, free_port, running_app, running_process

SESSIONS, SECONDS = 20, 600.0
# A session leaves after so many seconds, and another one comes, as when a page is loaded again.
VISIT_S, PAUSE_S = 60.0, 3.0
SETTLED_S, LEFT_S = 120.0, 60.0
IDLE_SOCKETS, DESCRIPTORS = 250, 1024


@dataclass(frozen=True)
class Sample:
    """What the page's server and its engine hold at one time; memory in MB is that of the page's server."""

    at: float
    descriptors: int
    threads: int
    memory_mb: float


def run(
    sessions: int = SESSIONS, seconds: float = SECONDS, settled_s: float = SETTLED_S, left_s: float = LEFT_S
) -> Report:
    """Let sessions use one server for so many seconds, then open idle connections."""
    with tempfile.TemporaryDirectory() as name, running_app(Path(name) / "store") as app:
        server = psutil.Process(app.process.pid)
        errors = asyncio.run(_visit(app.url, 3, PAUSE_S * 2, 0))  # what is loaded once is loaded
        time.sleep(left_s)
        before = sample(server, 0.0)
        began = time.monotonic()
        samples, found = asyncio.run(_soak(app.url, server, sessions, seconds))
        print(f"soak of {sessions} sessions: {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(left_s)
        after = sample(server, time.monotonic() - began)
        log_bytes = app.log.stat().st_size
    errors += found
    settled = next(one for one in samples if one.at >= settled_s)
    figures = {
        "soak_errors": float(len(errors)),
        "soak_descriptors_after": after.descriptors / before.descriptors,
        "soak_threads_after": after.threads / before.threads,
        "soak_memory_growth": samples[-1].memory_mb / settled.memory_mb,
        "soak_log_kb": log_bytes / 1000,
        **_crowd(),
    }
    bounds = {
        "soak_errors": Bound(0, at_least=False),
        "soak_descriptors_after": Bound(1.1, at_least=False),
        "soak_threads_after": Bound(1.1, at_least=False),
        "soak_memory_growth": Bound(1.1, at_least=False),
        "crowd_answered": Bound(1.0, at_least=True),
    }
    notes = [
        f"{sessions} sessions for {seconds:g} s, each loaded again after {VISIT_S:g} s; a filter every {PAUSE_S:g} s, "
        "a cell trained by every fifth visit",
        f"before: {before}; at {settled_s:g} s: {settled}; at the end: {samples[-1]}; {left_s:g} s later: {after}",
        f"{IDLE_SOCKETS} idle websockets at a limit of {DESCRIPTORS} descriptors, then five visitors: "
        "`crowd_answered` is the share of them that got a page, or a page that says that the server is full",
        *sorted(set(errors))[:5],
    ]
    return Report("soak", figures, [], bounds, notes)


def sample(server: psutil.Process, at: float) -> Sample:
    """Return what the server and its engine hold now; memory is the server's proportional set size.

    The fork server and the workers are left out: a worker comes with a training and ends after a minute without one.
    """
    family = [server, *server.children()]
    held = [(one.num_fds(), one.num_threads()) for one in family if one.status() != psutil.STATUS_ZOMBIE]
    memory = server.memory_full_info().pss / 1e6
    return Sample(round(at, 1), sum(fds for fds, _ in held), sum(threads for _, threads in held), round(memory, 1))


async def _soak(url: str, server: psutil.Process, sessions: int, seconds: float) -> tuple[list[Sample], list[str]]:
    began, samples = time.monotonic(), []

    async def measure() -> None:
        while time.monotonic() - began < seconds:
            try:
                samples.append(sample(server, time.monotonic() - began))
            except psutil.Error:  # A worker that ended meanwhile.
                continue
            await asyncio.sleep(5)

    visits = [_visits(url, seconds, number) for number in range(sessions)]
    answers = await asyncio.gather(measure(), *visits)
    return samples, [error for found in answers[1:] if found for error in found]


async def _visits(url: str, seconds: float, number: int) -> list[str]:
    errors: list[str] = []
    end = time.monotonic() + seconds
    await asyncio.sleep(number / 2)
    visit = 0
    while (rest := end - time.monotonic()) > 0:
        errors += await _visit_once(url, min(rest, VISIT_S), 100 * number + visit)
        visit += 1
    return errors


async def _visit(url: str, sessions: int, seconds: float, number: int) -> list[str]:
    found = await asyncio.gather(*(_visit_once(url, seconds, number + i) for i in range(sessions)))
    return [error for errors in found for error in errors]


async def _visit_once(url: str, seconds: float, number: int) -> list[str]:
    """Open the page, change filters for a while, and leave; every fifth visit trains a cell of the grid."""
    chance, end = random.Random(number), time.monotonic() + seconds
    async with PageSession(url) as session:
        await session.open()
        if number % 5 == 0:
            cell = RunConfig(batch_size=1024, max_epochs=10, learning_rate=chance.choice([1e-3, 3e-3, 1e-2]))
            await session.set("grid", clicked(cell.config_id(data.digest(cell.dataset))))
        while (rest := end - time.monotonic()) > 0:
            await session.set("explore expression", f"val_acc > {chance.uniform(0.5, 0.75):.3f}")
            await session.stay(min(rest, PAUSE_S))
        return session.errors


def _crowd() -> dict[str, float]:
    """Open idle websockets on a server with few descriptors; count which of five visitors are answered after that."""
    port = free_port()
    command = [sys.executable, "-m", "jsc_explore", "app", "--headless", "--port", str(port)]
    limited = ["bash", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "bash", *command]
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as name:
        url, logs = f"http://localhost:{port}", Path(name) / "logs"
        logs.mkdir()
        limited += ["--store", str(Path(name) / "store")]
        with running_process(limited, url, logs, PYTHONPATH=str(ROOT)) as (_, log):
            opened, answered = asyncio.run(_open_and_visit(url))
            kb = log.stat().st_size / 1000
    return {"crowd_sockets": float(opened), "crowd_answered": answered / 5, "crowd_log_kb": kb}


async def _open_and_visit(url: str) -> tuple[int, int]:
    sockets: list[Any] = []
    address = f"{url.replace('http', 'ws', 1)}/_stcore/stream"
    try:
        for _ in range(IDLE_SOCKETS):
            try:
                sockets.append(await connect(address, subprotocols=[Subprotocol("streamlit")], open_timeout=10))
            except (OSError, WebSocketException, TimeoutError):
                break
        return len(sockets), sum([await _is_answered(url) for _ in range(5)])
    finally:
        await asyncio.gather(*(socket.close() for socket in sockets), return_exceptions=True)


async def _is_answered(url: str) -> bool:
    """Return whether a new visitor gets the page, or is told in plain text that the server is full."""
    try:
        async with asyncio.timeout(20), PageSession(url) as session:
            await session.open()
            return not session.errors
    except (OSError, WebSocketException, TimeoutError):
        return await asyncio.to_thread(_is_told, url)


def _is_told(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Accept": "text/html"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return False
    except urllib.error.HTTPError as error:
        return error.code == 503 and b"full" in error.read()
    except OSError:
        return False
