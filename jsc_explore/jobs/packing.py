"""Packing: group waiting runs into stacks, one per worker, so that all of them end as early as possible."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jsc_explore.jobs.queue import Job
from jsc_explore.training.backends.select import max_gpu_replicas

# A CPU trains the replicas of a stack one after the other: a large stack is no faster, only occupies its worker for
# longer.
MAX_REPLICAS = 8


@dataclass(frozen=True)
class StackPlan:
    """Jobs to train in one stack, and their priority."""

    jobs: tuple[Job, ...]
    priority: int


def pack(
    jobs: Iterable[Job],
    slots: int,
    resumable: Mapping[str, int] | None = None,
    gpu_bytes: int | None = None,
    alone: Collection[str] = (),
) -> list[StackPlan]:
    """Group waiting jobs, given in fair-share order, into stacks for ``slots`` free workers.

    Stacks are sorted by priority, then round robin by session: the first stack of each session, then the second ones.
    Only runs with one stack key, priority and session share a stack, since a run waits for its whole stack.
    ``resumable`` maps a run_id to the epoch of its checkpoint; runs in one stack start at the same epoch.
    ``gpu_bytes`` is the GPU memory of each stack, None where workers train on CPUs. Each run in ``alone`` gets a
    stack of its own.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.priority):
        own_stack = job.run_id if job.run_id in alone else ""
        key = (job.priority, *job.config.stack_key, (resumable or {}).get(job.run_id, 0), job.session, own_stack)
        groups.setdefault(key, []).append(job)
    plans = [
        StackPlan(tuple(part), group[0].priority)
        for group in groups.values()
        for part in (_split(group, max(1, slots)) if gpu_bytes is None else _split_for_gpu(group, gpu_bytes))
    ]
    stacks: Counter[str] = Counter()
    ranks = []
    for plan in plans:
        ranks.append((plan.priority, stacks[plan.jobs[0].session]))
        stacks[plan.jobs[0].session] += 1
    return [plans[i] for i in sorted(range(len(plans)), key=ranks.__getitem__)]


def _split(group: Sequence[Job], slots: int) -> list[Sequence[Job]]:
    """Split into a part for each free worker, or more if they would be too large."""
    parts = max(math.ceil(len(group) / MAX_REPLICAS), min(slots, len(group)))
    return _cut(group, parts)


def _split_for_gpu(group: Sequence[Job], gpu_bytes: int) -> list[Sequence[Job]]:
    """Split into as few parts as memory allows: on a GPU all replicas train at once."""
    return _cut(group, math.ceil(len(group) / max_gpu_replicas(group[0].config, gpu_bytes)))


def _cut(group: Sequence[Job], parts: int) -> list[Sequence[Job]]:
    # Runs of one seed use the same batches, whose order is drawn once per stack: keep them together. Each part has
    # long and short runs.
    ordered = sorted(group, key=lambda job: (job.config.seed, -job.config.max_epochs))
    cuts = [part * len(group) // parts for part in range(parts + 1)]
    return [ordered[start:stop] for start, stop in itertools.pairwise(cuts)]
