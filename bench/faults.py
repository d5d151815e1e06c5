"""Benchmark of faults: what is lost of 60 runs in 200 kills of engine and workers, and when the disk is full."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from bench.frame import Bound, Report
from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.data import cache as canonical
from jsc_explore.data.sources import SourceData
from jsc_explore.jobs.engine import supervisor
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store
from tests.servers import workers_of

SAMPLE, JETS = "simulated-few", 20_000
# One kill in four is of the engine, and with it of every worker.
ENGINE_SHARE = 0.25
# Kills are spread over the training, so that the last one comes before the last run ends.
LAG_S, JITTER_S = 3.0, 1.0
_TIMEOUT_S = 1800.0
_MEASURED = ("train_time_s", "wall_share_s", "wall_time_s", "peak_memory_mb", "replicas")


def run(quick: bool) -> Report:
    """Train the runs undisturbed, then with kills, and compare; then train on a disk that is filled repeatedly."""
    runs, kills = (_runs(12), 12) if quick else (_runs(60), 200)
    with tempfile.TemporaryDirectory() as name, small_sample(Path(name) / "cache"):
        home, rng = Path(name), random.Random(1)
        undisturbed = Served(home / "undisturbed")
        began = time.monotonic()
        undisturbed.train(runs)
        undisturbed_s = time.monotonic() - began
        disturbed = Served(home / "disturbed")
        began = time.monotonic()
        hits = disturbed.train(runs, kills, rng)
        figures = {"kills": float(sum(hits.values())), **disturbed.count_faults(runs, undisturbed)}
        disturbed_s = time.monotonic() - began
        undisturbed.close()
        disturbed.close()
    killed = f"{hits['engine']} kills of the engine and {hits['worker']} of a worker"
    notes = [f"{len(runs)} runs took {undisturbed_s:.0f} s undisturbed, {disturbed_s:.0f} s with {killed}, at random."]
    full, why_not = full_disk(3 if quick else 12)
    figures |= {key: float(value) for key, value in full.items()}
    notes += [why_not] if why_not else []
    bounds = {key: Bound(0, at_least=False) for key in figures if key not in ("kills", "disk_full_fills")}
    return Report("faults", figures, bounds=bounds | {"kills": Bound(kills, at_least=True)}, notes=notes)


def full_disk(fills: int) -> tuple[dict[str, int], str]:
    """Fill the store's disk ``fills`` times while runs train, in a mount namespace; return figures, or why not."""
    apart = ["unshare", "--user", "--map-root-user", "--mount"]
    # Missing rights to mount are the only reason for no figures; any later failure is an error.
    try:
        tried = subprocess.run([*apart, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    except OSError as error:
        return {}, f"Not measured: a disk that is full ({error})."
    if tried.returncode:
        return {}, f"Not measured: a disk that is full ({tried.stderr.strip()})."
    command = [*apart, sys.executable, "-m", "bench.full_disk", str(fills)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if ended.returncode:
        raise RuntimeError(f"bench.full_disk failed: {ended.stderr.strip()[-2000:]}")
    return dict(json.loads(ended.stdout)), ""


@contextmanager
def small_sample(cache: Path, count: int = JETS) -> Iterator[None]:
    """Use a cache with a sample of ``count`` jets and the compiled kernel of the real cache."""
    compiled = data.cache_dir() / "kernel"
    compiled.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True)
    (cache / "kernel").symlink_to(compiled, target_is_directory=True)
    jets = data.load("simulated")
    features, labels = np.ascontiguousarray(jets.features[:count]), jets.labels[:count]
    canonical.write(cache, SAMPLE, SourceData(features, labels, "", "MIT", ""))
    before = os.environ.get("JSC_EXPLORE_CACHE")
    os.environ["JSC_EXPLORE_CACHE"] = str(cache)
    try:
        yield
    finally:
        if before is None:
            del os.environ["JSC_EXPLORE_CACHE"]
        else:
            os.environ["JSC_EXPLORE_CACHE"] = before


def _target(rng: random.Random | None) -> str:
    """Choose the next target before looking for it, so that an engine without workers is not killed in their place."""
    return "engine" if rng and rng.random() < ENGINE_SHARE else "worker"


def _runs(count: int) -> list[RunConfig]:
    """Return configs: two short ones for each long one, which lives long enough to be checkpointed and resumed."""
    network: dict[str, Any] = {"dataset": SAMPLE, "model": "16-64-64-5", "batch_size": 256, "final_relu": False}
    return [RunConfig(**network, seed=seed, max_epochs=(40, 40, 240)[seed % 3]) for seed in range(count)]


class Served:
    """A store with the supervisor of an app, which starts an engine whenever none serves it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.queue, self.store = Queue(directory), Store(directory)
        self._family: dict[int, psutil.Process] = {}
        # A supervisor waits longer each time an engine dies early; here engines die by design.
        supervisor.EARLY_EXIT_S, supervisor.CHECK_INTERVAL_S = 0.0, 0.2

    def train(self, runs: Sequence[RunConfig], kills: int = 0, rng: random.Random | None = None) -> Counter[str]:
        """Submit the runs and wait for all of them while killing processes; return the number of kills by target."""
        wanted = submit(self.store, self.queue, runs).run_ids
        hits: Counter[str] = Counter()
        supervisor = Supervisor(self.directory, self.directory / "none.parquet")
        supervisor.start()
        began = killed_at = time.monotonic()
        pause, target = 0.0, _target(rng)
        try:
            while True:
                active, done = self.queue.progress(wanted)
                now, killed = time.monotonic(), sum(hits.values())
                if now - began > _TIMEOUT_S or (not active and (killed >= kills or killed == 0)):
                    return hits
                lagging = len(wanted) - active + done < len(wanted) * killed / max(1, kills)
                if rng and killed < kills and now - killed_at > pause + LAG_S * lagging:
                    # A missing target is tried again later, not killed the moment it appears.
                    hit = self._kill(target, rng)
                    hits[target] += hit
                    target = _target(rng) if hit else target
                    pause = rng.uniform(0, JITTER_S) - (0 if hit else LAG_S * lagging)
                    killed_at = now
                time.sleep(0.02)
        finally:
            supervisor.stop()

    def count_faults(self, runs: Sequence[RunConfig], undisturbed: Served) -> dict[str, float]:
        """Count what went wrong, compared with an undisturbed store."""
        digest = data.digest(SAMPLE)
        ids = [run.run_id(digest) for run in runs]
        states = self.queue.states(ids)
        for served in (self, undisturbed):
            served.store.refresh()
        counted: Counter[str] = Counter()
        torn = len(self.store.problems)
        for part in self.store.catalog.parts():
            path = self.store.catalog.path_of(part)
            try:
                counted.update(pq.read_table(path, columns=["run_id"])["run_id"].to_pylist())
                torn += hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256
            except (OSError, ValueError):
                torn += 1
        return {
            "lost": sum(counted[run_id] == 0 for run_id in ids),
            "duplicated": sum(count - 1 for count in counted.values()),
            "torn": torn,
            "different": sum(self._result(run_id) != undisturbed._result(run_id) for run_id in ids),
            "orphans": self._orphans(),
            "errors": sum(states[run_id] != "done" for run_id in ids) + self._tracebacks(),
        }

    def close(self) -> None:
        """Close queue and store."""
        self.queue.close()
        self.store.close()

    def _result(self, run_id: str) -> dict[str, Any] | None:
        """Return the stored results of a run without measured times and memory."""
        record = self.store.record(run_id, weights=True)
        if record is None:
            return None
        values = {name: value for name, value in asdict(record.outcome).items() if name not in _MEASURED}
        return values | {"points": [{**point, "time_s": None} for point in record.outcome.points]}

    def _kill(self, target: str, rng: random.Random) -> bool:
        """Kill the engine or one of its workers; return whether there was one."""
        state = self.queue.engine()
        with suppress(psutil.Error):
            if state is None or not (engine := psutil.Process(state.pid)).is_running():
                return False
            family = [engine, *engine.children(recursive=True)]
            self._family |= {process.pid: process for process in family}
            targets = [engine] if target == "engine" else workers_of(engine)
            if targets:
                rng.choice(targets).send_signal(signal.SIGKILL)
            return bool(targets)
        return False

    def _orphans(self) -> int:
        """Count processes that outlive their engine, and files and rows that nothing refers to."""
        _, alive = psutil.wait_procs(list(self._family.values()), timeout=20)
        files = [path for path in (self.directory / "parts").iterdir() if path.suffix != ".parquet"]
        known = {part.name for part in self.store.catalog.parts()}
        files += [path for path in (self.directory / "parts").glob("*.parquet") if path.name not in known]
        files += list((self.directory / "checkpoints").glob("*"))
        return len(alive) + len(files) + len(self.queue.jobs(("running",)))

    def _tracebacks(self) -> int:
        """Count tracebacks of this project in engine.log; those of Dask report broken connections, as expected."""
        text = (self.directory / "engine.log").read_text(errors="replace")
        return sum("jsc_explore" in block and "Error" in block for block in text.split("Traceback")[1:])
