"""Preload: start what takes seconds before the engine needs it: the workers' imports and the kernel's compilation."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import forkserver
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.worker import PRELOAD
from jsc_explore.store.directory import StoreDirectory


def start_fork_server(run: RunConfig | None = None, *, with_kernel: bool = False) -> None:
    """Start the process that workers are forked from; it imports torch and loads the jets of ``run`` and the kernel.

    This saves each worker over a second of a core and 200 MB. A second call has no effect.
    """
    if run is not None:
        wanted = {"dataset": run.dataset, "validation": run.validation, "kernel": with_kernel}
        os.environ[PRELOAD] = json.dumps(wanted)
    multiprocessing.set_forkserver_preload(["jsc_explore.jobs.engine.forkserver_preload"])
    forkserver.ensure_running()


def stop_fork_server() -> None:
    """End the process that workers are forked from; it starts again when a worker is wanted."""
    # multiprocessing offers this to its own tests only.
    server: Any = forkserver._forkserver
    server._stop()


def next_run(store: StoreDirectory) -> RunConfig:
    """Return the next waiting run of this store's queue, or the default run."""
    if (store.path / "queue.sqlite").exists():
        with suppress(StoreError):  # The engine itself reports the error.
            queue = Queue(store)
            try:
                if waiting := queue.waiting(limit=1):
                    return waiting[0].config
            finally:
                queue.close()
    return RunConfig()


def start_compiling() -> None:
    """Compile the kernel, if it is not cached, in a process without torch while the workers' imports run.

    This takes five seconds of a core. The workers wait for its lock and load the kernel from the disk.
    """
    # Without garbage collection, which takes a tenth of the time of this short process.
    code = (
        "import gc; gc.disable(); from jsc_explore.processes import end_with_parent; end_with_parent();"
        "from jsc_explore.training.backends.cpu.kernel import load_kernel; load_kernel()"
    )
    command = [sys.executable, "-P", "-c", code]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    threading.Thread(target=process.wait, name="kernel", daemon=True).start()
