"""How fast the project trains, beside the lab's way, plain torch, JAX and C++: seconds per epoch and replica."""

from __future__ import annotations

import os
import statistics
import sys
from dataclasses import dataclass
from typing import Any

from bench.frame import Bound, Report
from bench.job import EPOCHS, MEMORY_REPLICAS, SEEDS, JobTimes, measure_jobs
from bench.peers.host import Host
from bench.peers.task import AbsentError, Task

ROWS = 800_000
MODELS, BATCHES, REPLICAS = ("tiny", "toy", "s"), (16, 64, 256, 512), (1, 5, 10, 50)
# One measurement trains for about so long, or for a whole epoch where that is shorter.
BUDGET_S, QUICK_BUDGET_S = 0.6, 0.1
REPETITIONS, QUICK_REPETITIONS, QUICK_COLD = 5, 5, 1
# Ways of training beside the project's own, with the replicas they train at once.
_PEERS = (("lab", "lightning_loop", 1), ("torch", "torch_loop", 1), ("jax", "jax_loop", 1), ("jax", "jax_loop", 10),
          ("cpp", "cpp_loop", 1))  # fmt: skip
# What a quick run measures: every bound on the lab's way and on C++, and some of those on JAX.
_QUICK = (("tiny", 256), ("tiny", 16), ("s", 256))
_QUICK_WAYS = {("lab", 1), ("jax", 10), ("cpp", 1), ("ours", 1), ("ours", 10)}


@dataclass(frozen=True)
class Entrant:
    """One way of training with so many replicas at once; ``module`` lies in ``bench.peers``."""

    name: str
    module: str
    replicas: int


@dataclass(frozen=True)
class Measured:
    """Seconds per epoch and replica of one entrant in one cell, each repetition; ``share`` of the epoch was trained."""

    seconds: tuple[float, ...]
    share: float

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


Cell = tuple[str, int]
Table = dict[tuple[str, int, str, int], Measured]


def run(quick: bool) -> Report:
    """Measure every cell of model and batch size with all entrants in turn, then jobs through the real engine."""
    cells = _QUICK if quick else tuple((model, batch) for model in MODELS for batch in BATCHES)
    n, budget = (QUICK_REPETITIONS, QUICK_BUDGET_S) if quick else (REPETITIONS, BUDGET_S)
    table, absent = _measure(cells, _entrants(quick), n, budget)
    cold, warm, peak_mb = measure_jobs(QUICK_COLD if quick else n, n)
    figures = _ratios(table) | _job_figures(cold, warm, peak_mb)
    rows = [_row(key, measured) for key, measured in table.items()]
    rows += _job_rows("cold", cold) + _job_rows("warm", warm)
    kept = {key: bound for key, bound in bounds().items() if key in figures}
    return Report("training", figures, rows, kept, _notes(absent, quick), _summary(table))


def bounds() -> dict[str, Bound]:
    """Return every figure that this bench can measure, with what it must keep."""
    jax = {
        f"{model}_b{batch}_r10_speedup_vs_jax": Bound(1.0 if model == "s" else 1.5, True)
        for model in MODELS
        for batch in BATCHES
    }
    return {
        "tiny_b256_r1_speedup_vs_lab": Bound(40, True),
        "tiny_b256_r10_speedup_vs_lab": Bound(80, True),
        "tiny_b16_r10_speedup_vs_lab": Bound(600, True),
        **jax,
        "tiny_b256_r1_time_vs_cpp": Bound(1.0, False),
        "tiny_b16_r1_time_vs_cpp": Bound(1.2, False),
        "s_b256_r1_time_vs_cpp": Bound(1.0, False),
        "first_point_s": Bound(0.5, False),
        "five_seeds_ten_epochs_warm_s": Bound(3, False),
        "five_seeds_ten_epochs_cold_s": Bound(8, False),
        "worker_peak_mb": Bound(2000, False),
    }


def _entrants(quick: bool) -> list[Entrant]:
    every = [Entrant(*peer) for peer in _PEERS] + [Entrant("ours", "ours", replicas) for replicas in REPLICAS]
    return [one for one in every if not quick or (one.name, one.replicas) in _QUICK_WAYS]


def _measure(cells: tuple[Cell, ...], entrants: list[Entrant], n: int, budget_s: float) -> tuple[Table, dict[str, str]]:
    """Measure; return the table and, by name, why an entrant could not take part."""
    table: Table = {}
    absent: dict[str, str] = {}
    hosts: dict[Entrant, Host] = {}
    try:
        for one in entrants:
            hosts[one] = Host(one.module)
        for cell in cells:
            _say(f"{cell[0]}, batch {cell[1]}")
            table |= _measure_cell(cell, hosts, n, budget_s, absent)
    finally:
        for host in hosts.values():
            host.close()
    return table, absent


