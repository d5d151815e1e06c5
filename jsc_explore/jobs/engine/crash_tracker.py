"""Which of the runs whose worker died is to blame for it."""

from __future__ import annotations

# A worker dies for many reasons. Of runs that were lost together this often without getting further one may be to
# blame: each is trained alone from then on, and one that loses its worker alone is given up in the end.
SUSPECT_AFTER, MAX_LOST = 2, 8


class CrashTracker:
    """Counts how often each run lost its worker without having got further than ever before."""

    def __init__(self) -> None:
        self._lost: dict[str, tuple[int, int]] = {}

    def add(self, run_id: str, step: int, alone: bool) -> bool:
        """Enter that a run lost its worker at this step; return whether it is to be given up."""
        furthest, times = self._lost.get(run_id, (-1, 0))
        if step > furthest:
            times = 1
        elif alone or times < SUSPECT_AFTER:
            times += 1
        self._lost[run_id] = (max(step, furthest), times)
        return times >= MAX_LOST

    def forget(self, run_id: str) -> None:
        """Forget a run that ended."""
        self._lost.pop(run_id, None)

    def suspects(self) -> set[str]:
        """Return the runs that are to be trained alone."""
        return {run_id for run_id, (_, times) in self._lost.items() if times >= SUSPECT_AFTER}
