"""Worker registry: the workers that have joined the cluster, their code version, load and last heartbeat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsc_explore.jobs.cluster.code_version import CodeVersion

# Workers send a heartbeat every few seconds. One without a heartbeat for this long has lost its stacks.
HEARTBEAT_TIMEOUT_S = 60.0


@dataclass
class WorkerInfo:
    """A worker process; ``accepted`` if its code version is the engine's, else ``refusal`` says why it gets no work."""

    address: str
    name: str
    threads: int
    accepted: bool = False
    # False while Dask retires or pauses the worker.
    running: bool = True
    refusal: str = ""
    # The scheduler's clock differs from ours: record when its time stamp of the last heartbeat changed.
    last_seen: float = 0.0
    heartbeat_at: float = field(default_factory=time.monotonic)
    stacks: set[str] = field(default_factory=set)
    # Futures of data sets that are being sent, by digest.
    transfers: dict[str, Any] = field(default_factory=dict)
    warm_up: Any = None

    @property
    def timed_out(self) -> bool:
        """Whether the last heartbeat is too old."""
        return time.monotonic() - self.heartbeat_at > HEARTBEAT_TIMEOUT_S

    @property
    def free_slots(self) -> int:
        """The number of stacks that the worker can start now."""
        is_usable = self.accepted and self.running and not self.timed_out
        return max(0, self.threads - len(self.stacks)) if is_usable else 0

    def update(self, status: Mapping[str, Any]) -> None:
        """Update the worker from the scheduler's information about it."""
        self.running = status["status"] == "running"
        if status["last_seen"] != self.last_seen:
            self.last_seen, self.heartbeat_at = status["last_seen"], time.monotonic()

    def check_version(self, description: dict[str, Any], own: CodeVersion) -> None:
        """Accept or refuse the worker by its ``describe()``, or by the ``error`` of that call."""
        host, error = description.pop("host"), description.pop("error", None)
        if error is None:
            difference = own.difference(CodeVersion(**description))
        else:  # It has no jsc-explore, or a very different one.
            difference = f"cannot run it ({type(error).__name__}: {' '.join(str(error).split())})"
        self.accepted = not difference
        if difference:
            remedy = f"install the engine's jsc-explore {own.version} there"
            self.refusal = f"worker {self.name} on {host} is refused: it {difference}; {remedy}"


class WorkerRegistry:
    """The workers by address."""

    def __init__(self) -> None:
        self._by_address: dict[str, WorkerInfo] = {}

    def __iter__(self) -> Iterator[WorkerInfo]:
        return iter(list(self._by_address.values()))

    def get(self, address: str) -> WorkerInfo | None:
        """Return the worker at an address, None if it has left."""
        return self._by_address.get(address)

    def add(self, worker_info: WorkerInfo) -> None:
        """Add a worker that has joined."""
        self._by_address[worker_info.address] = worker_info

    def update(self, statuses: Mapping[str, Mapping[str, Any]]) -> list[WorkerInfo]:
        """Update all workers from the scheduler's information, by address; return the new ones, not added yet."""
        for address in self._by_address.keys() - statuses.keys():
            del self._by_address[address]
        for address, info in self._by_address.items():
            info.update(statuses[address])
        new = sorted(statuses.keys() - self._by_address.keys())
        return [
            WorkerInfo(address, str(statuses[address]["name"]), int(statuses[address]["nthreads"])) for address in new
        ]

    def clear(self) -> None:
        """Remove all workers."""
        self._by_address.clear()

    def free_slots(self, bulk: bool) -> int:
        """Return how many bulk or interactive stacks the workers can start now."""
        free = sum(info.free_slots for info in self)
        # Of two slots or more, bulk stacks leave one to those who wait at a page.
        is_reserving = bulk and sum(info.threads for info in self if info.accepted) > 1
        return max(0, free - 1) if is_reserving else free

    def select_worker(self) -> WorkerInfo | None:
        """Return the worker for the next stack, the one with the fewest stacks; None if all are busy."""
        return min((info for info in self if info.free_slots), key=self._rank, default=None)

    def _rank(self, info: WorkerInfo) -> tuple[int, bool, str]:
        is_warming_up = info.warm_up is not None and not info.warm_up.done()
        return len(info.stacks), is_warming_up, info.address

    @property
    def problem(self) -> str:
        """Describe workers that are refused or timed out; empty if there are none."""
        if refusals := sorted(info.refusal for info in self if info.refusal):
            others = f" (and {len(refusals) - 1} others)" if len(refusals) > 1 else ""
            return refusals[0] + others
        if names := sorted(info.name for info in self if info.accepted and info.timed_out):
            timeout = f"{HEARTBEAT_TIMEOUT_S:.0f} s"
            return f"worker {', '.join(names)}: no heartbeat for over {timeout}; other workers continue its runs"
        return ""