def _measure_cell(cell: Cell, hosts: dict[Entrant, Host], n: int, budget_s: float, absent: dict[str, str]) -> Table:
    model, batch = cell
    steps: dict[Entrant, int] = {}
    for one, host in hosts.items():
        if one.name in absent:
            continue
        try:
            steps[one] = host.prepare(Task(f"jsc-{model}", batch, one.replicas, ROWS), budget_s)
        except AbsentError as error:
            absent[one.name] = str(error)
            _say(f"skipped: {one.name}: {error}")
        else:
            _say(f"{one.name}, {one.replicas} replicas: {steps[one]} steps a measurement")
    seconds: dict[Entrant, list[float]] = {one: [] for one in steps}
    # In turn, so that a machine that is busy for a while slows all of them down.
    for _ in range(n):
        for one, times in seconds.items():
            times.append(hosts[one].epoch_s() / one.replicas)
    whole = ROWS // batch
    return {
        (model, batch, one.name, one.replicas): Measured(tuple(times), min(1.0, steps[one] / whole))
        for one, times in seconds.items()
    }


def _ratios(table: Table) -> dict[str, float]:
    """Return the ratios of ``bounds`` that the table tells, in that order."""
    figures = {}
    for key in bounds():
        parts = key.split("_")
        if parts[-2] != "vs":
            continue
        model, batch, replicas = parts[0], int(parts[1][1:]), int(parts[2][1:])
        ours = table.get((model, batch, "ours", replicas))
        peer = table.get((model, batch, parts[-1], replicas if parts[-1] == "jax" else 1))
        if ours is not None and peer is not None:
            ratio = peer.median / ours.median
            figures[key] = ratio if parts[3] == "speedup" else 1 / ratio
    return figures


def _job_figures(cold: list[JobTimes], warm: list[JobTimes], peak_mb: float) -> dict[str, float]:
    return {
        "first_point_s": statistics.median(times.first_point_s for times in warm),
        "five_seeds_ten_epochs_warm_s": statistics.median(times.end_s for times in warm),
        "five_seeds_ten_epochs_cold_s": statistics.median(times.end_s for times in cold),
        "worker_peak_mb": peak_mb,
    }


def _row(key: tuple[str, int, str, int], measured: Measured) -> dict[str, Any]:
    model, batch, name, replicas = key
    return _figures_row(f"jsc-{model}", batch, name, replicas, list(measured.seconds), measured.share)


def _summary(table: Table) -> list[dict[str, Any]]:
    """Return one row a cell: median and spread of each entrant."""
    cells = dict.fromkeys((model, batch) for model, batch, _, _ in table)
    return [
        {"seconds an epoch": f"jsc-{model}, batch {batch}"}
        | {
            f"{name} ×{replicas}": f"{measured.median:.2g} ({min(measured.seconds):.2g}–{max(measured.seconds):.2g})"
            for (m, b, name, replicas), measured in table.items()
            if (m, b) == (model, batch)
        }
        for model, batch in cells
    ]


def _job_rows(kind: str, jobs: list[JobTimes]) -> list[dict[str, Any]]:
    return [
        _figures_row("jsc-tiny", 256, f"{kind} job, to the {what}", SEEDS, values, 1.0)
        for what, values in (
            ("first point", [times.first_point_s for times in jobs]),
            ("end", [times.end_s for times in jobs]),
        )
    ]


def _figures_row(model: str, batch: int, way: str, replicas: int, seconds: list[float], share: float) -> dict[str, Any]:
    return {
        "model": model, "batch": batch, "way": way, "replicas": replicas, "median_s": statistics.median(seconds),
        "low_s": min(seconds), "high_s": max(seconds), "n": len(seconds), "share_of_epoch": share,
    }  # fmt: skip


def _notes(absent: dict[str, str], quick: bool) -> list[str]:
    cores = os.cpu_count()
    notes = [
        f"Seconds per epoch of {ROWS:,} jets (the shipped ones, repeated) and per replica, training alone, the drawing"
        " of each epoch's order included. Where share_of_epoch is below 1, so much of it was trained and scaled.",
        "Repetitions are interleaved. A bias that feeds a batch norm is frozen for all. lab: Lightning's Trainer,"
        f" without logger files, progress bar, checkpoints, validation; loading with 0 or {cores} workers, the faster.",
        f"lab, torch and cpp: one core. jax: all cores, on 1 or {cores} devices, as is faster. ours: as the engine"
        " divides the replicas among processes.",
        f"Jobs: {SEEDS} seeds of jsc-tiny, batch 256, {EPOCHS} epochs, {ROWS:,} training jets, through the engine;"
        f" cold: from the engine's start with empty caches. worker_peak_mb: {MEMORY_REPLICAS} replicas, one epoch.",
    ]
    notes += [f"Skipped: {name}: {why}" for name, why in absent.items()]
    return [*notes, *(["A quick run: fewer networks, batch sizes and replicas, one cold start."] if quick else [])]


def _say(text: str) -> None:
    print(f"bench training: {text}", file=sys.stderr, flush=True)
