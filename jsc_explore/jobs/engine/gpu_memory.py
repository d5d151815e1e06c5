"""What the engine knows of a GPU without importing torch: its memory, from the driver's own tool."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.metadata import version

_TOOL = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
_PATIENCE_S = 10.0


@lru_cache(maxsize=8)
def gpu_bytes(device: str) -> int | None:
    """Return the memory of the GPU that ``device`` (cpu, cuda, cuda:N, auto) means on this machine; None: a CPU.

    Where a GPU is asked for and the driver's tool does not answer, its memory is unknown, which is None too.
    """
    # A build of torch for CPUs says so in its version.
    if device == "cpu" or (device == "auto" and version("torch").endswith("+cpu")):
        return None
    index = device.partition(":")[2] or "0"
    try:
        answer = subprocess.run([*_TOOL, f"--id={index}"], capture_output=True, text=True, timeout=_PATIENCE_S)
        return int(answer.stdout) << 20
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
