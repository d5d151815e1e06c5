"""Estimates of training time: learned per backend from the runs of this store, scaled to the speed of this machine."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from jsc_explore import data
from jsc_explore.config import DEFAULTS, RunConfig
from jsc_explore.errors import DataError
from jsc_explore.jobs import calibration
from jsc_explore.jobs.cost_model import PRIOR_COSTS, CostModel, Numbers, arithmetic, speed_factor, work_matrix
from jsc_explore.jobs.queue import Job
from jsc_explore.store import Store
from jsc_explore.store.query.grid import timings
from jsc_explore.training.backends.select import MAX_ON_GPU, compiled_from, why_not_gpu_kernel, why_not_kernel
from jsc_explore.training.backends.vmap.program import ProgramSpec, failure_marker, find_compiler

# More rows of timings make a prediction slower and no better; the ones with most runs are used.
MAX_ROWS = 1000
# Weight of a calibration, counted in runs trained here: a dozen runs outweigh a few seconds of calibration.
_CALIBRATION_WEIGHT = 5.0
# Weight of a run trained on this machine against one trained elsewhere.
_LOCAL_WEIGHT = 3.0
# An error is claimed only if runs of so many sizes were held out to measure it.
_MIN_SIZES = 4
# Compiling a program takes a core 18 to 27 s, and up to 47 s beside trainings (docs/decisions/training.md).
COMPILE_S = 40.0


@dataclass(frozen=True)
class Estimate:
    """Expected ``seconds`` of wall time, ``compile_s`` of them for programs that are not compiled yet.

    ``error`` is the relative error that two thirds of such estimates stay within; None: it was not measured.
    """

    seconds: float
    error: float | None = None
    compile_s: float = 0.0

    @property
    def duration(self) -> str:
        """The expected time as text: ``about 2 min``, ``about 2 min, of it compiling, about 40 s``."""
        compiling = f", of it compiling, about {format_seconds(self.compile_s)}" if self.compile_s else ""
        return f"about {format_seconds(self.seconds)}{compiling}"

    def __str__(self) -> str:
        if self.error is None:
            return self.duration
        return f"{self.duration}, usually within {max(5, 5 * math.ceil(20 * self.error)):.0f}%"


def estimate_time(store: Store, runs: Iterable[RunConfig], workers: int | None = None) -> Estimate:
    """Return the expected wall time of training ``runs`` on ``workers`` processes, by default one per core.

    Without timings in the store it is that of the prior costs. An error is claimed only where every backend that trains
    the runs has trained enough here, and nothing has to be compiled first.
    """
    groups: dict[tuple[object, ...], list[RunConfig]] = {}
    for run in runs:
        groups.setdefault(run.stack_key, []).append(run)
    if not groups:
        return Estimate(0.0, 0.0)
    model = _load_model(store, store.version, calibration.modified_at(store.directory))
    # The longest run of each stack and the number of its replicas, by backend.
    stacks: dict[str, list[tuple[RunConfig, int]]] = {}
    for group in groups.values():
        size = model.stack_size(group[0])
        for start in range(0, len(group), size):
            stack = group[start : start + size]
            longest = max(stack, key=lambda run: run.max_epochs)
            stacks.setdefault(model.backend(longest), []).append((longest, len(stack)))
    times = [time for backend, parts in stacks.items() for time in model.seconds(backend, parts)]
    count = workers or os.cpu_count() or 1
    programs = {spec for parts in stacks.values() for run, _ in parts if (spec := model.program_to_compile(run))}
    compile_s = COMPILE_S * math.ceil(len(programs) / count)
    errors = [error for backend in stacks if (error := model.errors.get(backend)) is not None]
    is_claimed = len(errors) == len(stacks) and not programs
    return Estimate(max([sum(times) / count, *times]) + compile_s, max(errors) if is_claimed else None, compile_s)


def estimate_each(store: Store, runs: Iterable[RunConfig]) -> list[float]:
    """Return the expected seconds of training each run alone, with its compilation."""
    model = _load_model(store, store.version, calibration.modified_at(store.directory))
    # Seeds and rates change no time: thousands of runs have only a few sizes.
    keys = [((*run.stack_key, run.max_epochs), run) for run in runs]
    sizes = dict(keys)
    seconds = {}
    for backend in {model.backend(run) for run in sizes.values()}:
        own = [key for key, run in sizes.items() if model.backend(run) == backend]
        for key, time in zip(own, model.seconds(backend, [(sizes[key], 1) for key in own]), strict=True):
            seconds[key] = time + (COMPILE_S if model.program_to_compile(sizes[key]) else 0.0)
    return [seconds[key] for key, _ in keys]


def waits_for_program(store: Store, job: Job) -> bool:
    """Return whether a running job is at the end of its first epoch and the program for the others is not compiled."""
    is_after_first_epoch = job.step > 0 and job.step * job.config.max_epochs == job.total_steps
    if job.state != "running" or not is_after_first_epoch:
        return False
    model = _load_model(store, store.version, calibration.modified_at(store.directory))
    return model.program_to_compile(job.config) is not None


class _TimeModel:
    """A cost model for each backend, scaled to this machine; ``errors`` holds the measured error of each, or None."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], calibration_rows: Sequence[Mapping[str, Any]]) -> None:
        known = [_with_work(row) for row in rows]
        # The calibration's networks have no convolution.
        linear = {"activations": 0, "eager_epochs": 0.0}
        measured = [{**row, "products": row["parameters"], **linear} for row in calibration_rows]
        slowdown = _slowdown(known, measured)
        self._on_gpu = any(row["here"] and not row["device"].startswith("cpu") for row in rows)
        self._part_sizes = {
            (row["dataset"], row["validation"]): {name: row[name] for name in ("train_rows", "val_rows")}
            for row in reversed(rows)
        }
        self._models: dict[str, CostModel] = {}
        self._speed = _speed(measured) if measured else 1.0
        self.errors: dict[str, float | None] = {}
        for backend in sorted({row["backend"] for row in known}):
            own = [row for row in known if row["backend"] == backend]
            times = np.array([row["seconds"] * (1.0 if row["here"] else slowdown) for row in own])
            count = np.array([row["n"] * (_LOCAL_WEIGHT if row["here"] else 1.0) for row in own], float)
            work = work_matrix(own)
            self._models[backend] = model = CostModel(work, times, count, _prior(backend))
            if backend == "kernel":
                self._speed = speed_factor(work, times, count)
            is_measured_here = any(row["here"] for row in own) or (backend == "kernel" and bool(measured))
            enough = is_measured_here and model.sizes >= _MIN_SIZES
            self.errors[backend] = float(np.quantile(model.errors(), 2 / 3)) if enough else None

    def backend(self, run: RunConfig) -> str:
        """Return the backend that is expected to train a run, as ``backend_key`` names it."""
        if self._on_gpu:
            reason = why_not_gpu_kernel(run)
            return "kernel-cuda" if reason is None else f"eager on GPU, {reason}"
        reason = why_not_kernel(run)
        if reason is None:
            return "kernel"
        return f"{'compiled' if self._program(run) else 'eager'}, {reason}"

    def stack_size(self, run: RunConfig) -> int:
        """Return the number of replicas that take each step together.

        It is 1 where replicas are trained one after the other: any worker can take any of them.
        """
        return MAX_ON_GPU if self._on_gpu and why_not_gpu_kernel(run) else 1

    def seconds(self, backend: str, stacks: Sequence[tuple[RunConfig, int]]) -> list[float]:
        """Return the expected seconds of stacks, each given by its longest run and its number of replicas."""
        work = work_matrix([
            {"batch_size": run.batch_size, **arithmetic(run.model), "epochs_run": run.max_epochs,
             "eager_epochs": _eager_epochs(backend, run.max_epochs, replicas), **self._sizes(run)}
            for run, replicas in stacks
        ])  # fmt: skip
        model = self._models.get(backend)
        # A backend that has trained nothing yet: costs measured on another machine, at the speed of the kernel here.
        times: Numbers = work @ _prior(backend) * self._speed if model is None else model.seconds(work)
        return [float(time) * replicas for time, (_, replicas) in zip(times, stacks, strict=True)]

    def program_to_compile(self, run: RunConfig) -> ProgramSpec | None:
        """Return the program that a run waits for because it is not compiled yet; None if there is none."""
        program = None if self._on_gpu else self._program(run)
        return program if program and not program.path.exists() else None

    def _program(self, run: RunConfig) -> ProgramSpec | None:
        steps = self._sizes(run)["train_rows"] // run.batch_size
        if why_not_kernel(run) is None or compiled_from(run, steps, "cpu") is None:
            return None
        spec = ProgramSpec.of(run, "cpu")
        can_compile = spec.path.exists() or (find_compiler() and not failure_marker(spec).exists())
        return spec if can_compile else None

    def _sizes(self, run: RunConfig) -> Mapping[str, int]:
        """Return the numbers of training and validation jets of a run: as stored with a run, or from its data set."""
        key = run.dataset, run.validation
        if key not in self._part_sizes:
            try:
                parts = data.part_sizes(data.size(run.dataset), run.validation)
            except DataError:  # Jets that are not here cannot be trained on either: any size will do.
                parts = data.part_sizes(data.size(DEFAULTS["dataset"]), run.validation)
            self._part_sizes[key] = {"train_rows": parts["train"], "val_rows": parts["val"]}
        return self._part_sizes[key]


