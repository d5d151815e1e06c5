"""Start the engine as a process of its own, and see to it that one serves the store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from jsc_explore.errors import StoreError
from jsc_explore.jobs.queue import Queue

CHECK_EVERY_S = 2.0


def start_engine(
    directory: Path, snapshot: Path, *, until_idle: bool = False, workers: int | None = None
) -> subprocess.Popen[bytes]:
    """Start an engine for the store; it ends by itself if another serves it, or when this process is gone.

    What it says goes to ``engine.log`` in the store.
    """
    command = [sys.executable, "-m", "jsc_explore", "engine", "--store", str(directory), "--parent", str(os.getpid())]
    command += ["--until-idle"] if until_idle else []
    command += ["--workers", str(workers)] if workers else []
    directory.mkdir(parents=True, exist_ok=True)
    # One thread each, set before NumPy and torch are imported: the workers are the parallelism.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JSC_EXPLORE_SNAPSHOT": str(snapshot)}
    with (directory / "engine.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


class Supervisor:
    """Keeps an engine on the store while the app runs: starts one, and another if it dies.

    Several apps on one store may each have one; the engine's lock lets a single engine through.
    """

    def __init__(self, directory: Path, snapshot: Path) -> None:
        self.directory, self.snapshot = directory, snapshot
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-supervisor", daemon=True)

    def start(self) -> None:
        """Begin to watch; the engine starts at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the engine this supervisor started, in order."""
        self._stop.set()
        self._thread.join(timeout=5)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _watch(self) -> None:
        queue = Queue(self.directory)
        while not self._stop.is_set():
            if (self._process is None or self._process.poll() is not None) and not self._served(queue):
                self._process = start_engine(self.directory, self.snapshot)
            self._stop.wait(CHECK_EVERY_S)
        queue.close()

    def _served(self, queue: Queue) -> bool:
        try:
            state = queue.engine()
        except StoreError:
            return False
        return state is not None and state.alive
