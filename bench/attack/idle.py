"""Idle cost: the memory of an app that has been used and does nothing now."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from bench.frame import Bound
from tests.page_session import PageSession
from tests.servers import running_app

BOUNDS = {"idle_page_mb": Bound(250, at_least=False), "idle_all_mb": Bound(600, at_least=False)}
PAGES = ("explore", "compare", "overview", "data")
# Longer than a session without a browser is kept, than predictions take, and than workers wait for work.
SETTLE_S = 75.0
# Longer than the process from which workers are forked is kept after a visit.
LEFT_S = 150.0


def measure_idle(settle_s: float = SETTLE_S, left_s: float = LEFT_S) -> dict[str, float]:
    """Return megabytes (proportional set size) of an idle app on an empty store.

    ``idle_explore_mb``: the page's process while one visitor looks at Explore and does nothing; ``idle_visited_mb``:
    all processes then; ``idle_page_mb``: the page's process after all pages were opened and left; ``idle_all_mb``:
    all processes then.
    """
    with tempfile.TemporaryDirectory() as name, running_app(Path(name) / "store") as app:
        server = psutil.Process(app.process.pid)
        explore, visited = asyncio.run(_look(app.url, server, settle_s))
        asyncio.run(_open(app.url, PAGES[1:]))
        time.sleep(left_s)
        page, everything = _megabytes(server), _all_megabytes(server)
    return {
        "idle_explore_mb": explore, "idle_visited_mb": visited, "idle_page_mb": page, "idle_all_mb": everything,
    }  # fmt: skip


async def _look(url: str, server: psutil.Process, settle_s: float) -> tuple[float, float]:
    async with PageSession(url) as session:
        await session.open()
        await session.stay(settle_s)
        return _megabytes(server), _all_megabytes(server)


async def _open(url: str, pages: tuple[str, ...]) -> None:
    for page in pages:
        async with PageSession(url, page=page) as session:
            await session.open()
            await session.stay(5)


def _all_megabytes(server: psutil.Process) -> float:
    return _megabytes(server) + sum(_megabytes(process) for process in server.children(recursive=True))


def _megabytes(process: psutil.Process) -> float:
    return float(round(process.memory_full_info().pss / 2**20))


if __name__ == "__main__":
    print(measure_idle())
