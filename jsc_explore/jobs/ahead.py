"""What an engine begins before anything else, for it takes seconds: its workers' imports, compiling the kernel."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from multiprocessing import forkserver


def begin_importing() -> None:
    """Start the process that workers are forked from; torch is imported once there, not by each of them.

    That saves three seconds of a core and 200 MB for every worker. A second call changes nothing.
    """
    multiprocessing.set_forkserver_preload(["jsc_explore.jobs.forked"])
    forkserver.ensure_running()


def begin_compiling() -> None:
    """Compile the kernel, where it never was: six seconds of a core, while Dask starts and the workers import torch.

    A process for each of its two functions, without torch; the workers wait for their locks, and find all on the disk.
    """
    # They end soon: nothing is gained by looking for garbage, a tenth of the time.
    code = "import gc; gc.disable(); from jsc_explore.training.kernel import kernel; kernel()"
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        threading.Thread(target=process.wait, name="kernel", daemon=True).start()
