"""Fair share: check a request's limits and schedule its runs, within the transaction that enters the request."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.jobs.limits import Limits

INTERACTIVE, BULK = 0, 1


def enqueue(
    db: sqlite3.Connection, runs: Mapping[str, tuple[str, RunConfig]], priority: int, session: str, limits: Limits
) -> list[str]:
    """Enter a request within the caller's transaction; return the ids of new runs. FieldError beyond the limits."""
    rows = db.execute(
        "SELECT run_id, state, priority FROM requests WHERE state IN ('queued', 'running') "
        "AND run_id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(runs))],
    )
    active = {run_id: (state, old_priority) for run_id, state, old_priority in rows}
    promoted = {run_id for run_id, (state, old) in active.items() if state == "queued" and old > priority}
    added = [run_id for run_id in runs if run_id not in active or run_id in promoted]
    check_limits(db, [runs[run_id][1] for run_id in added], session, limits)
    db.executemany(
        "UPDATE requests SET cancel = 0, priority = min(priority, ?) WHERE run_id = ?",
        [(priority, run_id) for run_id in runs if run_id in active and run_id not in promoted],
    )
    (position,) = db.execute("SELECT coalesce(max(position), 0) FROM requests").fetchone()
    start_time = virtual_start_time(db, priority, session)
    # One time for the whole request, since the page groups runs by it.
    now = time.time()
    for i, run_id in enumerate(added):
        place = (priority, position + 1 + i, start_time + i, session)
        if run_id in promoted:
            db.execute(
                "UPDATE requests SET priority = ?, position = ?, virtual_start = ?, session = ?, cancel = 0 "
                "WHERE run_id = ?",
                [*place, run_id],
            )
        else:
            _insert(db, run_id, *runs[run_id], now, place)
    db.executemany("INSERT OR IGNORE INTO requesters VALUES (?, ?)", [(run_id, session) for run_id in runs])
    return [run_id for run_id in added if run_id not in promoted]


def _insert(
    db: sqlite3.Connection, run_id: str, config_id: str, run: RunConfig, now: float, place: tuple[int, int, int, str]
) -> None:
    for table in ("points", "requesters"):
        db.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
    db.execute(
        """
        INSERT INTO requests (run_id, config_id, config, state, requested_at, epochs, cause,
          priority, position, virtual_start, session)
        VALUES (?, ?, ?, 'queued', ?, ?, 'requested', ?, ?, ?, ?)
        ON CONFLICT (run_id) DO UPDATE SET state = 'queued', priority = excluded.priority,
          position = excluded.position, virtual_start = excluded.virtual_start, session = excluded.session,
          requested_at = excluded.requested_at, attempt = attempt + 1, cause = 'requested again',
          cancel = 0, step = 0, started_at = NULL, finished_at = NULL, error = NULL
        """,
        [run_id, config_id, json.dumps(run.to_dict()), now, run.max_epochs, *place],
    )


def check_limits(db: sqlite3.Connection, added: Iterable[RunConfig], session: str, limits: Limits) -> None:
    """Raise FieldError if adding these runs would exceed a limit of the session or of all sessions together."""
    runs = list(added)
    if not runs:
        return
    epochs = sum(run.max_epochs for run in runs)
    for subject, condition, values, max_runs, max_epochs in (
        ("you", " AND session = ?", [session], limits.session_runs, limits.session_epochs),
        ("all users together", "", [], limits.total_runs, limits.total_epochs),
    ):
        if max_runs is None and max_epochs is None:
            continue
        active_runs, active_epochs = db.execute(
            f"SELECT count(*), total(epochs) FROM requests WHERE state IN ('queued', 'running'){condition}", values
        ).fetchone()
        _check_limit("runs", len(runs), active_runs, max_runs, subject)
        _check_limit("epochs", epochs, int(active_epochs), max_epochs, subject)


def _check_limit(field: str, added: int, active: int, limit: int | None, subject: str) -> None:
    if limit is not None and active + added > limit:
        unit = "runs" if field == "runs" else "epochs over all runs"
        rule = f"with {active:,} queued or running, {subject} may have at most {limit:,} {unit} queued or running"
        raise FieldError(field, added, rule, "wait until some are done, cancel some, or request fewer")


def virtual_start_time(db: sqlite3.Connection, priority: int, session: str) -> int:
    """Return the virtual start time of a session's next run: start-time fair queueing (Goyal et al., 1996).

    The unit of service is a run. The start time follows the session's own last one and is never earlier than that of
    the next waiting run: an idle session saves up nothing.
    """
    (next_start,) = db.execute(
        "SELECT min(virtual_start) FROM requests WHERE state = 'queued' AND priority = ?", [priority]
    ).fetchone()
    (own_last,) = db.execute(
        "SELECT max(virtual_start) FROM requests WHERE state = 'queued' AND session = ? AND priority = ?",
        [session, priority],
    ).fetchone()
    return max(next_start or 1, (own_last or 0) + 1)
