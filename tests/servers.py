"""Processes that tests and benchmarks start and wait for: the app on a free port, the workers of an engine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[1]
T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout_s: float = 120.0) -> T:
    """Call the condition until it returns something true, and return that; raise AssertionError after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {timeout_s:g} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class App:
    """A running app: its URL, the directory of its store, its log, its process."""

    url: str
    store: Path
    log: Path
    process: subprocess.Popen[bytes]

    def responds(self) -> bool:
        """Say whether the server answers requests."""
        return responds(self.url)


@contextmanager
def running_process(
    command: list[str], url: str, logs: Path, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a server until the block ends; yield its process and its log, a file in ``logs``, once it answers."""
    log = logs / f"app-{url.rpartition(':')[2]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        eventually(lambda: responds(url) or process.poll() is not None, 180)
        assert process.poll() is None, log.read_text()
        yield process, log
    finally:
        process.terminate()
        process.wait(timeout=60)


def responds(url: str) -> bool:
    """Say whether a Streamlit server answers requests."""
    try:
        return bool(urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).status == 200)
    except OSError:
        return False


@contextmanager
def running_app(store: Path, *options: str, streamlit: bool = False, **environment: str) -> Iterator[App]:
    """Serve a store with the published snapshot beneath it until the block ends; log to a file beside the store.

    Start it with ``jsc-explore app`` and these options, or with ``streamlit run`` as a service manager would.
    """
    port = free_port()
    command = ["streamlit", "run", "app.py", "--server.headless", "true", "--server.port", str(port)]
    if not streamlit:
        command = ["jsc_explore", "app", "--headless", "--port", str(port), "--store", str(store), *options]
    variables = {
        "JSC_EXPLORE_STORE": str(store), "JSC_EXPLORE_SNAPSHOT": str(ROOT / "results.parquet"),
        "PYTHONPATH": str(ROOT), **environment,
    }  # fmt: skip
    command = [sys.executable, "-m", *command]
    with running_process(command, f"http://localhost:{port}", store.parent, **variables) as (process, log):
        yield App(f"http://localhost:{port}", store, log, process)


def chromium_path() -> str:
    """Return the path of the machine's own Chromium; raise AssertionError with the remedy if there is none."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    assert found, "no Chromium found: install it, e.g. apt-get install chromium"
    return found[0]


def workers_of(engine: psutil.Process) -> list[psutil.Process]:
    """Return the worker processes of an engine on this machine, children of its fork server."""
    return [worker for child in engine.children() if _is_fork_server(child) for worker in child.children()]


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.forkserver" in " ".join(process.cmdline())
    except psutil.Error:  # It has just ended.
        return False
