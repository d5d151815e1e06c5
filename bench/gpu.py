"""Benchmark of a GPU: the CUDA kernel beside the PyTorch stack, per replica, and a whole grid; skipped without one."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.frame import Report, Timing, measure
from jsc_explore.config import RunConfig
from jsc_explore.jobs.engine.gpu_memory import gpu_bytes
from jsc_explore.results import Outcome
from jsc_explore.training.backends.base import Backend, DeviceSplit
from jsc_explore.training.backends.cpu.layer_table import INPUTS, KIND, LINEAR, NEEDS_INPUT, OUTPUTS, build_layer_table
from jsc_explore.training.backends.select import max_gpu_replicas
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.callbacks import Callback
from jsc_explore.training.chunks import Chunk
from jsc_explore.training.trainer import create_cuda_backend, train_stack

# Shared-memory loads per multiply-add of a warp: one value of a jet and four weights for four multiply-adds.
_LOADS_PER_MULTIPLY_ADD = 5 / 4
_WARP = 32
# Steps whose losses are compared between kernel and stack, from the same weights.
_COMPARED_STEPS = 20


@dataclass(frozen=True)
class Size:
    """Sizes of a measurement: cells of model and batch, replicas at once, and a grid of configs × seeds × epochs."""

    rows: int
    cells: tuple[tuple[str, int], ...]
    replicas: tuple[int, ...]
    grid: tuple[int, int, int]
    budget_s: float
    n: int


FULL = Size(
    800_000,
    tuple(itertools.product(("jsc-tiny", "jsc-toy", "jsc-s"), (16, 256))),
    (1, 10, 100, 1000),
    (300, 10, 10),
    budget_s=0.5,
    n=5,
)
QUICK = Size(100_000, (("jsc-tiny", 256),), (1, 100), (30, 10, 1), budget_s=0.1, n=3)


def run(quick: bool) -> Report:
    """Measure on this machine's GPU; without one, return a report without figures."""
    if not torch.cuda.is_available():
        return Report("gpu", {}, notes=["Skipped: no GPU that torch can use."])
    if importlib.util.find_spec("numba_cuda") is None:
        return Report("gpu", {}, notes=["Skipped: numba-cuda is not installed; see docs/gpu.md."])
    report = measure_gpu(QUICK if quick else FULL, torch.device("cuda"), _clock_hz())
    report.machine["gpu"] = torch.cuda.get_device_name()
    return report


def measure_gpu(size: Size, device: torch.device, clock_hz: float | None) -> Report:
    """Measure every cell with kernel and stack, then the grid as the engine trains it."""
    data = _jets(size.rows, device)
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for model, batch in size.cells:
        job = RunConfig(model=model, batch_size=batch)
        key = f"{model.removeprefix('jsc-')}_b{batch}"
        figures[f"{key}_loss_difference"] = _difference(job, data)
        for replicas in size.replicas:
            epochs = {}
            for backend in ("kernel", "stack"):
                timing = _epoch(_replicas(backend, job, replicas, data), size)
                epochs[backend] = timing.median_s / replicas
                rows.append(_row(job, backend, replicas, timing))
            figures[f"{key}_r{replicas}_epoch_ms"] = 1e3 * epochs["kernel"]
            figures[f"{key}_r{replicas}_speedup_vs_stack"] = epochs["stack"] / epochs["kernel"]
            if clock_hz is not None:
                figures[f"{key}_r{replicas}_share_of_limit"] = _limit_s(job, size.rows, clock_hz) / epochs["kernel"]
    configs, seeds, epochs_each = size.grid
    figures[f"grid_{configs}x{seeds}x{epochs_each}_s"] = _grid_s(size, data, device)
    return Report("gpu", figures, rows, notes=_notes(size, clock_hz))


class _Counter(Callback):
    """Count finished runs."""

    def __init__(self) -> None:
        self.ended = 0

    def on_finished(self, key: str, outcome: Outcome) -> None:
        """Count a run; fail unless the CUDA kernel trained it."""
        assert outcome.backend == "kernel-cuda", outcome.backend
        self.ended += 1


def _jets(rows: int, device: torch.device) -> DeviceSplit:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 5, (rows,), generator=generator)
    x = 0.6 * torch.randn(5, 16, generator=generator)[y] + torch.randn(rows, 16, generator=generator)
    x, y = x.to(device), y.to(device)
    test = rows // 5
    return DeviceSplit(x, y, x, y, x[:test], y[:test])


