"""Benchmark of load: 100 sessions filter on one real server and engine, and forty request the same cell at once."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.frame import Bound, Report
from jsc_explore import data
from jsc_explore.config import DEFAULT_SEEDS, RunConfig
from jsc_explore.jobs.queue import Queue
from tests.page_session import PageSession, clicked
from tests.servers import running_app

EVERY_S = 5.0
# A cell of the default grid that the shipped snapshot lacks.
CELL = RunConfig(batch_size=1024)
THRESHOLDS = [f"{0.5 + 0.01 * i:.2f}" for i in range(25)]


def run(quick: bool) -> Report:
    """Let 100 sessions change a filter every five seconds for two minutes (quick: 20 sessions, twenty seconds)."""
    sessions, seconds, requesters = (20, 20.0, 8) if quick else (100, 120.0, 40)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "store"
        with running_app(home) as app:
            slices, opened, errors = asyncio.run(_run_sessions(app.url, sessions, seconds, requesters))
            trainings, done = _count_trainings(home)
    figures = {
        "errors": float(len(errors)),
        "slice_p95_s": float(np.quantile(slices, 0.95)),
        "slice_median_s": float(np.median(slices)),
        "open_p95_s": float(np.quantile(opened, 0.95)),
        "slices": float(len(slices)),
        "trainings_for_one_cell": float(trainings),
        "cell_runs_done": float(done),
    }
    bounds = {
        "errors": Bound(0, at_least=False),
        "slice_p95_s": Bound(2.0, at_least=False),
        "trainings_for_one_cell": Bound(1, at_least=False),
        "cell_runs_done": Bound(DEFAULT_SEEDS, at_least=True),
    }
    notes = [
        f"{sessions} websocket sessions, each with a new filter every {EVERY_S:g} s for {seconds:g} s; fragments "
        "with an interval are requested as a browser does",
        f"{requesters} sessions clicked one missing cell within a second",
        *sorted(set(errors))[:5],
    ]
    return Report("load", figures, [], bounds, notes)


async def _run_sessions(
    address: str, sessions: int, seconds: float, requesters: int
) -> tuple[list[float], list[float], list[str]]:
    chance = random.Random(0)
    everyone = asyncio.Barrier(sessions)
    work = [
        _run_session(address, everyone, seconds, chance.random(), number < requesters, random.Random(number))
        for number in range(sessions)
    ]
    answers = await asyncio.gather(*work)
    slices = [time for found, _, _ in answers for time in found]
    return slices, [opened for _, opened, _ in answers], [error for _, _, errors in answers for error in errors]


async def _run_session(
    address: str, everyone: asyncio.Barrier, seconds: float, phase: float, asks: bool,
    chance: random.Random,
) -> tuple[list[float], float, list[str]]:  # fmt: skip
    slices: list[float] = []
    # Sessions of an audience do not start in the same millisecond.
    await asyncio.sleep(10 * phase)
    async with PageSession(address) as session:
        opened = await session.open()
        await everyone.wait()
        began = time.monotonic()
        await session.stay(EVERY_S * phase)
        asked = not asks
        while (now := time.monotonic() - began) < seconds:
            if not asked and now > seconds / 3:
                asked = True
                await session.stay(max(0.0, seconds / 3 + EVERY_S + phase - now))
                await session.set("grid", clicked(CELL.config_id(data.digest(CELL.dataset))))
            due = time.monotonic() + EVERY_S
            slices.append(await session.set("explore expression", f"val_acc > {chance.choice(THRESHOLDS)}"))
            await session.stay(max(0.0, due - time.monotonic()))
        return slices, opened, session.errors


def _count_trainings(home: Path) -> tuple[int, int]:
    """Wait until the runs of the cell have ended; return how often a run was started at most, and how many are done."""
    digest = data.digest(CELL.dataset)
    ids = [CELL.with_(seed=seed).run_id(digest) for seed in range(DEFAULT_SEEDS)]
    queue = Queue(home)
    deadline = time.monotonic() + 120
    while queue.progress(ids)[0] and time.monotonic() < deadline:
        time.sleep(0.5)
    begun = [sum(move.after == "running" for move in queue.history(run_id)) for run_id in ids]
    states = queue.states(ids)
    queue.close()
    return max(begun), sum(state == "done" for state in states.values())
