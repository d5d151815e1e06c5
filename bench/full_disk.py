"""Train on a disk that is filled N times: ``unshare --user --map-root-user --mount python -m bench.full_disk N``.

A file system of a few megabytes is mounted in a private namespace. N times a file takes up the free space but for a
random rest, and is deleted when the engine has reported the full disk: each time another write fails.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.faults import SAMPLE, Served, small_sample
from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.submit import submit

SIZE_MB = 24
# Space left free: from nothing to about the size of a run.
REST_BYTES = 64 * 1024
# Longer than the engine takes to notice and report it.
FULL_S, FREE_S, TIMEOUT_S, CLOSING_S = 4.0, 1.0, 600.0, 30.0


def measure(fills: int) -> dict[str, int]:
    """Return how many runs were lost, how often the disk was full, and whether the engine never reported it."""
    with tempfile.TemporaryDirectory() as name, small_sample(Path(name) / "cache"):
        disk = Path(name) / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(disk)]
        subprocess.run(mount, check=True, stdout=sys.stderr)
        try:
            return _measure(disk, fills)
        finally:
            _unmount(disk)


def _unmount(disk: Path) -> None:
    """Unmount as soon as the engine's last process, which ends by itself after the engine, has closed its log."""
    deadline = time.monotonic() + CLOSING_S
    while subprocess.run(["umount", str(disk)], stdout=sys.stderr).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{disk}: is still in use {CLOSING_S:g} s after the engine ended")
        time.sleep(0.2)


def _measure(disk: Path, fills: int) -> dict[str, int]:
    served, rng = Served(disk / "store"), random.Random(2)
    supervisor = Supervisor(served.directory, disk / "none.parquet")
    supervisor.start()
    reports = done = seed = 0
    wanted: list[str] = []
    try:
        while done < fills:
            # Work for as long as the disk is full: short runs, and a long one with checkpoints.
            network = {"dataset": SAMPLE, "model": "16-64-64-5", "batch_size": 256, "final_relu": False}
            more = [RunConfig(**network, seed=seed + i, max_epochs=(20, 20, 300)[i]) for i in range(3)]  # type: ignore[arg-type]
            wanted += submit(served.store, served.queue, more).run_ids
            seed += len(more)
            _wait_for_steps(served)
            with (disk / "ballast").open("wb") as ballast:
                _fill(ballast.fileno(), disk, rng.randrange(REST_BYTES))
            reports += _wait_for_report(served)
            (disk / "ballast").unlink()
            done += 1
            time.sleep(FREE_S)
        deadline = time.monotonic() + TIMEOUT_S
        while served.queue.progress(wanted)[0] and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        supervisor.stop()
    states = served.queue.states(wanted)
    served.store.refresh()
    stored = served.store.existing(wanted)
    rows = sum(part.rows for part in served.store.catalog.parts())
    lost = [run_id for run_id in wanted if states.get(run_id) != "done" or run_id not in stored]
    served.close()
    unreported = 0 if reports else 1
    return {
        "disk_full_lost": len(lost) + abs(rows - len(wanted)),
        "disk_full_unreported": unreported,
        "disk_full_fills": done,
    }


def _fill(handle: int, disk: Path, rest: int) -> None:
    """Write until ``rest`` bytes are free, rounded to pages as tmpfs does."""
    page = os.sysconf("SC_PAGE_SIZE")
    while (free := os.statvfs(disk).f_bavail * page - rest) > page:
        try:
            os.write(handle, bytes(min(free, 1 << 20)))
        except OSError:  # The engine took the last page in the meantime.
            return


def _wait_for_report(served: Served) -> int:
    """Wait for the engine to report the full disk as the page would show it; return 1 if it did, else 0."""
    deadline = time.monotonic() + FULL_S
    while time.monotonic() < deadline:
        try:
            state = served.queue.engine()
        except StoreError:
            continue
        if state is not None and any(word in state.message for word in ("no space", "full", "make room")):
            return 1
        time.sleep(0.05)
    return 0


def _wait_for_steps(served: Served) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if any(job.step for job in served.queue.jobs(("running",))):
            return
        time.sleep(0.05)
    raise RuntimeError((served.directory / "engine.log").read_text()[-2000:])


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
