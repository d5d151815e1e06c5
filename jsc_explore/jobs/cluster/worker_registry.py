"""The workers of a cluster as the engine sees them: who has joined, who may be given work, who has fallen silent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jsc_explore.jobs.cluster.code_version import CodeVersion

# A worker says something every few seconds; one that has been silent this long does not get its work back.
SILENT_AFTER_S = 60.0


@dataclass
class WorkerInfo:
    """A worker process, ``accepted`` once it has answered the greeting; ``refusal`` says why it gets no work."""

    address: str
    name: str
    threads: int
    accepted: bool = False
    # Not so while it is being retired, or has too little memory left.
    running: bool = True
    refusal: str = ""
    # The scheduler's clock is not ours: what counts is when its word last changed.
    last_word: float = 0.0
    heard_at: float = field(default_factory=time.monotonic)
    stacks: set[str] = field(default_factory=set)
    # Parcels of jets on their way, by digest.
    parcels: dict[str, Any] = field(default_factory=dict)
    warming: Any = None

    @property
    def silent(self) -> bool:
        """Whether nothing was heard of it for too long."""
        return time.monotonic() - self.heard_at > SILENT_AFTER_S

    @property
    def free(self) -> int:
        """Stacks that it may be given now."""
        able = self.accepted and self.running and not self.silent
        return max(0, self.threads - len(self.stacks)) if able else 0

    def hear(self, seen: Mapping[str, Any]) -> None:
        """Take note of what the scheduler says of it."""
        self.running = seen["status"] == "running"
        if seen["last_seen"] != self.last_word:
            self.last_word, self.heard_at = seen["last_seen"], time.monotonic()

    def judge(self, said: dict[str, Any], own: CodeVersion) -> None:
        """Accept or refuse the worker by its answer to the greeting, which may be the ``error`` that it caused."""
        host, error = said.pop("host"), said.pop("error", None)
        if error is None:
            difference = own.difference(CodeVersion(**said))
        else:  # It has no jsc-explore, or one that knows no greeting.
            difference = f"cannot run it ({type(error).__name__}: {' '.join(str(error).split())})"
        self.accepted = not difference
        if difference:
            remedy = f"install the engine's jsc-explore {own.version} there"
            self.refusal = f"worker {self.name} on {host} is refused: it {difference}; {remedy}"


class WorkerRegistry:
    """The workers by address; ``kept_free`` names the one that takes only what somebody waits for at a screen."""

    def __init__(self, kept_free: str | None) -> None:
        self._by_address: dict[str, WorkerInfo] = {}
        self._kept_free = kept_free

    def __iter__(self) -> Iterator[WorkerInfo]:
        return iter(list(self._by_address.values()))

    def get(self, address: str) -> WorkerInfo | None:
        """Return the worker at an address, None if it has gone."""
        return self._by_address.get(address)

    def add(self, worker_info: WorkerInfo) -> None:
        """Take in a worker that has joined."""
        self._by_address[worker_info.address] = worker_info

    def update(self, seen: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, int]]:
        """Take in what the scheduler says: drop workers that left, return (address, name, threads) of new ones."""
        for address in self._by_address.keys() - seen.keys():
            del self._by_address[address]
        for address in self._by_address:
            self._by_address[address].hear(seen[address])
        new = seen.keys() - self._by_address.keys()
        return [(address, str(seen[address]["name"]), int(seen[address]["nthreads"])) for address in sorted(new)]

    def clear(self) -> None:
        """Forget all of them."""
        self._by_address.clear()

    def free(self, bulk: bool) -> int:
        """Return how many stacks may be given out now."""
        return sum(worker_info.free for worker_info in self if not (bulk and worker_info.name == self._kept_free))

    def select_worker(self, bulk: bool) -> WorkerInfo | None:
        """Return the worker that shall take the next stack: the one kept free first where it may, then the idlest."""
        able = [
            worker_info
            for worker_info in self
            if worker_info.free and not (bulk and worker_info.name == self._kept_free)
        ]
        return min(able, key=self._rank, default=None)

    def _rank(self, worker_info: WorkerInfo) -> tuple[bool, int, bool, str]:
        still_warming = worker_info.warming is not None and not worker_info.warming.done()
        return worker_info.name != self._kept_free, len(worker_info.stacks), still_warming, worker_info.address

    @property
    def state(self) -> str:
        """Say what is wrong: workers that are refused, or none at all; empty if all is well."""
        if refusals := sorted(worker_info.refusal for worker_info in self if worker_info.refusal):
            others = f" (and {len(refusals) - 1} others)" if len(refusals) > 1 else ""
            return refusals[0] + others
        silent = [worker_info.name for worker_info in self if worker_info.accepted and worker_info.silent]
        if silent:
            return (
                f"worker {', '.join(sorted(silent))}: silent for over {SILENT_AFTER_S:.0f} s; others take up its work"
            )
        return ""
