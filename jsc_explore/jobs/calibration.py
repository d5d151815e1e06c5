"""Calibration: measure this machine's training speed for a few seconds while an engine is idle, and store it.

Published runs carry the times of the machine that trained them; the calibration translates these to this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsc_explore import processes
from jsc_explore.config import RunConfig
from jsc_explore.files import atomic_write
from jsc_explore.store.directory import StoreDirectory, open_directory

FILE = "calibration.json"
# A machine's speed changes little within a week. Another number of cores means another machine.
MAX_AGE_S = 7 * 86_400.0
# An engine that was idle for this long probably stays idle for the few seconds of a calibration.
IDLE_BEFORE_S = 20.0
# Small and large batches and networks: their costs change by different factors from machine to machine.
RUNS = (
    RunConfig(batch_size=256, max_epochs=2),
    RunConfig(batch_size=16, max_epochs=1),
    RunConfig(model="jsc-s", batch_size=256, max_epochs=1),
)
_COLUMNS = ("batch_size", "parameters", "epochs_run", "train_rows", "val_rows", "seconds")


def modified_at(directory: Path) -> float:
    """Return the modification time of a store's calibration, as a cache key; 0 if there is none."""
    with suppress(OSError):
        return (Path(directory) / FILE).stat().st_mtime
    return 0.0


def load(directory: Path) -> list[dict[str, Any]]:
    """Return the calibration's runs as rows of sizes and seconds; empty if the file is missing or invalid."""
    try:
        content = json.loads((Path(directory) / FILE).read_text(encoding="utf-8"))
        rows = [{name: float(row[name]) for name in _COLUMNS} for row in content["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if all(value > 0 for value in row.values())]


def is_due(directory: Path) -> bool:
    """Return whether a store lacks a calibration of this machine, or has an old one."""
    try:
        content = json.loads((Path(directory) / FILE).read_text(encoding="utf-8"))
        return content["cores"] != os.cpu_count() or not 0 <= time.time() - content["at"] < MAX_AGE_S
    except (OSError, ValueError, KeyError, TypeError):
        return True


class IdleCalibrator:
    """Calibrates once, if it is due, after the engine was idle for a while, so that no request is delayed."""

    def __init__(self, home: StoreDirectory) -> None:
        self.home, self._idle_since, self._is_started = home, time.monotonic(), False
        self._process: subprocess.Popen[bytes] | None = None

    def update(self, is_busy: bool) -> None:
        """Track whether the engine is busy; after ``IDLE_BEFORE_S`` idle seconds measure in another process."""
        if self._process is not None:
            self._process.poll()  # Else it would stay in the process table after its end.
        if is_busy:
            self._idle_since = time.monotonic()
        elif not self._is_started and time.monotonic() - self._idle_since > IDLE_BEFORE_S:
            self._is_started = True
            if is_due(self.home.path):
                module = "jsc_explore.jobs.calibration"
                command = processes.module_command(module, str(self.home.path), self.home.id)
                quiet: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                with suppress(OSError):
                    self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **quiet)


def measure() -> list[dict[str, Any]]:
    """Train the calibration's runs as the engine would; return a row of sizes and seconds for each."""
    from jsc_explore import data
    from jsc_explore.training.backends.base import DeviceSplit
    from jsc_explore.training.callbacks import CollectingCallback
    from jsc_explore.training.trainer import resolve_device, train_stack

    first = RUNS[0]
    split = DeviceSplit.of(data.split(data.load(first.dataset), first.validation), resolve_device("cpu"))
    # The first training compiles and fills caches, which must not count.
    train_stack({"warm": first.with_(max_epochs=1)}, split.head(2000), CollectingCallback(), device="cpu")
    rows = []
    for run in RUNS:
        collected = CollectingCallback()
        train_stack({"run": run}, split, collected, device="cpu")
        outcome = collected.outcomes["run"]
        rows.append(
            {"batch_size": run.batch_size, "parameters": run.network.parameters, "epochs_run": outcome.epochs_run,
             "train_rows": outcome.train_rows, "val_rows": outcome.val_rows, "seconds": outcome.wall_time_s}
        )  # fmt: skip
    return rows


def write(directory: Path | StoreDirectory, rows: Sequence[dict[str, Any]]) -> None:
    """Write a calibration into a store, atomically. Raises StoreError if the directory is not a store, or gone."""
    home = open_directory(directory)
    text = json.dumps({"at": time.time(), "cores": os.cpu_count(), "runs": list(rows)}, indent=1)
    with atomic_write(home.path / FILE, durable=False) as file:
        file.write(text.encode())


if __name__ == "__main__":
    processes.end_with_parent()
    os.nice(5)
    write(open_directory(Path(sys.argv[1]), expected_id=sys.argv[2]), measure())
