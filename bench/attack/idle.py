"""Idle cost: the memory of an app that has been used and does nothing now."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.frame import Bound
from tests.page_session import PageSession
from tests.servers import running_app

BOUNDS = {"idle_page_mb": Bound(250, at_least=False), "idle_all_mb": Bound(600, at_least=False)}
PAGES = ("explore", "compare", "overview", "data")
# Longer than a session without a browser is kept, than predictions take, and than workers wait for work.
SETTLE_S = 75.0


def measure_idle(settle_s: float = SETTLE_S) -> dict[str, float]:
    """Return megabytes (proportional set size) of the page's process and of all processes, idle, on an empty store.

    ``idle_explore_mb``: of the page's process, after one visitor has opened Explore; the others after all pages.
    """
    with tempfile.TemporaryDirectory() as name, running_app(Path(name) / "store") as app:
        server = psutil.Process(app.process.pid)
        asyncio.run(_open(app.url, PAGES[:1]))
        time.sleep(settle_s)
        after_explore = _megabytes(server)
        asyncio.run(_open(app.url, PAGES[1:]))
        time.sleep(settle_s)
        others = sum(_megabytes(process) for process in server.children(recursive=True))
        page = _megabytes(server)
    return {"idle_explore_mb": after_explore, "idle_page_mb": page, "idle_all_mb": page + others}


async def _open(url: str, pages: tuple[str, ...]) -> None:
    for page in pages:
        async with PageSession(url, page=page) as session:
            await session.open()
            await session.stay(5)


def _megabytes(process: psutil.Process) -> float:
    return float(round(process.memory_full_info().pss / 2**20))


if __name__ == "__main__":
    print(measure_idle(float(sys.argv[1]) if len(sys.argv) > 1 else SETTLE_S))
