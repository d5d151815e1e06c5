"""Start the engine as a process of its own, and see to it that one serves the store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from jsc_explore.errors import StoreError
from jsc_explore.jobs.auth import PASSWORD
from jsc_explore.jobs.queue import Queue

CHECK_EVERY_S, SLOWEST_CHECK_S = 2.0, 60.0
# An engine that ends sooner than this was not stopped by anyone: something is wrong with it.
DIED_YOUNG_S = 20.0
# What engines said before the last so many bytes is in ``engine.log.1``, and before that nowhere.
LOG_BYTES = 1_000_000


def start_engine(
    directory: Path, snapshot: Path, *, until_idle: bool = False, workers: int | None = None
) -> subprocess.Popen[bytes]:
    """Start an engine for the store; it ends by itself if another serves it, or when this process is gone.

    What it says goes to ``engine.log`` in the store; a long one is put aside first, as ``engine.log.1``.
    """
    command = [sys.executable, "-m", "jsc_explore", "engine", "--store", str(directory), "--parent", str(os.getpid())]
    command += ["--until-idle"] if until_idle else []
    command += ["--workers", str(workers)] if workers else []
    directory.mkdir(parents=True, exist_ok=True)
    # One thread each, set before NumPy and torch are imported: the workers are the parallelism.
    # What opens the page is no business of the engine's.
    inherited = {name: text for name, text in os.environ.items() if name != PASSWORD}
    environment = {**inherited, "OMP_NUM_THREADS": "1", "JSC_EXPLORE_SNAPSHOT": str(snapshot)}
    path = directory / "engine.log"
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(directory / "engine.log.1")
    with path.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def is_served(queue: Queue, own: subprocess.Popen[bytes] | None = None) -> bool:
    """Say whether an engine serves the store; ``own`` is one started here, whose last word counts no more once dead."""
    if own is not None and own.poll() is None:
        return True
    state = queue.engine()
    return state is not None and state.is_alive and (own is None or state.pid != own.pid)


def end_engine(process: subprocess.Popen[bytes]) -> None:
    """End an engine in order: what it trains goes back to the queue, its workers end with it."""
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
            end_engine(self._process)

    def _watch(self) -> None:
        queue = Queue(self.directory)
        began, pause = float("-inf"), CHECK_EVERY_S
        while True:
            now = time.monotonic()
            if now - began >= pause and not self._is_served(queue):
                # One that dies at once, again and again, must not take the machine from everyone else.
                pause = min(2 * pause, SLOWEST_CHECK_S) if now - began < DIED_YOUNG_S + pause else CHECK_EVERY_S
                began = now
                with suppress(OSError):  # A full disk: the next round tries again.
                    self._process = start_engine(self.directory, self.snapshot)
            if self._stop.wait(CHECK_EVERY_S):
                break
        queue.close()

    def _is_served(self, queue: Queue) -> bool:
        try:
            return is_served(queue, self._process)
        except StoreError:
            return False
