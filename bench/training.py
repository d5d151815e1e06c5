"""Benchmark of training: seconds per epoch and replica of the lab's code, plain torch, JAX, C++ and this project."""

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
# Seconds of training per measurement, unless a whole epoch is shorter.
BUDGET_S, QUICK_BUDGET_S = 0.6, 0.1
REPETITIONS, QUICK_REPETITIONS, QUICK_COLD, QUICK_WARM = 5, 3, 1, 1
# Name, module and number of replicas of each peer; this project is measured with each of REPLICAS.
_PEERS = (("lab", "lightning_loop", 1), ("torch", "torch_loop", 1), ("jax", "jax_loop", 1), ("jax", "jax_loop", 10),
          ("cpp", "cpp_loop", 1))  # fmt: skip
# A quick run measures every bound on the lab's code and on C++, and two of those on JAX: a bound needs the named peer
# and this project with the same model, batch size and replicas.
_QUICK = {
    ("tiny", 256): {("lab", 1), ("jax", 10), ("cpp", 1), ("ours", 1), ("ours", 10)},
    ("tiny", 16): {("lab", 1), ("jax", 10), ("cpp", 1), ("ours", 1), ("ours", 10)},
    ("s", 256): {("cpp", 1), ("ours", 1)},
}


@dataclass(frozen=True)
class Peer:
    """A way of training, with the number of replicas at once; ``module`` is in ``bench.peers``."""

    name: str
    module: str
    replicas: int


@dataclass(frozen=True)
class Measured:
    """Seconds per epoch and replica of one peer in one cell, per repetition; ``share`` of the epoch was trained."""

    seconds: tuple[float, ...]
    share: float

    @property
    def median(self) -> float:
        """The median of the repetitions."""
        return statistics.median(self.seconds)


Cell = tuple[str, int]
Cells = dict[Cell, set[tuple[str, int]]]
Table = dict[tuple[str, int, str, int], Measured]


def run(quick: bool) -> Report:
    """Measure every cell of model and batch size with all peers in turn, then jobs through the real engine."""
    every = [*((name, replicas) for name, _, replicas in _PEERS), *(("ours", replicas) for replicas in REPLICAS)]
    cells = _QUICK if quick else {(model, batch): set(every) for model in MODELS for batch in BATCHES}
    n, budget = (QUICK_REPETITIONS, QUICK_BUDGET_S) if quick else (REPETITIONS, BUDGET_S)
    table, absent = _measure(cells, n, budget)
    cold, warm, peak_mb = measure_jobs(*((QUICK_COLD, QUICK_WARM) if quick else (n, n)))
    figures = _ratios(table) | _job_figures(cold, warm, peak_mb)
    rows = [_row(key, measured) for key, measured in table.items()]
    rows += _job_rows("cold", cold) + _job_rows("warm", warm)
    kept = {key: bound for key, bound in bounds().items() if key in figures}
    return Report("training", figures, rows, kept, _notes(absent, quick), _summary(table))


def bounds() -> dict[str, Bound]:
    """Return the bound of every figure that has one, in the order of the report."""
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


def _measure(cells: Cells, n: int, budget_s: float) -> tuple[Table, dict[str, str]]:
    """Measure the peers of each cell; return the table and, by name, why a peer could not run."""
    table: Table = {}
    absent: dict[str, str] = {}
    peers = [Peer(*peer) for peer in _PEERS] + [Peer("ours", "ours", replicas) for replicas in REPLICAS]
    wanted = set().union(*cells.values())
    peers = [peer for peer in peers if (peer.name, peer.replicas) in wanted]
    hosts = {module: Host(module) for module in dict.fromkeys(peer.module for peer in peers)}
    try:
        for cell, names in cells.items():
            _log(f"{cell[0]}, batch {cell[1]}")
            own = {peer: hosts[peer.module] for peer in peers if (peer.name, peer.replicas) in names}
            table |= _measure_cell(cell, own, n, budget_s, absent)
    finally:
        for host in hosts.values():
            host.close()
    return table, absent


def _measure_cell(cell: Cell, hosts: dict[Peer, Host], n: int, budget_s: float, absent: dict[str, str]) -> Table:
    model, batch = cell
    steps: dict[Peer, int] = {}
    for peer, host in hosts.items():
        if peer.name in absent:
            continue
        try:
            steps[peer] = host.prepare(Task(f"jsc-{model}", batch, peer.replicas, ROWS), budget_s)
        except AbsentError as error:
            absent[peer.name] = str(error)
            _log(f"skipped: {peer.name}: {error}")
        else:
            _log(f"{peer.name}, {peer.replicas} replicas: {steps[peer]} steps a measurement")
    seconds: dict[Peer, list[float]] = {peer: [] for peer in steps}
    # In turn, so that other load on the machine slows all of them alike.
    for _ in range(n):
        for peer, times in seconds.items():
            times.append(hosts[peer].epoch_s(peer.replicas) / peer.replicas)
    whole = ROWS // batch
    return {
        (model, batch, peer.name, peer.replicas): Measured(tuple(times), min(1.0, steps[peer] / whole))
        for peer, times in seconds.items()
    }


def _ratios(table: Table) -> dict[str, float]:
    """Return the ratios that have a bound and can be computed from the table, in the order of ``bounds``."""
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
    """Return one row per cell: median and spread of each peer."""
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


def _figures_row(
    model: str, batch: int, peer: str, replicas: int, seconds: list[float], share: float
) -> dict[str, Any]:
    return {
        "model": model, "batch": batch, "peer": peer, "replicas": replicas, "median_s": statistics.median(seconds),
        "low_s": min(seconds), "high_s": max(seconds), "n": len(seconds), "share_of_epoch": share,
    }  # fmt: skip


def _notes(absent: dict[str, str], quick: bool) -> list[str]:
    cores = os.cpu_count()
    notes = [
        f"Seconds per epoch of {ROWS:,} jets (the shipped ones, repeated) and per replica, training alone, drawing"
        " each epoch's order included. Where share_of_epoch is below 1, that share was trained and the time scaled.",
        "Interleaved repetitions. A bias that feeds a batch norm is frozen for all. lab: Lightning's Trainer without"
        f" logger files, progress bar, checkpoints and validation; 0 or {cores} loading workers, whichever is faster.",
        f"lab, torch and cpp: one core. jax: all cores, on 1 or {cores} devices, whichever is faster. ours: replicas"
        " divided among processes as the engine does.",
        f"Jobs: {SEEDS} seeds of jsc-tiny, batch 256, {EPOCHS} epochs, {ROWS:,} training jets, through the engine;"
        f" cold: from the engine's start with empty caches. worker_peak_mb: {MEMORY_REPLICAS} replicas, one epoch.",
    ]
    notes += [f"Skipped: {name}: {why}" for name, why in absent.items()]
    return [
        *notes,
        *(["A quick run: fewer networks, batch sizes, replicas and repetitions, one cold start."] if quick else []),
    ]


def _log(text: str) -> None:
    print(f"bench training: {text}", file=sys.stderr, flush=True)
