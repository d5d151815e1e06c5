"""How fast this machine is: a few seconds of real training when an engine first has nothing to do, kept in the store.

Runs that were published come with the times of the machine that trained them; this says what they mean here.
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

from jsc_explore.config import RunConfig
from jsc_explore.files import atomic_write

FILE = "calibration.json"
# A machine changes little within a week; one with another count of cores is another machine.
GOOD_FOR_S = 7 * 86_400.0
# An engine without work for so long is likely to stay so for the few seconds that it takes.
CALM_S = 20.0
# Small and large steps, a small and a larger network: what they cost differs by other factors from machine to machine.
RUNS = (
    RunConfig(batch_size=256, max_epochs=2),
    RunConfig(batch_size=16, max_epochs=1),
    RunConfig(model="jsc-s", batch_size=256, max_epochs=1),
)
_COLUMNS = {"batch_size", "parameters", "epochs_run", "train_rows", "val_rows", "seconds"}


def stamp(directory: Path) -> float:
    """Return when the calibration of a store was written, as a key for what was computed from it; 0 for none."""
    with suppress(OSError):
        return (Path(directory) / FILE).stat().st_mtime
    return 0.0


def load(directory: Path) -> list[dict[str, Any]]:
    """Return the runs of the calibration, as rows of what was done and the seconds it took; none if there is none."""
    try:
        held = json.loads((Path(directory) / FILE).read_text(encoding="utf-8"))
        rows = [{name: float(row[name]) for name in _COLUMNS} for row in held["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [row for row in rows if all(value > 0 for value in row.values())]


def is_due(directory: Path) -> bool:
    """Whether a store has no calibration of this machine, or an old one."""
    try:
        held = json.loads((Path(directory) / FILE).read_text(encoding="utf-8"))
        return held["cores"] != os.cpu_count() or not 0 <= time.time() - held["at"] < GOOD_FOR_S
    except (OSError, ValueError, KeyError, TypeError):
        return True


class WhenCalm:
    """Calibrates once, if it is due, when an engine has had nothing to do for a while: nobody waits for it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self._since, self._begun = directory, time.monotonic(), False

    def look(self, busy: bool) -> None:
        """Take note whether the engine is busy; measure in a process of its own when it was calm for long enough."""
        if busy:
            self._since = time.monotonic()
        elif not self._begun and time.monotonic() - self._since > CALM_S:
            self._begun = True
            if is_due(self.directory):
                command = [sys.executable, "-m", "jsc_explore.jobs.calibration", str(self.directory)]
                quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
                with suppress(OSError):
                    subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **quiet)


def measure() -> list[dict[str, Any]]:
    """Train the calibration's runs as the engine would and return what was done in how many seconds, one row each."""
    from jsc_explore import data
    from jsc_explore.training.backends.base import DeviceSplit
    from jsc_explore.training.callbacks import CollectingCallback
    from jsc_explore.training.trainer import device_of, train_stack

    first = RUNS[0]
    split = DeviceSplit.of(data.split(data.load(first.dataset), first.validation), device_of("cpu"))
    # What is compiled, or read, at the first time is no part of the speed.
    train_stack({"warm": first.with_(max_epochs=1)}, split.head(2000), CollectingCallback(), device="cpu")
    rows = []
    for run in RUNS:
        kept = CollectingCallback()
        train_stack({"run": run}, split, kept, device="cpu")
        outcome = kept.outcomes["run"]
        rows.append(
            {"batch_size": run.batch_size, "parameters": run.network.parameters, "epochs_run": outcome.epochs_run,
             "train_rows": outcome.train_rows, "val_rows": outcome.val_rows, "seconds": outcome.wall_time_s}
        )  # fmt: skip
    return rows


def write(directory: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Keep a calibration in a store; a reader sees the old one or the new one whole."""
    text = json.dumps({"at": time.time(), "cores": os.cpu_count(), "runs": list(rows)}, indent=1)
    with atomic_write(Path(directory) / FILE, durable=False) as file:
        file.write(text.encode())


if __name__ == "__main__":
    os.nice(5)
    write(Path(sys.argv[1]), measure())
