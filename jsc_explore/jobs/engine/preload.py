"""What an engine begins before anything else, for it takes seconds: its workers' imports, compiling the kernel."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.cluster.dataset_transfer import PRELOAD
from jsc_explore.jobs.queue import Queue


def begin_importing(wanted: RunConfig | None = None) -> None:
    """Start the process that workers are forked from: it imports torch, and loads the jets that ``wanted`` trains on.

    Done once for all, that saves each worker three seconds of a core and 200 MB. A second call changes nothing.
    """
    if wanted is not None:
        os.environ[PRELOAD] = json.dumps([wanted.dataset, wanted.validation])
    multiprocessing.set_forkserver_preload(["jsc_explore.jobs.engine.forked"])
    forkserver.ensure_running()


def first_wanted(store: Path) -> RunConfig:
    """Return the run that waits first at this store, else what is asked for most."""
    if (store / "queue.sqlite").exists():
        with suppress(StoreError):  # the engine itself will tell
            queue = Queue(store)
            try:
                if waiting := queue.waiting(limit=1):
                    return waiting[0].config
            finally:
                queue.close()
    return RunConfig()


def begin_compiling() -> None:
    """Compile the kernel, where it never was: five seconds of a core, while Dask starts and the workers import torch.

    It takes a process without torch; the workers wait for its lock, and find all on the disk.
    """
    # It ends soon: nothing is gained by looking for garbage, a tenth of the time.
    code = "import gc; gc.disable(); from jsc_explore.training.backends.cpu.kernel import kernel; kernel()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    threading.Thread(target=process.wait, name="kernel", daemon=True).start()
