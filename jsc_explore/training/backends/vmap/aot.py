"""Compiled programs of the vmap backend: many optimizer steps in one call, compiled by a subprocess, cached on disk.

A program trains one replica of one network, optimizer, precision and batch size; it depends neither on the data nor on
the number of replicas. It is machine code (AOTInductor): any process loads it in milliseconds, without a compiler.
Nothing here is specific to CPUs, but on CUDA it is untested and would synchronize with the GPU at every step;
``select.compiled_from`` requests no program there.
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

from jsc_explore import network
from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError
from jsc_explore.paths import PACKAGE, cache_dir
from jsc_explore.training.backends.vmap.step import Settings, State

# Limits of the batches of one call, so that they stay in the CPU's cache until their step.
_MAX_FLOATS = 1 << 20
_MAX_STEPS = 64
# The files that determine the code of a program.
_SOURCES = (
    "training/backends/vmap/aot.py", "training/backends/vmap/aot_compiler.py", "training/backends/vmap/step.py",
    "training/optimizers.py", "training/models.py",
)  # fmt: skip


class CompileError(JscError):
    """The reason why there is no program, in a few words; training continues eagerly."""


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


@dataclass(frozen=True)
class CompiledProgram:
    """A loaded program and the buffers of its batches, which the caller fills: ``x (steps, 1, batch, 16)`` etc."""

    spec: ProgramSpec
    loader: torch._C._aoti.AOTIModelPackageLoader
    x: Tensor
    y: Tensor
    rate: Tensor
    masks: list[Tensor]

    def __call__(self, steps: int, state: State, settings: Settings) -> tuple[State, Tensor, Tensor]:
        """Take the first ``steps`` steps; return the state, losses and numbers of correct jets, ``(steps, 1)`` each."""
        count = torch.tensor(steps, device=self.x.device)
        *updated, losses, correct = self.loader.boxed_run(
            [count, self.x, self.y, self.rate, *self.masks, *settings, *state]
        )
        return State(*updated), losses[:steps], correct[:steps]


@dataclass
class Build:
    """A program that is cached, or being compiled by a subprocess."""

    spec: ProgramSpec
    process: subprocess.Popen[bytes] | None

    @classmethod
    def start(cls, spec: ProgramSpec) -> Build:
        """Start compiling unless the program is cached. CompileError if there is no compiler or it failed before."""
        _processes[:] = [process for process in _processes if process.poll() is None]
        if spec.path.exists():
            return cls(spec, None)
        if not find_compiler():
            raise CompileError("no C++ compiler")
        if failure_marker(spec).exists():
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
            # A program uses as many threads as its compiler saw; a worker has one.
            "OMP_NUM_THREADS": "1",
        }
        with spec.path.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _processes.append(process)
        return cls(spec, process)

    def is_done(self) -> bool:
        """Return whether ``load`` would return without waiting."""
        return self.process is None or self.process.poll() is not None

    def load(self) -> CompiledProgram:
        """Wait for the program and load it. CompileError if it cannot be compiled or loaded."""
        if self.process is not None and self.process.wait():
            raise CompileError("compiling failed")
        try:
            # torch._inductor.aoti_load_package does this, too, but imports the whole compiler first, which takes 1.4 s.
            loader = torch._C._aoti.AOTIModelPackageLoader(str(self.spec.path), "model", False, 1, -1)
        except RuntimeError as error:
            raise CompileError("the compiled program cannot be loaded") from error
        return CompiledProgram(self.spec, loader, *allocate_buffers(self.spec))


# References to running compilers, which go on when their training is cancelled: the next one uses the program.
_processes: list[subprocess.Popen[bytes]] = []


def allocate_buffers(spec: ProgramSpec) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Return buffers for the batches of one call: jets, labels, learning rates and the masks of each dropout layer."""
    layers = network.parse(spec.model, spec.final_relu).layers
    rows = (spec.steps, 1, spec.batch_size)
    masks = [torch.zeros(*rows, *layer.shape_in, device=spec.device) for layer in layers if layer.kind == "dropout"]
    x, y = torch.zeros(*rows, 16, device=spec.device), torch.zeros(*rows, dtype=torch.int64, device=spec.device)
    return x, y, torch.zeros(*rows[:2], 1, device=spec.device), masks


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
    return [digest.hexdigest(), str(torch.__version__), platform.machine(), _processor()]


def _processor() -> str:
    """Return a text that differs between processors with different instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
