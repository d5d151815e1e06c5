"""Supervisor: start the engine as a process and restart it when it dies."""

from __future__ import annotations

import atexit
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from jsc_explore import processes
from jsc_explore.errors import StoreError
from jsc_explore.jobs.auth import PASSWORD
from jsc_explore.jobs.queue import Queue
from jsc_explore.store.directory import StoreDirectory, open_directory

# Seconds between two checks; the delay before a restart doubles from the first value up to the second.
CHECK_INTERVAL_S, MAX_RESTART_DELAY_S = 2.0, 60.0
# An engine that ends sooner than this has crashed at its start, and the restart is delayed.
EARLY_EXIT_S = 20.0
# A longer log is renamed to ``engine.log.1``.
MAX_LOG_BYTES = 1_000_000
# An engine that has not saved its state after this long is killed.
STOP_TIMEOUT_S = 6.0


def start_engine(
    directory: Path | StoreDirectory, snapshot: Path, *, until_idle: bool = False, workers: int | None = None
) -> subprocess.Popen[bytes]:
    """Start an engine for the store; it ends if another engine serves the store, or when this process is gone.

    Its output goes to ``engine.log`` in the store. Raises StoreError if the directory is not a store, or gone.
    """
    home = open_directory(directory)
    command = processes.module_command("jsc_explore", "engine", "--store", str(home.path), "--store-id", home.id)
    command += ["--end-with-parent"]
    command += ["--until-idle"] if until_idle else []
    command += ["--workers", str(workers)] if workers else []
    # One thread each, set before NumPy and torch are imported: parallelism comes from the workers. The engine does not
    # need the page's password.
    inherited = {name: text for name, text in os.environ.items() if name != PASSWORD}
    environment = {**inherited, "OMP_NUM_THREADS": "1", "JSC_EXPLORE_SNAPSHOT": str(snapshot)}
    path = home.path / "engine.log"
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(home.path / "engine.log.1")
    with path.open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def is_served(queue: Queue, own: subprocess.Popen[bytes] | None = None) -> bool:
    """Return whether an engine serves the store; the last heartbeat of ``own``, a process started here, is ignored."""
    if own is not None and own.poll() is None:
        return True
    state = queue.engine()
    return state is not None and state.is_alive and (own is None or state.pid != own.pid)


def end_engine(process: subprocess.Popen[bytes]) -> None:
    """Terminate an engine and its workers; its active runs go back to the queue."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


class Supervisor:
    """Keeps an engine running while the app runs: starts one, and another one if it dies.

    Several apps on one store may each have a supervisor; the engine's lock admits only one engine.
    """

    def __init__(self, directory: Path | StoreDirectory, snapshot: Path) -> None:
        self.home, self.snapshot = open_directory(directory), snapshot
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="engine-supervisor", daemon=True)

    def start(self) -> None:
        """Start the engine and the thread that checks it; both end with this process."""
        atexit.register(self.stop)
        self._thread.start()

    def stop(self) -> None:
        """Terminate the engine that this supervisor started."""
        atexit.unregister(self.stop)
        self._stop.set()
        self._thread.join(timeout=5)
        if self._process is not None and self._process.poll() is None:
            end_engine(self._process)

    def _watch(self) -> None:
        queue = Queue(self.home)
        started, delay = float("-inf"), CHECK_INTERVAL_S
        while True:
            now = time.monotonic()
            if now - started >= delay and not self._is_served(queue):
                # An engine that crashes at every start must not occupy the machine.
                is_early = now - started < EARLY_EXIT_S + delay
                delay = min(2 * delay, MAX_RESTART_DELAY_S) if is_early else CHECK_INTERVAL_S
                started = now
                if self._process is not None:
                    self._process.communicate()
                # A full disk, or a store that is gone: try again at the next check.
                with suppress(OSError, StoreError):
                    self._process = start_engine(self.home, self.snapshot)
            if self._stop.wait(CHECK_INTERVAL_S):
                break
        queue.close()

    def _is_served(self, queue: Queue) -> bool:
        try:
            return is_served(queue, self._process)
        except StoreError:
            return False
