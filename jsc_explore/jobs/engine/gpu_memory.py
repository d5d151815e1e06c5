"""GPU memory, read from the driver's command line tool without importing torch."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.metadata import version

_COMMAND = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
_TIMEOUT_S = 10.0


@lru_cache(maxsize=8)
def gpu_bytes(device: str) -> int | None:
    """Return the memory of the GPU that ``device`` (cpu, cuda, cuda:N, auto) selects on this machine.

    None if it selects a CPU, or if the driver's tool does not answer.
    """
    # A CPU build of torch has this version suffix.
    if device == "cpu" or (device == "auto" and version("torch").endswith("+cpu")):
        return None
    index = device.partition(":")[2] or "0"
    try:
        answer = subprocess.run([*_COMMAND, f"--id={index}"], capture_output=True, text=True, timeout=_TIMEOUT_S)
        return int(answer.stdout) << 20
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
