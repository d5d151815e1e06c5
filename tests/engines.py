"""What tests of the engine share: waiting, and a training without any engine to hold results against."""

import dataclasses
import time

import torch

from jsc_explore.data import load, split
from jsc_explore.training.trainer import train_stack


def eventually(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def result_of(outcome):
    """Everything in an outcome that is not a time or a size of this machine."""
    measured = {"train_time_s", "wall_time_s", "peak_memory_mb"}
    values = {name: value for name, value in dataclasses.asdict(outcome).items() if name not in measured}
    return values | {"points": [{**point, "time_s": None} for point in outcome.points]}


class CollectingCallback:
    """An observer that keeps the outcome."""

    def point(self, key, point):
        pass

    def progress(self, keys, step, total_steps):
        pass

    def cancelled(self):
        return set()

    def finished(self, key, outcome):
        self.outcome = outcome


def train_undisturbed(run, cache):
    keeper, threads = CollectingCallback(), torch.get_num_threads()
    torch.set_num_threads(1)  # as on a worker
    try:
        train_stack({"a": run}, split(load(run.dataset, cache=cache), run.validation), keeper, device="cpu")
    finally:
        torch.set_num_threads(threads)
    return keeper.outcome
