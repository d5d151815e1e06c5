"""A job through the real engine: how soon its first point comes, and its end; how much memory its workers take."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.data import cache
from jsc_explore.data.sources import SourceData
from jsc_explore.jobs import Queue
from jsc_explore.jobs.engine.supervisor import end_engine, start_engine
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

# The validation mase trains on 80%: 800,000 of these.
JETS = 1_000_000
# A release that is never shipped, so that the bench's stand-in hides nothing of the project's own.
STAND_IN = "cernbox"
SEEDS, EPOCHS, MEMORY_REPLICAS = 5, 10, 50
_LOOK_S = 0.005
_DEADLINE_S = 1800.0
# Where compiled programs are kept between processes: a cold start finds none of them.
_CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class JobTimes:
    """Seconds from the request (cold: the engine's start) to the first point of any run and to the last run's end."""

    first_point_s: float
    end_s: float


class Bench:
    """A folder with a store, caches of its own and a million jets; everything the engine needs and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jets = folder, folder / "jets"
        self.jets.mkdir()
        cache.write(self.jets, STAND_IN, _stand_in())
        self._stores = 0

    def cold(self) -> JobTimes:
        """Start an engine with empty caches and give it the job at once."""
        begin = time.perf_counter()
        with self._served() as served:
            return served.train(_job(0), begin)

    def warm(self, n: int) -> tuple[list[JobTimes], float]:
        """Time the job ``n`` times, other seeds each, on an engine that has done it; then peak MB of a worker.

        The peak is that of the workers that train a stack of fifty replicas for one epoch.
        """
        with self._served() as served:
            for again in range(2):  # twice: there are several workers, and each has its own memory
                served.train(_job(1 + again), time.perf_counter())
            times = [served.train(_job(3 + i), time.perf_counter()) for i in range(n)]
            many = _job(1000, MEMORY_REPLICAS, epochs=1)
            served.train(many, time.perf_counter())
            return times, served.peak_mb(many)

    @contextmanager
    def _served(self) -> Iterator[_Served]:
        self._stores += 1
        directory = self.folder / f"store-{self._stores}"
        caches = {name: str(directory / "caches" / name.lower()) for name in _CACHES}
        # The kernel is kept beside the jets: each engine gets a folder of its own with the same jets in it.
        own = directory / "caches" / "jets"
        shutil.copytree(self.jets, own, copy_function=os.link)
        with _environment(caches | {"JSC_EXPLORE_CACHE": str(own)}):
            engine = start_engine(directory, directory / "none.parquet")
            served = _Served(directory)
            try:
                yield served
            finally:
                served.close()
                end_engine(engine)


class _Served:
    def __init__(self, directory: Path) -> None:
        self.directory, self.queue, self.store = directory, Queue(directory), Store(directory)

    def train(self, runs: Sequence[RunConfig], begin: float) -> JobTimes:
        """Ask for the runs and wait for all of them; times count from ``begin``."""
        wanted = submit(self.store, self.queue, runs).run_ids
        first: float | None = None
        while True:
            states = self.queue.states(wanted)
            now = time.perf_counter() - begin
            failed = [run_id for run_id in wanted if states[run_id] not in ("queued", "running", "done")]
            if failed or now > _DEADLINE_S:
                log = (self.directory / "engine.log").read_text()[-2000:]
                raise RuntimeError(f"{len(failed)} of {len(wanted)} runs failed after {now:.0f} s; engine.log: {log}")
            done = all(states[run_id] == "done" for run_id in wanted)
            if first is None and (done or self._has_point(wanted)):
                first = time.perf_counter() - begin
            if done and first is not None:
                return JobTimes(first, now)
            time.sleep(_LOOK_S)

    def peak_mb(self, runs: Sequence[RunConfig]) -> float:
        """Return the largest peak that a worker of these stored runs reported."""
        digest = data.digest(runs[0].dataset)
        self.store.refresh()
        rows = self.store.runs({"run_id": [run.run_id(digest) for run in runs]}, ["peak_memory_mb"])
        return float(max(rows["peak_memory_mb"].to_pylist()))

    def close(self) -> None:
        self.queue.close()
        self.store.close()

    def _has_point(self, wanted: Sequence[str]) -> bool:
        _, points = self.queue.live()
        return any(points.get(run_id) for run_id in wanted)


def _job(number: int, replicas: int = SEEDS, epochs: int = EPOCHS) -> list[RunConfig]:
    first = number * SEEDS
    return [
        RunConfig(dataset=STAND_IN, model="jsc-tiny", batch_size=256, max_epochs=epochs, seed=seed)
        for seed in range(first, first + replicas)
    ]


def _stand_in() -> SourceData:
    """Repeat the shipped jets to a million rows, each time a ten-thousandth larger: equal rows would be dropped."""
    jets = data.load("simulated")
    index = np.arange(JETS) % len(jets)
    larger = 1 + 1e-4 * (np.arange(JETS) // len(jets))
    features = np.ascontiguousarray(jets.features[index] * larger[:, None], np.float32)
    return SourceData(features, jets.labels[index], "", "MIT", "")


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure_jobs(n_cold: int, n_warm: int) -> tuple[list[JobTimes], list[JobTimes], float]:
    """Return times of cold starts, of warm jobs, and the peak of a worker in MB."""
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        cold = [bench.cold() for _ in range(n_cold)]
        return cold, *bench.warm(n_warm)
