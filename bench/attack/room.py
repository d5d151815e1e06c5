"""Attacks by one visitor on the others: a large job, many sessions, forged values of widgets."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.attack.result import Result
from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.jobs.limits import LIMITS
from jsc_explore.jobs.queue import ACTIVE, Queue
from tests.page_session import PRESSED, PageSession
from tests.servers import eventually, running_app

# Seconds within which an interactive request gets a worker, whatever else runs.
MAX_WAIT_S = 2.0
LARGE = RunConfig(model="16-4000-600-5", batch_size=16)
SMALL = RunConfig(batch_size=4096, max_epochs=1)
STUDENTS, INTRUDERS, CLICKERS = 30, 3, 12
FORGED_VALUES, MAX_TRACEBACKS, MAX_LOG_BYTES = 2_000, 20, 50_000


def large_network(work: Path) -> Result:
    """Train a network of 2.5 million parameters at batch 16 with one click, then let another visitor click."""
    with running_app(work / "store") as app:
        queue = Queue(app.store)
        try:
            eventually(lambda: (state := queue.engine()) is not None and state.message == "", 60)
            is_asked = asyncio.run(_train(app.url, LARGE, seeds=5))
            large = [LARGE.with_(seed=seed).run_id(data.digest(LARGE.dataset)) for seed in range(5)]
            # Its first point comes after 15 s: it is measured on all validation jets.
            eventually(lambda: "running" in queue.states(large).values(), 60)
            began, small = time.time(), SMALL.run_id(data.digest(SMALL.dataset))
            asyncio.run(_train(app.url, SMALL, seeds=1))
            while small not in queue.live()[1] and queue.states([small])[small] != "done":
                if time.time() - began > 5 * MAX_WAIT_S:
                    return Result(True, True, f"no point after {5 * MAX_WAIT_S:.0f} s; confirmation asked: {is_asked}")
                time.sleep(0.02)
            point_s = time.time() - began
            requested, started = (move.at for move in queue.history(small)[:2])
            is_trained = "running" in queue.states(large).values()
            queue.cancel(large)
            is_done = eventually(lambda: queue.states([small])[small] == "done", 60)
        finally:
            queue.close()
    note = f"worker after {started - requested:.2f} s, first point {point_s:.2f} s after the page was opened"
    return Result(started - requested > MAX_WAIT_S or not is_asked, is_done and is_trained, note)


def many_sessions(work: Path) -> Result:
    """Queue epochs from three sessions of one address up to the limits of each; before, a class does its work there."""
    with running_app(work / "store") as app:
        queue = Queue(app.store)
        try:
            cells = [SMALL.with_(learning_rate=1e-3, weight_decay=round(1e-5 * (i + 1), 6)) for i in range(STUDENTS)]
            asyncio.run(_together(app.url, cells, seeds=1))
            eventually(lambda: not queue.jobs(ACTIVE), 60)
            served = len([job for job in queue.jobs() if job.state == "done"])
            many = [RunConfig(model=f"16-{8 + i}-5", batch_size=4096, max_epochs=1000) for i in range(INTRUDERS)]
            asyncio.run(_together(app.url, many, seeds=20))
            epochs = sum(job.config.max_epochs for job in queue.jobs(ACTIVE))
            queue.cancel([job.run_id for job in queue.jobs(ACTIVE)])
        finally:
            queue.close()
    note = f"{served} of {STUDENTS} students served; {epochs:,} epochs queued by {INTRUDERS} sessions"
    return Result(epochs > (getattr(LIMITS, "address_epochs", None) or 50_000), served == STUDENTS and epochs > 0, note)


def many_clicks(work: Path) -> Result:
    """Train a run of seconds from each of twelve sessions of one address, then let a visitor elsewhere click."""
    with running_app(work / "store") as app:
        queue = Queue(app.store)
        try:
            eventually(lambda: (state := queue.engine()) is not None and state.message == "", 60)
            many = [RunConfig(model=f"16-256-{250 + i}-5", batch_size=16, max_epochs=1) for i in range(CLICKERS)]
            asyncio.run(_together(app.url, many, seeds=1))
            began, small = time.time(), SMALL.run_id(data.digest(SMALL.dataset))
            asyncio.run(_train(app.url, SMALL, seeds=1, headers={"Origin": app.url}))
            eventually(lambda: queue.states([small])[small] != "queued" or time.time() - began > 5 * MAX_WAIT_S, 60)
            moves = [move.at for move in queue.history(small)]
            waited_s = moves[1] - moves[0] if len(moves) > 1 else 5 * MAX_WAIT_S
            requested = len(queue.states([run.run_id(data.digest(run.dataset)) for run in many]))
            queue.cancel([job.run_id for job in queue.jobs(ACTIVE) if job.run_id != small])
            is_done = eventually(lambda: queue.states([small])[small] == "done", 60)
        finally:
            queue.close()
    note = f"{requested} sessions of one address train, the other visitor has a worker after {waited_s:.2f} s"
    return Result(waited_s > MAX_WAIT_S, is_done and requested == CLICKERS, note)


def forged_widget_values(work: Path) -> Result:
    """Send 2,000 values of wrong types for the widgets of a page, and frames that are no messages."""
    with running_app(work / "store", "--read-only") as app:
        errors, sent = asyncio.run(_forge(app.url))
        log = app.log.read_text(encoding="utf-8")
    tracebacks = log.count("\nTraceback")
    note = f"{sent} values: {len(log):,} bytes of log, {tracebacks} tracebacks"
    return Result(tracebacks > MAX_TRACEBACKS or len(log) > MAX_LOG_BYTES, not errors and tracebacks > 0, note)


async def _train(url: str, config: RunConfig, seeds: int, headers: Mapping[str, str] | None = None) -> bool:
    """Train a cell from a new session, confirming it if asked; return whether it was asked."""
    query = f"cells={config.batch_size}:{config.learning_rate:g}&model={config.model}&max_epochs={config.max_epochs}"
    query += f"&weight_decay={config.weight_decay:g}&seeds={seeds}"
    async with PageSession(url, query, headers) as session:
        await session.open()
        await session.set(f"train-{config.config_id(data.digest(config.dataset))}", PRESSED)
        if "confirm" not in session.widgets:
            return False
        await session.set("confirm", PRESSED)
        return True


async def _together(url: str, configs: list[RunConfig], seeds: int) -> None:
    await asyncio.gather(*(_train(url, config, seeds) for config in configs))


async def _forge(url: str) -> tuple[list[str], int]:
    """Return the errors of another session that is open meanwhile, and the number of values sent."""
    rng, sent = random.Random(1), 0
    async with PageSession(url) as session, PageSession(url) as other:
        await session.open()
        names = list(session.widgets)
        while sent < FORGED_VALUES:
            chosen = rng.choices(names, k=rng.choice((1, 40)))
            await session.forge(chosen, rng)
            sent += len(chosen)
        for _ in range(20):
            async with PageSession(url) as broken:
                await broken.send_bytes(b"\xff" * 100)
        await other.open()
        return other.errors, sent


ATTACKS: tuple[Callable[[Path], Result], ...] = (large_network, many_sessions, many_clicks, forged_widget_values)
