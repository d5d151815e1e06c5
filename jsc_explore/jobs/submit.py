"""Ask for runs: from the store if they are there, joined if they are under way, queued otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.errors import NotAllowedError, UnconfirmedError
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.estimate import expected_seconds, format_seconds
from jsc_explore.jobs.limits import LIMITS, UNLIMITED, Limits
from jsc_explore.jobs.queue.queue import INTERACTIVE, Queue
from jsc_explore.store import Store


@dataclass(frozen=True)
class Requester:
    """Who asks: a name under which the queue counts and takes turns, what limits hold, and why not if they may not.

    ``session`` is random and names no person. An empty ``refusal`` is the right to train.
    """

    session: str
    limits: Limits = LIMITS
    refusal: str = ""


# Whoever has a shell has the machine: no limit holds, nothing has to be confirmed.
TRUSTED = Requester("command line", UNLIMITED)


@dataclass(frozen=True)
class Submission:
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


def submit(
    store: Store,
    queue: Queue,
    runs: Iterable[RunConfig],
    priority: int = INTERACTIVE,
    requester: Requester = TRUSTED,
    *,
    confirmed: bool = False,
) -> Submission:
    """Request what is missing of these runs. A run is never trained twice.

    Nothing is changed by NotAllowedError (no right to train, or a process that is read only), UnconfirmedError (what is
    missing takes longer than the asker's limit and was not confirmed) and FieldError (more than the limits let wait).
    """
    # A process that is read only asks for nothing, whoever claims to ask.
    here = Access.from_environment()
    if refusal := requester.refusal or (here.refusal() if here.read_only else ""):
        raise NotAllowedError(refusal)
    wanted = identify(runs)
    store.refresh()
    stored = store.existing(wanted)
    missing = {run_id: pair for run_id, pair in wanted.items() if run_id not in stored}
    if missing and not confirmed:
        _affordable(store, queue, missing, requester.limits)
    new = queue.request(missing, priority, requester.session, requester.limits) if missing else []
    queued = set(new)
    return Submission(list(wanted), sorted(stored), new, [run_id for run_id in missing if run_id not in queued])


def _affordable(store: Store, queue: Queue, missing: dict[str, tuple[str, RunConfig]], limits: Limits) -> None:
    """Raise UnconfirmedError if what is not under way already takes longer than is granted unasked."""
    if limits.confirm_s is None:
        return
    active = {i for i, state in queue.states(list(missing)).items() if state in ("queued", "running")}
    new = [run for run_id, (_, run) in missing.items() if run_id not in active]
    seconds = expected_seconds(store, new)
    if seconds is not None and seconds > limits.confirm_s:
        raise UnconfirmedError(len(new), seconds, f"about {format_seconds(seconds)}")
