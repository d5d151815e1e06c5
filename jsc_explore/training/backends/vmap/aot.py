"""Compiled programs of the vmap backend: many optimizer steps in one call, compiled by a subprocess, cached on disk.

A program trains one replica of one network, optimizer, precision and batch size; it depends neither on the data nor on
the number of replicas. It is machine code (AOTInductor): any process loads it in milliseconds, without a compiler.
Nothing here is specific to CPUs, but on CUDA it is untested and would synchronize with the GPU at every step;
``select.compiled_from`` requests no program there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from jsc_explore import network
from jsc_explore.errors import JscError
from jsc_explore.paths import PACKAGE
from jsc_explore.training.backends.vmap.program import ProgramSpec, failure_marker, find_compiler
from jsc_explore.training.backends.vmap.step import Settings, State


class CompileError(JscError):
    """The reason why there is no program, in a few words; training continues eagerly."""


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
            "-P",
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
