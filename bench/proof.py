"""Benchmark of the published runs: the time they took, and the time of the same steps with the lab's code here."""

from __future__ import annotations

import duckdb

from bench.frame import Report
from bench.peers.host import Host
from bench.peers.task import Task
from jsc_explore.paths import snapshot

ROWS = 200_000
BUDGET_S, QUICK_BUDGET_S = 0.6, 0.1
# Steps of the published runs by network and batch size; the wall time is that of the sweep, on its own machine.
_STEPS = """
    SELECT model, batch_size, count(*) AS runs, sum(epochs_run) AS replica_epochs, sum(list_max(curve_step)) AS steps,
           sum(wall_time_s / replicas) AS worker_s
    FROM read_parquet(?) GROUP BY ALL ORDER BY model, batch_size
"""
_WALL = """
    SELECT epoch(max(created_at::TIMESTAMPTZ) - min(created_at::TIMESTAMPTZ)) FROM read_parquet(?)
    WHERE status IN ('done', 'diverged')
"""


def run(quick: bool) -> Report:
    """Time a step of the lab's code for every published network and batch size, and add up."""
    measurements = 1 if quick else 2
    published = str(snapshot())
    with duckdb.connect() as db:
        cells = db.execute(_STEPS, [published]).fetchall()
        ((between_s,),) = db.execute(_WALL, [published]).fetchall()
    host = Host("lightning_loop")
    rows = []
    try:
        for model, batch_size, runs, epochs, steps, worker_s in cells:
            task = Task(model, batch_size, 1, ROWS)
            host.prepare(task, QUICK_BUDGET_S if quick else BUDGET_S)
            step_s = min(host.epoch_s(1) for _ in range(measurements)) / task.steps_per_epoch
            rows.append(
                {
                    "model": model,
                    "batch_size": batch_size,
                    "runs": runs,
                    "replica_epochs": int(epochs),
                    "steps": int(steps),
                    "worker_s": worker_s,
                    "lab_ms_a_step": 1e3 * step_s,
                    "lab_h": steps * step_s / 3600,
                }
            )
    finally:
        host.close()
    lab_h = sum(row["lab_h"] for row in rows)
    figures = {
        "runs": float(sum(row["runs"] for row in rows)),
        "replica_epochs": float(sum(row["replica_epochs"] for row in rows)),
        "wall_minutes": between_s / 60,
        "worker_minutes": sum(row["worker_s"] for row in rows) / 60,
        "lab_hours": lab_h,
        "lab_over_wall": lab_h * 3600 / between_s,
    }
    notes = [
        "wall_minutes: from the end of the first published run to that of the last, on the machine of the sweep.",
        "worker_minutes: time of its workers, evaluations included.",
        f"lab_hours: the optimizer steps alone, one run after the other, at the lab's seconds per step here (best of"
        f" {measurements}, without validation).",
    ]
    return Report("proof", figures, rows, notes=notes)
