"""Packing: waiting runs into stacks, each the work of one worker, so that all of them are done soonest."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jsc_explore.jobs.queue.queue import Job
from jsc_explore.training.backends.select import gpu_replicas, why_not_kernel

# Replicas that step together as one tensor share what it costs to launch a step; beyond this many their arithmetic
# outweighs it, and a stack gains nothing more.
MAX_REPLICAS = 32
# Below this many rows a step (replicas × batch size) launching dominates: two half stacks would take as long as one.
SPLIT_ROWS = 4096
# The kernel takes replicas one after the other: its stacks are no faster for being large, only slower to change.
MAX_KERNEL_REPLICAS = 8


@dataclass(frozen=True)
class StackPlan:
    """Runs to train side by side, by run_id, and the most urgent priority among them."""

    jobs: tuple[Job, ...]
    priority: int


def pack(
    jobs: Iterable[Job],
    slots: int,
    resumable: Mapping[str, int] | None = None,
    gpu_bytes: int | None = None,
    alone: Collection[str] = (),
) -> list[StackPlan]:
    """Group waiting jobs, in the order of their turns, into stacks for ``slots`` free workers.

    The most urgent stacks come first; of equally urgent ones each session's first, then each one's second. Only runs
    of one network, batch size, priority and session share a stack: among another's hundreds one would wait for all of
    them. ``resumable`` gives the epoch at which a run's checkpoint stands; runs in one stack stand at the same epoch.
    ``gpu_bytes`` is the memory that each stack has on a GPU, None where workers train on CPUs. The runs in ``alone``
    share a stack with no other.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.priority):
        apart = job.run_id if job.run_id in alone else ""
        key = (job.priority, *job.config.stack_key, (resumable or {}).get(job.run_id, 0), job.session, apart)
        groups.setdefault(key, []).append(job)
    plans = [
        StackPlan(tuple(part), group[0].priority)
        for group in groups.values()
        for part in (_split(group, max(1, slots)) if gpu_bytes is None else _split_for_gpu(group, gpu_bytes))
    ]
    had: Counter[str] = Counter()
    ranks = []
    for plan in plans:
        ranks.append((plan.priority, had[plan.jobs[0].session]))
        had[plan.jobs[0].session] += 1
    return [plans[i] for i in sorted(range(len(plans)), key=ranks.__getitem__)]


def _split(group: Sequence[Job], slots: int) -> list[Sequence[Job]]:
    count = len(group)
    if why_not_kernel(group[0].config) is None:
        # Runs of one seed take the same batches, whose order is drawn once for a stack: they stay together, and each
        # part has long and short runs.
        ordered = sorted(group, key=lambda job: (job.config.seed, -job.config.max_epochs))
        parts = max(math.ceil(count / MAX_KERNEL_REPLICAS), min(slots, count))
        cuts = [part * count // parts for part in range(parts + 1)]
        return [ordered[start:stop] for start, stop in itertools.pairwise(cuts)]
    # Long runs first, dealt in turn: each part then holds some of every length and ends at about the same time.
    ordered = sorted(group, key=lambda job: -job.config.max_epochs)
    rows = count * group[0].config.batch_size
    parts = max(math.ceil(count / MAX_REPLICAS), min(slots, rows // SPLIT_ROWS, count), 1)
    return [ordered[part::parts] for part in range(parts)]


def _split_for_gpu(group: Sequence[Job], gpu_bytes: int) -> list[Sequence[Job]]:
    """Cut as little as memory allows: replicas train at once, and those that end leave their place to none idle."""
    ordered = sorted(group, key=lambda job: (job.config.seed, -job.config.max_epochs))
    parts = math.ceil(len(group) / gpu_replicas(group[0].config, gpu_bytes))
    cuts = [part * len(group) // parts for part in range(parts + 1)]
    return [ordered[start:stop] for start, stop in itertools.pairwise(cuts)]
