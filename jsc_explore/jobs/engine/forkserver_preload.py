"""Fork server preload: what the process that workers are forked from loads: torch, Lightning, the kernel, its jets."""

import gc
import json
import os
from contextlib import suppress

# Imports create half a million objects and no garbage; collecting meanwhile takes a fifth of the time.
gc.disable()
# Arrow's own allocator keeps 50 MB that reading the jets has left.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
import jsc_explore.jobs.local.worker  # noqa: E402
import jsc_explore.training.trainer  # noqa: E402, F401
from jsc_explore.jobs.cluster import dataset_transfer  # noqa: E402
from jsc_explore.jobs.worker import PRELOAD  # noqa: E402
from jsc_explore.training.backends.cpu.kernel import load_kernel  # noqa: E402

_WANTED = json.loads(os.environ.get(PRELOAD, "{}"))
if _WANTED.get("dataset"):
    dataset_transfer.preload(_WANTED["dataset"], _WANTED["validation"])
if _WANTED.get("kernel"):
    # A worker reports the error when it needs the kernel, for example a cache that cannot be written.
    with suppress(Exception):
        load_kernel()

# A collection in a worker would write to all of these objects and so copy the memory that the workers share.
gc.freeze()
gc.enable()
