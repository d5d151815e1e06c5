"""Packing: waiting runs into stacks that share their steps, so that many replicas cost little more than one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jsc_explore.jobs.queue import Job

# Beyond this many replicas a step's arithmetic outweighs what it costs to launch it, and a stack gains nothing more.
MAX_REPLICAS = 32
# Below this many rows a step (replicas × batch size) launching dominates: two half stacks would take as long as one.
SPLIT_ROWS = 4096


@dataclass(frozen=True)
class StackPlan:
    """Runs to train side by side, by run_id, and the most urgent priority among them."""

    jobs: tuple[Job, ...]
    priority: int


def pack(jobs: Iterable[Job], slots: int, resumable: Mapping[str, int] | None = None) -> list[StackPlan]:
    """Group waiting jobs, oldest first, into stacks for ``slots`` free workers, most urgent first.

    Only runs of one network, batch size and priority share a stack; ``resumable`` gives the epoch at which a run's
    checkpoint stands, and runs in one stack stand at the same epoch.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.priority):
        key = (job.priority, *job.config.stack_key, (resumable or {}).get(job.run_id, 0))
        groups.setdefault(key, []).append(job)
    return [plan for group in groups.values() for plan in _split(group, max(1, slots))]


def _split(group: Sequence[Job], slots: int) -> list[StackPlan]:
    # Long runs first, dealt in turn: each part then holds some of every length and ends at about the same time.
    ordered = sorted(group, key=lambda job: -job.config.max_epochs)
    rows = len(group) * group[0].config.batch_size
    parts = max(math.ceil(len(group) / MAX_REPLICAS), min(slots, rows // SPLIT_ROWS, len(group)), 1)
    return [StackPlan(tuple(ordered[part::parts]), group[0].priority) for part in range(parts)]