def _replicas(backend: str, job: RunConfig, replicas: int, data: DeviceSplit) -> Backend:
    runs = [job.with_(seed=number % 10, learning_rate=1e-4 * (1 + number // 10)) for number in range(replicas)]
    if backend == "stack":
        return VmapBackend(runs, data)
    engine = create_cuda_backend(runs, data)
    if isinstance(engine, str):
        raise RuntimeError(engine)
    return engine


def _epoch(engine: Backend, size: Size) -> Timing:
    """Time an epoch of all replicas, or the share of one that fits into the budget, scaled."""
    began = time.perf_counter()
    engine.begin_epoch(0)
    prepared_s = time.perf_counter() - began
    few = Chunk(0, 0, min(8, engine.steps_per_epoch), False, False)
    engine.train_chunk(few)
    began = time.perf_counter()
    engine.train_chunk(few)
    step_s = (time.perf_counter() - began) / few.stop
    steps = max(1, min(engine.steps_per_epoch, round(size.budget_s / step_s)))
    timing = measure(lambda: engine.train_chunk(Chunk(0, 0, steps, False, False)), size.n, warm_ups=0)
    whole = engine.steps_per_epoch / steps
    median_s, low_s, high_s = (prepared_s + whole * s for s in (timing.median_s, timing.low_s, timing.high_s))
    return Timing(median_s, low_s, high_s, timing.n)


def _difference(job: RunConfig, data: DeviceSplit) -> float:
    """Return the largest difference between the losses of kernel and stack over the first steps of two replicas."""
    losses = []
    for backend in ("kernel", "stack"):
        engine = _replicas(backend, job, 2, data)
        engine.begin_epoch(0)
        losses.append(
            engine.train_chunk(Chunk(0, 0, min(_COMPARED_STEPS, engine.steps_per_epoch), False, False)).losses
        )
    return float(np.abs(losses[0] - losses[1]).max())


def _grid_s(size: Size, data: DeviceSplit, device: torch.device) -> float:
    configs, seeds, epochs = size.grid
    runs = [
        RunConfig(learning_rate=1e-5 * (1 + config), seed=seed, max_epochs=epochs)
        for seed in range(seeds)
        for config in range(configs)
    ]
    memory = gpu_bytes(device.type)
    most = max_gpu_replicas(runs[0], memory) if memory else len(runs)
    began, callback = time.perf_counter(), _Counter()
    for start in range(0, len(runs), most):
        stack = {str(start + number): run for number, run in enumerate(runs[start : start + most])}
        train_stack(stack, data, callback, device=device.type)
    assert callback.ended == len(runs)
    return time.perf_counter() - began


def _limit_s(job: RunConfig, jets: int, clock_hz: float) -> float:
    """Return the least seconds that shared-memory loads of the linear layers take in an epoch of a replica."""
    table = build_layer_table(job.network).table
    # Forward, gradient of the weights, and gradient of the inputs where layers below need it.
    products = sum(int(row[INPUTS] * row[OUTPUTS] * (2 + row[NEEDS_INPUT])) for row in table if row[KIND] == LINEAR)
    loads = jets * products * _LOADS_PER_MULTIPLY_ADD / _WARP
    return loads / (torch.cuda.get_device_properties(0).multi_processor_count * clock_hz)


def _clock_hz() -> float | None:
    """Return the highest clock of the multiprocessors in Hz, if the driver reports it."""
    query = ("nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0")
    try:
        return 1e6 * float(subprocess.run(query, capture_output=True, text=True, timeout=10).stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def _row(job: RunConfig, backend: str, replicas: int, timing: Timing) -> dict[str, Any]:
    return {
        "model": job.model, "batch": job.batch_size, "backend": backend, "replicas": replicas,
        "epoch_and_replica_s": timing.median_s / replicas, "low_s": timing.low_s / replicas,
        "high_s": timing.high_s / replicas, "n": timing.n,
    }  # fmt: skip


def _notes(size: Size, clock_hz: float | None) -> list[str]:
    notes = [
        f"An epoch of {size.rows:,} jets, drawing of orders included; replicas of ten seeds at several rates.",
        "The grid goes through Lightning, with evaluations and test figures, in stacks as the engine packs them.",
        "loss_difference: kernel against stack, two replicas, the first steps. Stacks are eager.",
    ]
    if clock_hz is None:
        return [*notes, "The driver does not report the clock: no share of the device's limit."]
    limit = (
        "share_of_limit: the limit is one shared-memory load of a warp per clock and multiprocessor, five loads"
        f" for four multiply-adds of the linear layers, at {clock_hz / 1e6:.0f} MHz."
    )
    return [*notes, limit]
