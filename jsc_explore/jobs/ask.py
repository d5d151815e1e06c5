"""Ask for runs: from the store if they are there, joined if they are under way, queued otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import INTERACTIVE, Queue
from jsc_explore.store import Store


@dataclass(frozen=True)
class Answer:
    """What became of a request, as run ids: all in the order asked, those stored, those queued new, those joined."""

    run_ids: list[str]
    stored: list[str]
    queued: list[str]
    joined: list[str]


def identify(runs: Iterable[RunConfig]) -> dict[str, tuple[str, RunConfig]]:
    """Return run_id -> (config_id, run), each run once; DataError where data must be fetched first."""
    identified = {}
    for run in runs:
        digest = data.digest(run.dataset)
        identified[run.run_id(digest)] = (run.config_id(digest), run)
    return identified


def ask(store: Store, queue: Queue, runs: Iterable[RunConfig], priority: int = INTERACTIVE) -> Answer:
    """Request what is missing of these runs. A run is never trained twice."""
    wanted = identify(runs)
    store.refresh()
    stored = store.existing(wanted)
    missing = {run_id: pair for run_id, pair in wanted.items() if run_id not in stored}
    new = queue.request(missing, priority) if missing else []
    queued = set(new)
    return Answer(list(wanted), sorted(stored), new, [run_id for run_id in missing if run_id not in queued])
