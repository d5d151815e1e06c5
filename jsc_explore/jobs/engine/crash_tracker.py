"""Crash tracker: find the run that makes its workers crash."""

from __future__ import annotations

# A worker can crash for many reasons. A run that lost its worker SUSPECT_AFTER times without progress is trained alone
# from then on; after MAX_CRASHES it fails.
SUSPECT_AFTER, MAX_CRASHES = 2, 8


class CrashTracker:
    """Counts for each run the crashes of its worker before it got further than ever before."""

    def __init__(self) -> None:
        self._crashes: dict[str, tuple[int, int]] = {}

    def add(self, run_id: str, step: int, alone: bool) -> bool:
        """Record a crash at this step, of a run ``alone`` in its stack or not; return whether the run must fail."""
        furthest, count = self._crashes.get(run_id, (-1, 0))
        if step > furthest:
            count = 1
        elif alone or count < SUSPECT_AFTER:
            count += 1
        self._crashes[run_id] = (max(step, furthest), count)
        return count >= MAX_CRASHES

    def drop(self, run_id: str) -> None:
        """Drop the record of a run that ended."""
        self._crashes.pop(run_id, None)

    def suspects(self) -> set[str]:
        """Return the runs that have to be trained alone."""
        return {run_id for run_id, (_, count) in self._crashes.items() if count >= SUSPECT_AFTER}
