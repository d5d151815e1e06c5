"""Who may ask for how much, and whose turn it is: part of the transaction in which the queue enters a request."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.jobs.limits import Limits

INTERACTIVE, BULK = 0, 1
_WAIT = "wait until some are done, cancel some, or ask for fewer"


def enter(
    db: sqlite3.Connection,
    runs: Mapping[str, tuple[str, RunConfig]],
    priority: int,
    session: str,
    limits: Limits,
) -> list[str]:
    """Enter a request within a transaction; return the runs that are new. FieldError beyond the limits."""
    found = db.execute(
        "SELECT run_id, state, priority FROM requests WHERE state IN ('queued', 'running') "
        "AND run_id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(runs))],
    )
    active = {run_id: (state, of) for run_id, state, of in found}
    lifted = {run_id for run_id, (state, of) in active.items() if state == "queued" and of > priority}
    added = [run_id for run_id in runs if run_id not in active or run_id in lifted]
    check(db, [runs[run_id][1] for run_id in added], session, limits)
    db.executemany(
        "UPDATE requests SET cancel = 0, priority = min(priority, ?) WHERE run_id = ?",
        [(priority, run_id) for run_id in runs if run_id in active and run_id not in lifted],
    )
    position, start_time = virtual_start_time(db, priority, session)
    # One moment for all: what was asked for together is shown together.
    now = time.time()
    for i, run_id in enumerate(added, start=1):
        order = (priority, position + i, start_time + i, session)
        if run_id in lifted:
            db.execute(
                "UPDATE requests SET priority = ?, position = ?, turn = ?, session = ?, cancel = 0 WHERE run_id = ?",
                [*order, run_id],
            )
        else:
            _queue(db, run_id, *runs[run_id], now, order)
    return [run_id for run_id in added if run_id not in lifted]


def _queue(
    db: sqlite3.Connection, run_id: str, config_id: str, run: RunConfig, now: float, order: tuple[int, int, int, str]
) -> None:
    db.execute("DELETE FROM points WHERE run_id = ?", [run_id])
    db.execute(
        """
        INSERT INTO requests (run_id, config_id, config, state, requested_at, epochs, cause,
          priority, position, turn, session)
        VALUES (?, ?, ?, 'queued', ?, ?, 'asked for', ?, ?, ?, ?)
        ON CONFLICT (run_id) DO UPDATE SET state = 'queued', priority = excluded.priority,
          position = excluded.position, turn = excluded.turn, session = excluded.session,
          requested_at = excluded.requested_at, attempt = attempt + 1, cause = 'asked for again',
          cancel = 0, step = 0, started_at = NULL, finished_at = NULL, error = NULL
        """,
        [run_id, config_id, json.dumps(run.to_dict()), now, run.max_epochs, *order],
    )


def check(db: sqlite3.Connection, added: Iterable[RunConfig], session: str, limits: Limits) -> None:
    """Raise FieldError if these further runs would exceed what a session, or all together, may have waiting."""
    runs = list(added)
    if not runs:
        return
    epochs = sum(run.max_epochs for run in runs)
    for whose, condition, values, most_runs, most_epochs in (
        ("you", " AND session = ?", [session], limits.session_runs, limits.session_epochs),
        ("all together", "", [], limits.total_runs, limits.total_epochs),
    ):
        if most_runs is None and most_epochs is None:
            continue
        has_runs, has_epochs = db.execute(
            f"SELECT count(*), total(epochs) FROM requests WHERE state IN ('queued', 'running'){condition}", values
        ).fetchone()
        _within("runs", len(runs), has_runs, most_runs, whose)
        _within("epochs", epochs, int(has_epochs), most_epochs, whose)


def _within(what: str, more: int, has: int, most: int | None, whose: str) -> None:
    if most is not None and has + more > most:
        unit = "runs" if what == "runs" else "epochs over all runs"
        rule = f"with {has:,} under way, {whose} may have at most {most:,} {unit} waiting or under way"
        raise FieldError(what, more, rule, _WAIT)


def virtual_start_time(db: sqlite3.Connection, priority: int, session: str) -> tuple[int, int]:
    """Return the last position given to any run, and the turn before the next of this session.

    Turns are start-time fair queueing (Goyal et al., 1996) with a run as the unit: a session's next turn follows its
    own last, and never lies before the turn that is now due, so nobody saves up turns by being silent.
    """
    (position,) = db.execute("SELECT coalesce(max(position), 0) FROM requests").fetchone()
    (due,) = db.execute("SELECT min(turn) FROM requests WHERE state = 'queued' AND priority = ?", [priority]).fetchone()
    (own,) = db.execute(
        "SELECT max(turn) FROM requests WHERE state = 'queued' AND session = ? AND priority = ?", [session, priority]
    ).fetchone()
    return position, max((due or 1) - 1, own or 0)
