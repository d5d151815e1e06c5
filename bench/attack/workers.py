"""Attacks on the engine's worker processes: code of another user."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from bench.attack.result import Result
from jsc_explore.config import RunConfig
from jsc_explore.jobs.engine.supervisor import end_engine, start_engine
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

# The user `nobody`, as whom a process of another user attacks where this one may become it.
NOBODY = 65534
_TIMEOUT_S = 60.0


def run_code_as_the_engine(work: Path) -> Result:
    """Send a pickle that makes a file to every socket that the engine's processes listen on, as another user."""
    trace = work / "code-was-run"
    work.chmod(0o777)
    store = Store(work / "store")
    queue = Queue(work / "store")
    engine = start_engine(work / "store", work / "none.parquet")
    try:
        done = _train(store, queue, RunConfig(batch_size=65536, max_epochs=1))
        family = [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]
        ports = sorted(
            {tuple(c.laddr) for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        )
        paths = sorted({c.laddr for p in family for c in p.net_connections("unix") if c.laddr})
        payload = pickle.dumps(_Touch(str(trace)))
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _become_another_user) as other_user:
            reached = other_user.submit(_send_everywhere, payload, ports, paths).result(timeout=60)
        time.sleep(2)
        again = _train(store, queue, RunConfig(batch_size=65536, max_epochs=1, seed=1))
    finally:
        end_engine(engine)
        queue.close()
        store.close()
    note = f"ports {ports or 'none'}, {len(paths)} unix sockets, reached {reached or 'none'}"
    return Result(trace.exists() or bool(ports) or bool(reached), control=done and again, note=note)


def _become_another_user() -> None:
    # A process of the same user may do everything anyway; without the right to become another one, ports alone count.
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _send_everywhere(payload: bytes, ports: list[tuple[str, int]], paths: list[str]) -> list[str]:
    """Send a message of multiprocessing's form to each address; return those that accepted the connection."""
    if os.geteuid() != NOBODY:
        paths = []
    reached = []
    addresses = [(socket.AF_INET, port) for port in ports] + [(socket.AF_UNIX, path) for path in paths]
    for family, address in addresses:
        with socket.socket(family) as connection, suppress(OSError):
            connection.settimeout(2)
            connection.connect(address)
            connection.sendall(len(payload).to_bytes(4, "big") + payload)
            reached.append(str(address))
    return reached


class _Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mknod, (self.path,)


def _train(store: Store, queue: Queue, run: RunConfig) -> bool:
    (run_id,) = submit(store, queue, [run]).run_ids
    deadline = time.monotonic() + _TIMEOUT_S
    while queue.states([run_id])[run_id] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.1)
    return queue.states([run_id])[run_id] == "done"


ATTACKS: tuple[Callable[[Path], Result], ...] = (run_code_as_the_engine,)
