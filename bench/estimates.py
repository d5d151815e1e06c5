"""Benchmark of the time estimates: error on held-out runs of the snapshot, and on trainings of this machine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Bound, Report
from jsc_explore import paths
from jsc_explore.config import RunConfig
from jsc_explore.jobs import calibration
from jsc_explore.jobs.cost_model import CostModel, products, work_matrix
from jsc_explore.jobs.engine.supervisor import end_engine, start_engine
from jsc_explore.jobs.estimate import estimate_time, format_seconds
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store
from jsc_explore.store.query.grid import timings

# Configs that the shipped snapshot lacks: other networks, batch sizes, lengths; five seeds each.
CONFIGS = (
    RunConfig(batch_size=1024),
    RunConfig(model="16-32-5", batch_size=128, max_epochs=5),
    RunConfig(model="jsc-toy", batch_size=2048, max_epochs=20),
    RunConfig(model="16-64-32-5", batch_size=64, max_epochs=3),
    RunConfig(model="jsc-three-linear", batch_size=256),
    RunConfig(model="jsc-s", batch_size=1024, max_epochs=5),
    RunConfig(batch_size=8, max_epochs=2),
    RunConfig(model="jsc-trt", batch_size=512, max_epochs=5),
)
SEEDS = 5


def run(quick: bool) -> Report:
    """Hold every kind of run of the snapshot out once, and train eight (quick: three) new configs here."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "store"
        store, queue = Store(home, paths.snapshot()), Queue(home)
        rows = timings(store).to_pylist()
        held_out = _held_out([row for row in rows if row["backend"] == "kernel"])
        calibration.write(home, calibration.measure())
        engine = start_engine(home, paths.snapshot())
        try:
            # The first run of an engine waits for imports and compiling, which the estimates leave out.
            _trained(store, queue, RunConfig(max_epochs=1, batch_size=4096))
            found = [_trained(store, queue, config) for config in CONFIGS[: 3 if quick else None]]
        finally:
            end_engine(engine)
            queue.close()
            store.close()
    here = [abs(row["expected_s"] / row["took_s"] - 1) for row in found]
    figures = {
        "estimate_median_error": float(np.median([*held_out, *here])),
        "held_out_median_error": float(np.median(held_out)),
        "here_median_error": float(np.median(here)),
    }
    bounds = {key: Bound(0.25, at_least=False) for key in ("estimate_median_error",)}
    notes = [
        f"{len(held_out)} kinds of runs held out, {len(here)} configs of {SEEDS} seeds trained here, one after another"
    ]
    return Report("estimates", figures, found, bounds, notes)


def _held_out(rows: list[dict[str, Any]]) -> list[float]:
    rows = [{**row, "products": products(row["model"]), "eager_epochs": 0} for row in rows]
    seconds, count = (np.array([row[name] for row in rows], float) for name in ("seconds", "n"))
    return [float(error) for error in CostModel(work_matrix(rows), seconds, count).errors()]


def _trained(store: Store, queue: Queue, config: RunConfig) -> dict[str, Any]:
    runs = [config.with_(seed=seed) for seed in range(SEEDS)]
    estimate = estimate_time(store, runs)
    ids = submit(store, queue, runs).run_ids
    while queue.progress(ids)[0]:
        time.sleep(0.05)
    jobs = [job for job in queue.jobs() if job.run_id in ids and job.started_at and job.finished_at]
    took = max(job.finished_at or 0 for job in jobs) - min(job.started_at or 0 for job in jobs)
    store.refresh()
    return {
        "network": config.model, "batch_size": config.batch_size, "epochs": config.max_epochs,
        "expected_s": estimate.seconds, "took_s": took, "shown": f"{estimate} (took {format_seconds(took)})",
    }  # fmt: skip