def backend_key(name: str, device: str) -> str:
    """Return what runs with the same costs share: the backend of a stored run without the details of its name.

    ``kernel``, ``kernel-cuda``, ``compiled, layer conv1d``, ``eager on GPU, precision bf16-mixed``.
    """
    found = re.match(r"stack-(\w+)(?: \(([^;)]*))?", name)
    if not found:
        return name
    place = "" if device.startswith("cpu") else " on GPU"
    return f"{found[1]}{place}, {found[2] or ''}"


def _prior(backend: str) -> Numbers:
    return PRIOR_COSTS.get(backend.partition(",")[0], PRIOR_COSTS["kernel"])


def _eager_epochs(backend: str, epochs: int, replicas: int) -> float:
    """Return the epochs of a run that are trained eagerly, on a GPU divided by the replicas that share the launches."""
    # Before a compiled program takes over, the first epoch is eager.
    kind = backend.partition(",")[0]
    return {"compiled": 1, "eager": epochs, "eager on GPU": epochs / replicas}.get(kind, 0)


def _with_work(row: Mapping[str, Any]) -> dict[str, Any]:
    backend = backend_key(row["backend"], row["device"])
    eager_epochs = _eager_epochs(backend, row["epochs_run"], row["replicas"])
    return {**row, "backend": backend, **arithmetic(row["model"]), "eager_epochs": eager_epochs}


