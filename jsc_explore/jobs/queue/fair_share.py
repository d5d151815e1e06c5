"""Fair share: check a request's limits and schedule its runs, within the transaction that enters the request."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.jobs.limits import Limits

INTERACTIVE, BULK = 0, 1
# A run that is expected to take longer is bulk, whoever requests it: the worker that trains it is not free for others
# in the meantime. Most cells of the page's grids take less.
MAX_INTERACTIVE_S = 10.0
# Seconds over which the cells that an address requests are counted.
_RATE_S = 60.0


@dataclass(frozen=True)
class Origin:
    """Who requests runs: the session that takes turns with others, and its network address, empty if not counted."""

    session: str = ""
    address: str = ""


def enqueue(
    db: sqlite3.Connection,
    runs: Mapping[str, tuple[str, RunConfig]],
    priority: int,
    origin: Origin,
    limits: Limits,
    expected_s: Mapping[str, float],
) -> list[str]:
    """Enter a request within the caller's transaction; return the ids of new runs. FieldError beyond the limits.

    ``expected_s`` maps run ids to the expected seconds of training; a run that it lacks counts as short.
    """
    priorities = {i: BULK if expected_s.get(i, 0.0) > MAX_INTERACTIVE_S else priority for i in runs}
    rows = db.execute(
        "SELECT run_id, state, priority FROM requests WHERE state IN ('queued', 'running') "
        "AND run_id IN (SELECT value FROM json_each(?))",
        [json.dumps(list(runs))],
    )
    active = {run_id: (state, old_priority) for run_id, state, old_priority in rows}
    promoted = {run_id for run_id, (state, old) in active.items() if state == "queued" and old > priorities[run_id]}
    added = [run_id for run_id in runs if run_id not in active or run_id in promoted]
    check_limits(db, {run_id: runs[run_id] for run_id in added}, origin, limits)
    db.executemany(
        "UPDATE requests SET cancel = 0, priority = min(priority, ?) WHERE run_id = ?",
        [(priorities[run_id], run_id) for run_id in runs if run_id in active and run_id not in promoted],
    )
    (position,) = db.execute("SELECT coalesce(max(position), 0) FROM requests").fetchone()
    start_times = {one: virtual_start_time(db, one, origin.session) for one in set(priorities.values())}
    # One time for the whole request, since the page groups runs by it.
    now = time.time()
    for i, run_id in enumerate(added):
        own = priorities[run_id]
        place = (own, position + 1 + i, start_times[own], origin.session, origin.address, expected_s.get(run_id, 0.0))
        start_times[own] += 1
        if run_id in promoted:
            db.execute(
                "UPDATE requests SET priority = ?, position = ?, virtual_start = ?, session = ?, address = ?, "
                "expected_s = ?, cancel = 0 WHERE run_id = ?",
                [*place, run_id],
            )
        else:
            _insert(db, run_id, *runs[run_id], now, place)
    db.executemany("INSERT OR IGNORE INTO requesters VALUES (?, ?)", [(run_id, origin.session) for run_id in runs])
    return [run_id for run_id in added if run_id not in promoted]


def _insert(
    db: sqlite3.Connection, run_id: str, config_id: str, run: RunConfig, now: float, place: tuple[object, ...]
) -> None:
    for table in ("points", "requesters"):
        db.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])
    db.execute(
        """
        INSERT INTO requests (run_id, config_id, config, state, requested_at, epochs, cause,
          priority, position, virtual_start, session, address, expected_s)
        VALUES (?, ?, ?, 'queued', ?, ?, 'requested', ?, ?, ?, ?, ?, ?)
        ON CONFLICT (run_id) DO UPDATE SET state = 'queued', priority = excluded.priority,
          position = excluded.position, virtual_start = excluded.virtual_start, session = excluded.session,
          address = excluded.address, expected_s = excluded.expected_s,
          requested_at = excluded.requested_at, attempt = attempt + 1, cause = 'requested again',
          cancel = 0, step = 0, started_at = NULL, finished_at = NULL, error = NULL
        """,
        [run_id, config_id, json.dumps(run.to_dict()), now, run.max_epochs, *place],
    )


def check_limits(
    db: sqlite3.Connection, added: Mapping[str, tuple[str, RunConfig]], origin: Origin, limits: Limits
) -> None:
    """Raise FieldError if adding these runs would exceed a limit of the session, its address, or all sessions."""
    if not added:
        return
    epochs = sum(run.max_epochs for _, run in added.values())
    for subject, condition, values, max_runs, max_epochs in (
        ("you", " AND session = ?", [origin.session], limits.session_runs, limits.session_epochs),
        (
            "all users at your address together",
            " AND address = ?",
            [origin.address],
            limits.address_runs if origin.address else None,
            limits.address_epochs if origin.address else None,
        ),
        ("all users together", "", [], limits.total_runs, limits.total_epochs),
    ):
        if max_runs is None and max_epochs is None:
            continue
        active_runs, active_epochs = db.execute(
            f"SELECT count(*), total(epochs) FROM requests WHERE state IN ('queued', 'running'){condition}", values
        ).fetchone()
        _check_limit("runs", len(added), active_runs, max_runs, subject)
        _check_limit("epochs", epochs, int(active_epochs), max_epochs, subject)
    if origin.address and limits.address_cells is not None:
        (recent,) = db.execute(
            "SELECT count(DISTINCT config_id) FROM requests WHERE address = ? AND requested_at > ?",
            [origin.address, time.time() - _RATE_S],
        ).fetchone()
        cells = len({config_id for config_id, _ in added.values()})
        if recent + cells > limits.address_cells:
            rule = (
                f"with {recent:,} in the last {_RATE_S:.0f} s, all users at your address together may request at most "
                f"{limits.address_cells:,} cells in that time"
            )
            raise FieldError("cells", cells, rule, "wait a minute, or request fewer")


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
