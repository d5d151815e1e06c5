"""Packing: group waiting runs into stacks, one per worker, so that all of them end as early as possible."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from jsc_explore.jobs.queue import INTERACTIVE, Job
from jsc_explore.training.backends.select import max_gpu_replicas

# A CPU trains the replicas of a stack one after the other: a large stack is no faster, only occupies its worker for
# longer.
MAX_REPLICAS = 8
# Seconds that an interactive stack on a CPU is expected to take at most, unless a single run takes longer: another
# visitor's request waits for no more than that.
MAX_STACK_S = 2.0


@dataclass(frozen=True)
class StackPlan:
    """Jobs of one session to train in one stack, and their priority."""

    jobs: tuple[Job, ...]
    priority: int

    @property
    def session(self) -> str:
        """The session whose jobs they are."""
        return self.jobs[0].session

    @property
    def address(self) -> str:
        """The network address of that session."""
        return self.jobs[0].address


def pack(
    jobs: Iterable[Job],
    slots: int,
    resumable: Mapping[str, int] | None = None,
    gpu_bytes: int | None = None,
    alone: Collection[str] = (),
    running: Iterable[str] = (),
) -> list[StackPlan]:
    """Group waiting jobs, given in fair-share order, into stacks for ``slots`` free workers.

    Stacks are sorted by priority, then round robin by session: the first stack of each session, then the second ones,
    where the stacks that are ``running``, given by their sessions, count. Only runs with one stack key, priority and
    session share a stack, since a run waits for its whole stack. On CPUs the interactive ones are cut so that each is
    expected to take at most ``MAX_STACK_S``.
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
    stacks = Counter(running)
    ranks = []
    for plan in plans:
        ranks.append((plan.priority, stacks[plan.session]))
        stacks[plan.session] += 1
    return [plans[i] for i in sorted(range(len(plans)), key=ranks.__getitem__)]


def _split(group: Sequence[Job], slots: int) -> list[Sequence[Job]]:
    """Split into a part for each free worker, or more if they would be too large or, interactive, take too long."""
    longest_s, limit = max(job.expected_s for job in group), MAX_REPLICAS
    if group[0].priority == INTERACTIVE and longest_s > 0:
        limit = max(1, min(MAX_REPLICAS, int(MAX_STACK_S / longest_s)))
    return _cut(group, max(math.ceil(len(group) / limit), min(slots, len(group))))


def _split_for_gpu(group: Sequence[Job], gpu_bytes: int) -> list[Sequence[Job]]:
    """Split into as few parts as memory allows: on a GPU all replicas train at once."""
    return _cut(group, math.ceil(len(group) / max_gpu_replicas(group[0].config, gpu_bytes)))


def _cut(group: Sequence[Job], parts: int) -> list[Sequence[Job]]:
    # Runs of one seed use the same batches, whose order is drawn once per stack: keep them together. Each part has
    # long and short runs.
    ordered = sorted(group, key=lambda job: (job.config.seed, -job.config.max_epochs))
    cuts = [part * len(group) // parts for part in range(parts + 1)]
    return [ordered[start:stop] for start, stop in itertools.pairwise(cuts)]
