"""Time a job through the real engine: seconds to its first point and to its end, and the memory of a worker."""

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
from jsc_explore.jobs.engine.supervisor import end_engine, start_engine
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

# With `validation = train`, 80% are trained on: 800,000 of these.
JETS = 1_000_000
# A source that is not shipped, so that the stand-in hides none of the project's own jets.
STAND_IN = "cernbox"
SEEDS, EPOCHS, MEMORY_REPLICAS = 5, 10, 50
_POLL_S = 0.005
_TIMEOUT_S = 1800.0
# Where compiled programs are cached between processes: a cold start finds all of them empty.
_CACHES = ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")


@dataclass(frozen=True)
class JobTimes:
    """Seconds from the request (cold: from the start of the engine) to the first point and the last end."""

    first_point_s: float
    end_s: float


class Bench:
    """A folder with a million jets, and a store with empty caches for each engine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jets = folder, folder / "jets"
        self.jets.mkdir()
        cache.write(self.jets, STAND_IN, _stand_in())
        self._stores = 0

    def measure(self, n_cold: int, n_warm: int) -> tuple[list[JobTimes], list[JobTimes], float]:
        """Start ``n_cold`` engines with empty caches, each with the job at once; the last one does ``n_warm`` more.

        Each job has seeds of its own. Return cold times, warm times, and the peak MB of a worker that trains fifty
        replicas for one epoch.
        """
        cold: list[JobTimes] = []
        while True:
            begin = time.perf_counter()
            with self._served() as served:
                cold.append(served.train(_job(0), begin))
                if len(cold) < n_cold:
                    continue
                for number in (1, 2):  # twice: there are several workers, and each warms up by itself
                    served.train(_job(number), time.perf_counter())
                warm = [served.train(_job(3 + i), time.perf_counter()) for i in range(n_warm)]
                many = _job(1000, MEMORY_REPLICAS, epochs=1)
                served.train(many, time.perf_counter())
                return cold, warm, served.peak_mb(many)

    @contextmanager
    def _served(self) -> Iterator[_Served]:
        self._stores += 1
        directory = self.folder / f"store-{self._stores}"
        folder = self.folder / f"caches-{self._stores}"
        caches = {name: str(folder / name.lower()) for name in _CACHES}
        # The compiled kernel is cached beside the jets, so each engine gets its own folder with links to them.
        own = folder / "jets"
        shutil.copytree(self.jets, own, copy_function=os.link)
        with _environment(caches | {"JSC_EXPLORE_CACHE": str(own)}):
            engine = start_engine(directory, self.folder / "none.parquet")
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
        """Submit the runs and wait for all of them; times count from ``begin``."""
        wanted = submit(self.store, self.queue, runs).run_ids
        first: float | None = None
        while True:
            states = self.queue.states(wanted)
            now = time.perf_counter() - begin
            failed = [run_id for run_id in wanted if states[run_id] not in ("queued", "running", "done")]
            if failed or now > _TIMEOUT_S:
                log = (self.directory / "engine.log").read_text()[-2000:]
                raise RuntimeError(f"{len(failed)} of {len(wanted)} runs failed after {now:.0f} s; engine.log: {log}")
            done = all(states[run_id] == "done" for run_id in wanted)
            if first is None and (done or self._has_point(wanted)):
                first = time.perf_counter() - begin
            if done and first is not None:
                return JobTimes(first, now)
            time.sleep(_POLL_S)

    def peak_mb(self, runs: Sequence[RunConfig]) -> float:
        """Return the largest peak memory in MB that a worker of these stored runs reported."""
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
    """Repeat the shipped jets to a million rows, each copy 1e-4 larger, because equal rows would be dropped."""
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
    """Return the times of cold starts and of warm jobs, and the peak MB of a worker."""
    with tempfile.TemporaryDirectory() as name:
        return Bench(Path(name)).measure(n_cold, n_warm)
