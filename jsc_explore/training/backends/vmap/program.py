"""What identifies a compiled program of the vmap backend, and its file. Without torch: time estimates use it, too."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from jsc_explore import network
from jsc_explore.config import RunConfig
from jsc_explore.paths import PACKAGE, cache_dir

# Limits of the batches of one call, so that they stay in the CPU's cache until their step.
_MAX_FLOATS = 1 << 20
_MAX_STEPS = 64
# The files that determine the code of a program.
_SOURCES = (
    "training/backends/vmap/program.py", "training/backends/vmap/aot.py", "training/backends/vmap/aot_compiler.py",
    "training/backends/vmap/step.py", "training/optimizers.py", "training/models.py",
)  # fmt: skip


@dataclass(frozen=True)
class ProgramSpec:
    """The parameters of a program; ``steps`` is the maximum number of batches in a call."""

    model: str
    final_relu: bool
    optimizer: str
    precision: str
    batch_size: int
    steps: int
    device: str

    @classmethod
    def of(cls, run: RunConfig, device: str) -> ProgramSpec:
        """Return the spec of the program that trains ``run`` on ``device``, a torch device type."""
        floats_per_jet = 16 + sum(math.prod(layer.shape_in) for layer in run.network.layers if layer.kind == "dropout")
        steps = max(1, min(_MAX_STEPS, _MAX_FLOATS // (run.batch_size * floats_per_jet)))
        model, batch_size = network.canonical(run.model), run.batch_size
        return cls(model, run.final_relu, run.optimizer, run.precision, batch_size, steps, device)

    @property
    def path(self) -> Path:
        """The file of the program; its name is a hash of spec, sources, torch version and processor."""
        text = json.dumps([asdict(self), _environment()])
        return cache_dir() / "stack" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.pt2"


def failure_marker(spec: ProgramSpec) -> Path:
    """Return the file that marks a program that failed to compile; ``jsc-explore precompile`` removes it."""
    return spec.path.with_suffix(".failed")


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that inductor uses; None if there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


@lru_cache(maxsize=1)
def _environment() -> list[str]:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((PACKAGE / name).read_bytes())
    return [digest.hexdigest(), version("torch"), platform.machine(), _processor()]


def _processor() -> str:
    """Return a text that differs between processors with different instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
