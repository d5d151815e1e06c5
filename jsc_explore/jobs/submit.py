"""Submit runs: stored ones are returned, active ones are joined, all others are queued."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.errors import NotAllowedError, UnconfirmedError
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.estimate import estimate_each, estimate_time
from jsc_explore.jobs.limits import LIMITS, UNLIMITED, Limits
from jsc_explore.jobs.queue import INTERACTIVE, Queue
from jsc_explore.store import Store


@dataclass(frozen=True)
class Requester:
    """Who submits: the session that the queue counts by, its limits, why it may not train, and its address.

    ``session`` is a random name, not a person's. With an empty ``refusal`` the requester may train. ``address`` stands
    for the visitor's network address, whose limits count; empty for a command and for the person who runs the app.
    """

    session: str
    limits: Limits = LIMITS
    refusal: str = ""
    address: str = ""


# Who has a shell can use the whole machine anyway: no limits, no confirmation.
TRUSTED = Requester("command line", UNLIMITED)


@dataclass(frozen=True)
class Submission:
    """The result of a request as run ids: all in the given order, stored ones, newly queued ones, joined ones."""

    run_ids: list[str]
    stored: list[str]
    queued: list[str]
    joined: list[str]


def identify(runs: Iterable[RunConfig]) -> dict[str, tuple[str, RunConfig]]:
    """Return run_id -> (config_id, run in canonical form) without duplicates.

    Raises DataError if a data set must be fetched first.
    """
    identified = {}
    for run in runs:
        digest = data.digest(run.dataset)
        identified[run.run_id(digest)] = (run.config_id(digest), run.canonical_form)
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
    """Queue those of ``runs`` that are neither stored nor active; a run is never trained twice.

    Raises, with nothing changed: NotAllowedError (the requester may not train, or this process is read only),
    UnconfirmedError (the missing runs take longer than ``limits.confirm_s`` and the request is not confirmed),
    FieldError (the missing runs exceed a limit).
    """
    # A read-only process submits nothing, whatever rights the requester claims.
    access = Access.from_environment()
    if refusal := requester.refusal or (access.refusal() if access.read_only else ""):
        raise NotAllowedError(refusal)
    wanted = identify(runs)
    store.refresh()
    stored = store.existing(wanted)
    missing = {run_id: pair for run_id, pair in wanted.items() if run_id not in stored}
    if missing and not confirmed:
        _check_duration(store, queue, missing, requester.limits)
    new: list[str] = []
    if missing:
        seconds = estimate_each(store, [run for _, run in missing.values()])
        expected_s = dict(zip(missing, seconds, strict=True))
        new = queue.request(
            missing, priority, requester.session, requester.limits, address=requester.address, expected_s=expected_s
        )
    queued = set(new)
    return Submission(list(wanted), sorted(stored), new, [run_id for run_id in missing if run_id not in queued])


def _check_duration(store: Store, queue: Queue, missing: dict[str, tuple[str, RunConfig]], limits: Limits) -> None:
    """Raise UnconfirmedError if the missing runs that are not active take longer than ``limits.confirm_s``."""
    if limits.confirm_s is None:
        return
    active = {i for i, state in queue.states(list(missing)).items() if state in ("queued", "running")}
    new = [run for run_id, (_, run) in missing.items() if run_id not in active]
    expected = estimate_time(store, new)
    if expected.seconds > limits.confirm_s:
        raise UnconfirmedError(len(new), expected.seconds, expected.duration)
