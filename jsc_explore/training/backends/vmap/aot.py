"""Compiled programs of the stack: many optimizer steps in one call, made once by a process of their own, kept on disk.

A program steps one replica of one network, optimizer, precision and batch size; it knows neither the jets nor how many
replicas take turns with it. It is machine code (AOTInductor): any process loads it in milliseconds, without a compiler.
Nothing here is bound to CPUs, but on CUDA it is unmeasured, untested, and waits for the GPU at every step of the loop;
``choice.compiled_from`` asks for no program there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from jsc_explore import network as layers
from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError
from jsc_explore.paths import PACKAGE, cache_dir
from jsc_explore.training.backends.vmap.step import Settings, State

# Jets gathered before a call hold so many floats at most, so that a step still finds them in the cache.
_MOST_FLOATS = 1 << 20
_MOST_STEPS = 64
# All that the text of a program follows from.
_SOURCES = (
    "training/backends/vmap/aot.py", "training/backends/vmap/aot_compiler.py", "training/backends/vmap/step.py",
    "training/optimizers.py", "training/models.py",
)  # fmt: skip


class CompileError(JscError):
    """A program that cannot be had, in a few words; training goes on eagerly."""


@dataclass(frozen=True)
class Spec:
    """What a program is made for; ``steps`` is the number of batches at most in a call."""

    model: str
    final_relu: bool
    optimizer: str
    precision: str
    batch_size: int
    steps: int
    device: str

    @classmethod
    def of(cls, run: RunConfig, device: str) -> Spec:
        """Return the spec of what steps ``run`` on ``device``, a device's type."""
        each = 16 + sum(math.prod(layer.shape_in) for layer in run.network.layers if layer.kind == "dropout")
        steps = max(1, min(_MOST_STEPS, _MOST_FLOATS // (run.batch_size * each)))
        model, batch_size = layers.canonical(run.model), run.batch_size
        return cls(model, run.final_relu, run.optimizer, run.precision, batch_size, steps, device)

    @property
    def path(self) -> Path:
        """Where the program lies: its name follows from spec, sources, torch, compiler and processor."""
        text = json.dumps([asdict(self), _environment()])
        return cache_dir() / "stack" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.pt2"


@dataclass(frozen=True)
class CompiledProgram:
    """A loaded program and the batches it reads: ``x (steps, 1, batch, 16)`` and so on, filled by the caller."""

    spec: Spec
    loader: torch._C._aoti.AOTIModelPackageLoader
    x: Tensor
    y: Tensor
    rate: Tensor
    masks: list[Tensor]

    def __call__(self, steps: int, state: State, settings: Settings) -> tuple[State, Tensor, Tensor]:
        """Take the first ``steps`` steps; return the state, losses and hits, ``(steps, 1)`` each."""
        count = torch.tensor(steps, device=self.x.device)
        *moved, losses, hits = self.loader.boxed_run([count, self.x, self.y, self.rate, *self.masks, *settings, *state])
        return State(*moved), losses[:steps], hits[:steps]


@dataclass
class Build:
    """A program that is there already, or under way in a process of its own."""

    spec: Spec
    child: subprocess.Popen[bytes] | None

    @classmethod
    def begin(cls, spec: Spec) -> Build:
        """Start compiling unless the program lies on the disk. Raises CompileError where nothing can come of it."""
        _children[:] = [child for child in _children if child.poll() is None]
        if spec.path.exists():
            return cls(spec, None)
        if not compiler():
            raise CompileError("no C++ compiler")
        if failed(spec).exists():
            raise CompileError("compiling failed before")
        spec.path.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "jsc_explore.training.backends.vmap.aot_compiler",
            json.dumps(asdict(spec)),
            str(spec.path),
        ]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH")))),
            "TORCHINDUCTOR_CACHE_DIR": str(spec.path.parent / "inductor"),
            "TRITON_CACHE_DIR": str(spec.path.parent / "triton"),
            # A program spreads its loops over as many threads as its compiler saw; a worker has one.
            "OMP_NUM_THREADS": "1",
        }
        with spec.path.with_suffix(".log").open("wb") as log:
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _children.append(child)
        return cls(spec, child)

    def is_done(self) -> bool:
        """Say whether ``program`` would answer at once."""
        return self.child is None or self.child.poll() is not None

    def program(self) -> CompiledProgram:
        """Wait for the program and load it. Raises CompileError."""
        if self.child is not None and self.child.wait():
            raise CompileError("compiling failed")
        try:
            # What torch._inductor.aoti_load_package wraps; that would import the whole compiler first, 1.4 s.
            loader = torch._C._aoti.AOTIModelPackageLoader(str(self.spec.path), "model", False, 1, -1)
        except RuntimeError as error:
            raise CompileError("the compiled program cannot be loaded") from error
        return CompiledProgram(self.spec, loader, *buffers(self.spec))


# Kept until they have ended: a job that is cancelled leaves its program to the next.
_children: list[subprocess.Popen[bytes]] = []


def buffers(spec: Spec) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Return room for the batches of one call: jets, labels, rates and the factors of each dropout layer."""
    network = layers.parse(spec.model, spec.final_relu)
    rows = (spec.steps, 1, spec.batch_size)
    masks = [
        torch.zeros(*rows, *layer.shape_in, device=spec.device) for layer in network.layers if layer.kind == "dropout"
    ]
    x, y = torch.zeros(*rows, 16, device=spec.device), torch.zeros(*rows, dtype=torch.int64, device=spec.device)
    return x, y, torch.zeros(*rows[:2], 1, device=spec.device), masks


def failed(spec: Spec) -> Path:
    """Return the file that remembers that this program could not be made; ``jsc-explore precompile`` removes it."""
    return spec.path.with_suffix(".failed")


def compiler() -> str | None:
    """Return the C++ compiler that inductor would take; None if there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


@lru_cache(maxsize=1)
def _environment() -> list[str]:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((PACKAGE / name).read_bytes())
    return [digest.hexdigest(), str(torch.__version__), platform.machine(), _processor()]


def _processor() -> str:
    """Return what tells processors apart that take other machine code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
