"""Benchmark of networks that the kernel cannot train: eager and compiled steps of a stack, and the compile time."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.frame import Report, measure
from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.backends.vmap.aot import Build
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.backends.vmap.program import ProgramSpec
from jsc_explore.training.chunks import Chunk

REPLICAS = (1, 5, 10)
STEPS = 32
_JOBS = (("jsc-conv", "32-true", 64), ("jsc-conv", "32-true", 256), ("jsc-tiny", "bf16-mixed", 256))
# Enough epochs that compiling pays off for every job.
_EPOCHS = 1000


class _Eager(VmapBackend):
    """A stack that never uses a compiled program."""

    def prepare(self, epoch: int) -> bool:
        """Return True: nothing has to be compiled."""
        return True


def run(quick: bool) -> Report:
    """Measure milliseconds per step, eager and compiled, for each job and replica count, and seconds to compile."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["JSC_EXPLORE_CACHE"] = str(Path(name))
        for model, precision, batch_size in _JOBS[-1:] if quick else _JOBS:
            job = RunConfig(model=model, precision=precision, batch_size=batch_size, max_epochs=_EPOCHS)
            key = f"{model.removeprefix('jsc-')}_{precision.split('-')[0]}_b{batch_size}"
            cold, warm = _build(job), _build(job)
            figures |= {f"{key}_compile_cold_s": cold, f"{key}_compile_warm_s": warm}
            for replicas in REPLICAS:
                row = _row(job, replicas, n=3 if quick else 5)
                figures[f"{key}_r{replicas}_speedup_vs_eager"] = row["eager_ms"] / row["compiled_ms"]
                rows.append({"model": model, "precision": precision, "batch": batch_size, **row})
    notes = [
        f"One thread; medians of chunks of {STEPS} steps; milliseconds per step of a stack, one replica at a time."
    ]
    return Report("stack", figures, rows, notes=notes)


def _build(job: RunConfig) -> float:
    begin = time.perf_counter()
    Build.start(ProgramSpec.of(job, "cpu")).load()
    return time.perf_counter() - begin


def _row(job: RunConfig, replicas: int, n: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS * job.batch_size, 16, generator=generator)
    y = torch.randint(0, 5, (len(x),), generator=generator)
    data = DeviceSplit(x, y, x, y, x, y)
    row: dict[str, Any] = {"replicas": replicas}
    for name, kind in (("eager", _Eager), ("compiled", VmapBackend)):
        stack = kind([job.with_(seed=seed) for seed in range(replicas)], data)
        stack.begin_epoch(1)
        assert stack.backend_name(0) == f"stack-{name}", stack.backend_name(0)
        timing = measure(lambda stack=stack: stack.train_chunk(Chunk(1, 0, STEPS, False, True)), n)  # type: ignore[misc]
        row[f"{name}_ms"], row[f"{name}_low_ms"] = (1e3 * s / STEPS for s in (timing.median_s, timing.low_s))
        row[f"{name}_high_ms"] = 1e3 * timing.high_s / STEPS
    return row | {"n": n}
