"""Runs made up for the tests: records for a store, jobs for a queue, trainings without an engine, callbacks."""

import dataclasses

import numpy as np
import torch

from jsc_explore.config import RunConfig
from jsc_explore.data import load, split
from jsc_explore.jobs.queue import BULK, Job
from jsc_explore.results import POINT_FIELDS, Outcome, RunRecord
from jsc_explore.training.callbacks import Callback, CollectingCallback
from jsc_explore.training.trainer import train_stack

CONFIG = "c" * 32
DIGEST = "d" * 64


def record_of(run=None, points=4, **changes):
    run = run or RunConfig()
    curve = [
        {name: float(i) + run.seed / 10 for name in POINT_FIELDS}
        | {"step": i * 10, "samples": i * 100, "epoch": float(i)}
        for i in range(points)
    ]
    curve[0]["train_loss"] = None
    outcome = Outcome(
        status="done", stop_reason="max_epochs", points=curve, epochs_run=points - 1, steps=(points - 1) * 10,
        val_acc=0.7 + run.seed / 100, val_loss=0.8, test_acc=0.69, auc=[0.9, None, 0.8, 0.7, 0.6],
        roc=[float(np.float32(place / 250)) for place in range(249)] + [None], confusion=list(range(25)),
        silent_classes=["t"] if run.seed == 2 else [], versions={"torch": "2"}, weights=b"\x00\x01",
    )  # fmt: skip
    outcome = dataclasses.replace(outcome, **changes)
    return RunRecord(
        run.run_id(DIGEST), run.config_id(DIGEST), DIGEST, 1, run.to_dict(), 117, outcome, "2026-01-01T00:00:00+00:00"
    )


def waiting(run, number, priority=BULK):
    return Job(f"run-{number}", CONFIG, run, "queued", priority, 1, False, 0, 0, 0.0, None, None, None)


class RecordingCallback(Callback):
    """A callback that records everything and may cancel or fail at a point."""

    def __init__(self, cancel_at=None, fail_after_epochs=None):
        self.points, self.outcomes, self.progress_calls = {}, {}, []
        self.cancel_at, self.fail_after_epochs = cancel_at or {}, fail_after_epochs

    def on_point(self, key, point):
        self.points.setdefault(key, []).append(point)
        if self.fail_after_epochs is not None and point["epoch"] > self.fail_after_epochs:
            raise ConnectionError("the worker is gone")

    def on_progress(self, keys, step, totals):
        self.progress_calls.append((tuple(keys), step, tuple(totals)))

    def on_finished(self, key, outcome):
        self.outcomes[key] = outcome

    def cancelled_keys(self):
        done = self.progress_calls[-1][1] if self.progress_calls else 0
        return {key for key, step in self.cancel_at.items() if done >= step}


def fit(runs, split, **options):
    callback = options.pop("callback", RecordingCallback())
    runs = {str(i): run for i, run in enumerate(runs)} if isinstance(runs, list) else runs
    train_stack(runs, split, callback, device="cpu", **options)
    return callback


def curve(outcome, name):
    return np.array([np.nan if p[name] is None else p[name] for p in outcome.points], dtype=float)


def result_of(outcome):
    """Everything in an outcome that is not a time or a size of this machine."""
    measured = {"train_time_s", "wall_share_s", "wall_time_s", "peak_memory_mb"}
    values = {name: value for name, value in dataclasses.asdict(outcome).items() if name not in measured}
    return values | {"points": [{**point, "time_s": None} for point in outcome.points]}


def train_undisturbed(run, cache):
    callback, threads = CollectingCallback(), torch.get_num_threads()
    torch.set_num_threads(1)  # as on a worker
    try:
        train_stack({"a": run}, split(load(run.dataset, cache=cache), run.validation), callback, device="cpu")
    finally:
        torch.set_num_threads(threads)
    return callback.outcomes["a"]