def _speed(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return how many times longer runs of the CPU kernel took than the prior costs predict."""
    seconds = np.array([row["seconds"] for row in rows])
    return speed_factor(work_matrix(rows), seconds, np.ones(len(rows)))


def _slowdown(rows: Sequence[Mapping[str, Any]], calibration_rows: Sequence[Mapping[str, Any]]) -> float:
    """Return how many times longer this machine takes than those that trained the runs from elsewhere.

    The weighted median over the runs trained here and the calibration of measured time over predicted time, where
    the prediction uses the runs from elsewhere. All of them are runs of the CPU kernel.
    """
    elsewhere = [row for row in rows if not row["here"] and row["backend"] == "kernel"]
    here = [row for row in rows if row["here"] and row["backend"] == "kernel"]
    measured = [*here, *calibration_rows]
    if not elsewhere or not measured:
        return 1.0
    times, count = (np.array([row[name] for row in elsewhere], float) for name in ("seconds", "n"))
    model = CostModel(work_matrix(elsewhere), times, count)
    ratios = np.array([row["seconds"] for row in measured]) / model.seconds(work_matrix(measured))
    calibration_weights = [_CALIBRATION_WEIGHT / len(calibration_rows) for _ in calibration_rows]
    weights = np.array([row["n"] for row in here] + calibration_weights, float)
    order = np.argsort(ratios)
    median = np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)
    return float(ratios[order][min(median, len(ratios) - 1)])


@lru_cache(maxsize=4)
def _load_model(store: Store, version: int, calibrated_at: float) -> _TimeModel:
    # Cached, since every live refresh asks for it. 100,000 runs have only a few hundred different rows of timings.
    rows: list[dict[str, Any]] = timings(store).to_pylist()
    most = sorted(rows, key=lambda row: (not row["here"], -row["n"]))[:MAX_ROWS]
    return _TimeModel(most, calibration.load(store.directory))


def format_seconds(seconds: float) -> str:
    """Format a duration for people: 9 s, 2 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
