"""Benchmark of the time estimates: error on held-out runs of the snapshot, and on trainings of this machine."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.faults import SAMPLE, small_sample
from bench.frame import Bound, Report
from jsc_explore import data, paths
from jsc_explore.config import RunConfig
from jsc_explore.jobs import calibration
from jsc_explore.jobs.cost_model import CostModel, arithmetic, work_matrix
from jsc_explore.jobs.engine.supervisor import end_engine, start_engine
from jsc_explore.jobs.estimate import estimate_time, format_seconds
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store
from jsc_explore.store.query.grid import timings
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.callbacks import CollectingCallback
from jsc_explore.training.trainer import resolve_device, train_stack

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
# Networks far beyond the snapshot's, each for an epoch of a few jets at a small and at a large batch.
LARGE = ("16-256-256-5", "16-1000-1000-5", "16-4000-600-5", "16-1200-1200-1200-1200-5", "16-600-4000-600-5")
LARGE_JETS = 4_000


def run(quick: bool) -> Report:
    """Hold every kind of run of the snapshot out once; train eight (quick: three) new configs and large networks."""
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
    large = _large(LARGE[2:3] if quick else LARGE)
    here = [abs(row["expected_s"] / row["took_s"] - 1) for row in found]
    figures = {
        "estimate_median_error": float(np.median([*held_out, *here])),
        "held_out_median_error": float(np.median(held_out)),
        "here_median_error": float(np.median(here)),
        "large_network_worst_factor": math.exp(max(abs(math.log(row["expected_s"] / row["took_s"])) for row in large)),
    }
    bounds = {
        "estimate_median_error": Bound(0.25, at_least=False),
        "large_network_worst_factor": Bound(3, at_least=False),
    }
    notes = [
        f"{len(held_out)} kinds of runs held out, {len(here)} configs of {SEEDS} seeds trained here, one after another",
        f"large networks: one epoch of {LARGE_JETS} jets in this process, one thread, estimated from the snapshot",
    ]
    return Report("estimates", figures, [*found, *large], bounds, notes)


def _large(models: Sequence[str]) -> list[dict[str, Any]]:
    """Train large networks on a sample of jets; return expected and measured seconds."""
    torch.set_num_threads(1)  # as on a worker
    rows = []
    with tempfile.TemporaryDirectory() as name, small_sample(Path(name) / "cache", LARGE_JETS):
        store = Store(Path(name) / "store", paths.snapshot())
        split = DeviceSplit.of(data.split(data.load(SAMPLE), RunConfig().validation), resolve_device("cpu"))
        for model, batch_size in itertools.product(models, (16, 1024)):
            run = RunConfig(dataset=SAMPLE, model=model, batch_size=batch_size, max_epochs=1)
            collected = CollectingCallback()
            train_stack({"run": run}, split, collected, device="cpu")
            rows.append({
                "network": model, "batch_size": batch_size, "epochs": 1,
                "expected_s": estimate_time(store, [run], workers=1).seconds,
                "took_s": collected.outcomes["run"].wall_time_s,
            })  # fmt: skip
        store.close()
    return rows


def _held_out(rows: list[dict[str, Any]]) -> list[float]:
    rows = [{**row, **arithmetic(row["model"]), "eager_epochs": 0} for row in rows]
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
