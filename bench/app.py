"""Benchmark of the Explore page in a headless browser: first paint, filters, clicks, live curves, megabytes sent."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Browser, Page, WebSocket, sync_playwright

from bench.frame import Bound, Report
from bench.store import POINTS, SEEDS, nested_table
from jsc_explore import data, paths
from jsc_explore.config import DEFAULTS, FIELDS, RECIPE_VERSION, RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.results import POINT_FIELDS
from tests.servers import chromium_path, running_app

CURVES = ".st-key-curves_panel svg.marks"
GRID = ".st-key-grid svg.marks"
POINTS_PER_S = 10
# The last varies fastest, so that the default grid is full even with few runs.
_VARIED = ("precision", "optimizer", "scheduler", "model", "max_epochs", "final_relu", "learning_rate", "batch_size")


# At least (True) or at most.
_BOUNDS = {
    "first_paint_s": (1.5, False),
    "view_mb": (1.0, False),
    "first_view_mb": (1.75, False),
    "cached_cell_s": (0.3, False),
    "live_updates_per_s": (5.0, True),
    "live_server_ms": (30.0, False),
    "slice_1k_s": (0.5, False),
    "slice_100k_s": (1.0, False),
}


def run(quick: bool) -> Report:
    """Measure the page over the shipped snapshot, 1,000 runs and 100,000 (quick: 10,000) runs."""
    times = 3 if quick else 7
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu"])
        many = 10_000 if quick else 100_000
        for label, runs in (("shipped", 0), ("1k", 1000), (f"{many // 1000}k", many)):
            home = Path(name) / label
            snapshot = paths.snapshot() if not runs else _snapshot(home.with_suffix(".parquet"), runs)
            with _server(home, snapshot) as (address, server):
                found = _shipped(browser, address, server, home, times) if not runs else _slice(browser, address, times)
            for key, values in found.items():
                key = key if not runs else f"{key}_{label}_s"
                figures[key] = statistics.median(values)
                rows.append({"figure": key, "low": min(values), "high": max(values), "n": len(values)})
        figures["first_view_mb"] = _measure_first_view(browser, Path(name) / "first")
        browser.close()
    bounds = {key: Bound(limit, at_least) for key, (limit, at_least) in _BOUNDS.items() if key in figures}
    return Report("app", figures, rows, bounds)


def _shipped(browser: Browser, address: str, server: psutil.Process, home: Path, times: int) -> dict[str, list[float]]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    paints: list[float] = []
    bytes_in: list[float] = []
    for i in range(times + 1):
        page = context.new_page()
        received = _received(page)
        begin = time.perf_counter()
        _open(page, address)
        if i:
            paints.append(time.perf_counter() - begin)
        page.wait_for_timeout(1000)
        bytes_in.append(received[0] / 1e6)
        if i < times:
            page.close()
    clicks = []
    columns, rates = ["16", "32", "64", "128", "256", "512"], ["1e-4", "1e-3"]
    for column, rate in itertools.islice(itertools.cycle(itertools.product(columns, rates)), 1, times + 2):
        place = _cell(page, column, rate)
        begin = time.perf_counter()
        page.mouse.click(*place)
        page.locator(f"{CURVES} .labels_marks").get_by_text(f"{column}, {rate} (5 seeds)").wait_for()
        clicks.append(time.perf_counter() - begin)
        page.wait_for_timeout(600)
    context.close()
    live = _live(browser, address, server, home, seconds=4.0 if times < 5 else 10.0)
    return {"first_paint_s": paints, "view_mb": bytes_in, "cached_cell_s": clicks[1:], **live}


def _slice(browser: Browser, address: str, times: int) -> dict[str, list[float]]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    # With the other cells drawn, so that every filter changes the curves, too.
    _open(page, address, "?context=yes")
    page.wait_for_timeout(1500)
    box = page.get_by_role("textbox", name="Filter expression")
    found = []
    for i in range(times + 1):
        box.fill(f"val_acc > {0.6 + 0.01 * i:.2f}")
        page.evaluate(_WATCH, [GRID, CURVES])
        begin = time.perf_counter()
        box.press("Enter")
        page.wait_for_function("window.changed.every(Boolean)")
        found.append(time.perf_counter() - begin)
        page.wait_for_timeout(800)
    context.close()
    return {"slice": found[1:]}


def _live(browser: Browser, address: str, server: psutil.Process, home: Path, seconds: float) -> dict[str, list[float]]:
    """Write points to the queue as an engine does, and count how often the curves on the screen change."""
    runs = [RunConfig(batch_size=1024, max_epochs=50, seed=seed) for seed in range(5)]
    digest = data.digest(runs[0].dataset)
    ids = [run.run_id(digest) for run in runs]
    queue = Queue(home)
    queue.request({i: (run.config_id(digest), run) for i, run in zip(ids, runs, strict=True)})
    queue.start(ids)
    stop = threading.Event()
    feeder = threading.Thread(target=_feed, args=(queue, ids, stop))
    feeder.start()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    try:
        _open(page, address, "?max_epochs=50&cells=1024:1e-3")
        page.locator(f"{CURVES} .mark-line path").first.wait_for()
        page.wait_for_timeout(2000)
        page.evaluate(_COUNT, CURVES)
        cpu, begin = sum(server.cpu_times()[:2]), time.perf_counter()
        page.wait_for_timeout(seconds * 1000)
        updates = page.evaluate("window.updates")
        spent, taken = sum(server.cpu_times()[:2]) - cpu, time.perf_counter() - begin
    finally:
        stop.set()
        feeder.join()
        queue.cancel(ids)
        queue.close()
        context.close()
    # All processor time of the server, grid and job list included, divided by the number of updates.
    return {"live_updates_per_s": [updates / taken], "live_server_ms": [1000 * spent / max(1, updates)]}


def _feed(queue: Queue, run_ids: list[str], stop: threading.Event) -> None:
    step = 0
    while not stop.wait(1 / POINTS_PER_S):
        step += 10
        point: dict[str, Any] = dict.fromkeys(POINT_FIELDS, 0.5 + 0.2 * (step % 97) / 97)
        point |= {
            "step": step,
            "samples": 1024 * step,
            "epoch": step / 200,
            "learning_rate": 1e-3,
            "time_s": step / 100,
        }
        queue.record_progress([(run_id, point) for run_id in run_ids], dict.fromkeys(run_ids, (step, 100_000)))
        queue.set_heartbeat(os.getpid())


# A redrawn chart is a new svg, or its paths change: both show in its content.
_COUNT = """(selector) => {
  window.updates = 0;
  let last = null;
  const look = () => {
    const chart = document.querySelector(selector);
    const now = chart ? [...chart.querySelectorAll('.mark-line path')].map(p => p.getAttribute('d')).join() : last;
    if (now !== last) { if (last !== null) window.updates += 1; last = now; }
    requestAnimationFrame(look);
  };
  look();
}"""
_WATCH = """(selectors) => {
  const held = selectors.map(s => document.querySelector(s)?.innerHTML);
  window.changed = selectors.map(() => false);
  const look = () => {
    selectors.forEach((s, i) => {
      const chart = document.querySelector(s);
      if (chart && chart.innerHTML !== held[i]) window.changed[i] = true;
    });
    if (!window.changed.every(Boolean)) requestAnimationFrame(look);
  };
  look();
}"""


def _open(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/{query}")
    page.locator(GRID).first.wait_for(timeout=60_000)
    page.locator(CURVES).first.wait_for(timeout=60_000)


def _cell(page: Page, column: str, row: str) -> tuple[float, float]:
    labels = page.locator(f"{GRID} .role-axis-label text")
    across = labels.get_by_text(column, exact=True).first.bounding_box()
    up = labels.get_by_text(row, exact=True).last.bounding_box()
    assert across is not None
    assert up is not None
    return across["x"] + across["width"] / 2, up["y"] + up["height"] / 2


def _received(page: Page) -> list[int]:
    """Count the bytes that a page is sent over its websocket, from now on, in the one number returned."""
    received = [0]

    def add(frame: str | bytes) -> None:
        received[0] += len(frame)

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", add)

    page.on("websocket", listen)
    return received


def _measure_first_view(browser: Browser, home: Path) -> float:
    """Return the megabytes that a browser with an empty cache receives until the page is drawn, as served to users."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    socket, received = _received(page), [0.0]

    def add(event: dict[str, Any]) -> None:
        received[0] += event["encodedDataLength"]

    network = context.new_cdp_session(page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", add)
    with running_app(home, "--read-only") as app:
        _open(page, app.url)
        page.wait_for_timeout(1000)
        context.close()
    return (received[0] + socket[0]) / 1e6


def _snapshot(path: Path, runs: int) -> Path:
    """Write generated runs of real configs on the data that the page shows."""
    digest = data.digest(RunConfig().dataset)
    axes = [dict.fromkeys((DEFAULTS[name], *FIELDS[name].default_values)) for name in _VARIED]
    configs = [
        RunConfig(**dict(zip(_VARIED, values, strict=True)))
        for values in itertools.islice(itertools.product(*axes), runs // SEEDS)
    ]
    table = nested_table(runs, first=0)
    owners = [config for config in configs for _ in range(SEEDS)]
    for name in (name for name in FIELDS if name != "seed"):
        column = pa.array([getattr(owner, name) for owner in owners], table.schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    ids = {config: config.config_id(digest) for config in configs}
    for name, values in (
        ("config_id", [ids[owner] for owner in owners]),
        ("data_digest", [digest] * runs),
        ("recipe_version", [RECIPE_VERSION] * runs),
    ):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.array(values, table.schema.field(name).type))
    epochs = pa.array(np.tile(np.geomspace(1e-3, 10, POINTS), runs))
    index = table.schema.get_field_index("curve_epoch")
    table = table.set_column(
        index, "curve_epoch", pa.ListArray.from_arrays(table["curve_epoch"].chunk(0).offsets, epochs)
    )
    pq.write_table(table, path, compression="zstd", row_group_size=2048)
    return path


@contextmanager
def _server(home: Path, snapshot: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run the page without an engine, which would compete for the processor."""
    queue = Queue(home)
    queue.set_heartbeat(os.getpid())
    stop = threading.Event()
    heartbeats = threading.Thread(target=lambda: _until(stop, lambda: queue.set_heartbeat(os.getpid())))
    heartbeats.start()
    try:
        with running_app(home, streamlit=True, JSC_EXPLORE_SNAPSHOT=str(snapshot)) as app:
            yield app.url, psutil.Process(app.process.pid)
    finally:
        stop.set()
        heartbeats.join()
        queue.close()


def _until(stop: threading.Event, act: Callable[[], None]) -> None:
    while not stop.wait(1.0):
        act()
