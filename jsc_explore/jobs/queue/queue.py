"""The queue: requests, live points and cancel flags in SQLite, shared by all apps and commands and the one engine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.limits import UNLIMITED, Limits
from jsc_explore.jobs.queue import fair_share
from jsc_explore.jobs.queue.fair_share import BULK, INTERACTIVE, Origin
from jsc_explore.jobs.queue.schema import Transition, create_tables, drop_old_transitions
from jsc_explore.results import Point
from jsc_explore.store.database import open_database, remedy
from jsc_explore.store.directory import StoreDirectory, open_directory

# queued -> running -> done | diverged | failed | cancelled; a run that ended is queued again by a new request.
ACTIVE = ("queued", "running")
ENDED = ("done", "diverged", "failed", "cancelled")
# Waiting runs that the engine reads at once: enough to fill many stacks, few enough to read quickly.
LOOK_AHEAD = 5000

_JOB_COLUMNS = (
    "run_id, config_id, config, state, priority, attempt, cancel, step, total_steps, requested_at, started_at, "
    "finished_at, error, session, address, expected_s, "
    "(SELECT group_concat(r.session, char(10)) FROM requesters AS r WHERE r.run_id = requests.run_id)"
)
# The cause of a transition without an error; with an error it is the traceback's last line, cut to MAX_CAUSE.
_CAUSES = {
    "done": "trained and stored",
    "diverged": "loss or weights became infinite or NaN",
    "failed": "no reason given",
    "cancelled": "cancelled",
}
MAX_CAUSE = 300
# The engine writes a heartbeat every second; on a busy machine it may be late.
HEARTBEAT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Job:
    """A requested run and its progress. Times are seconds since the epoch; ``error`` holds a traceback.

    ``session`` is the random name of the session that requested it first, ``address`` stands for that session's network
    address, ``requesters`` are the names of all sessions that requested it;
    ``expected_s`` are the seconds that its training was expected to take when it was requested, 0 if unknown.
    """

    run_id: str
    config_id: str
    config: RunConfig
    state: str
    priority: int
    attempt: int
    cancel: bool
    step: int
    total_steps: int
    requested_at: float
    started_at: float | None
    finished_at: float | None
    error: str | None
    session: str = ""
    address: str = ""
    expected_s: float = 0.0
    requesters: frozenset[str] = frozenset()

    @property
    def share_done(self) -> float:
        """Finished steps over all steps, in [0, 1]."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else 0.0


@dataclass(frozen=True)
class EngineState:
    """The engine's last heartbeat: process id, age in seconds, a message about a problem (empty if there is none)."""

    pid: int
    heartbeat_age_s: float
    message: str

    @property
    def is_alive(self) -> bool:
        """Whether the last heartbeat is recent."""
        return self.heartbeat_age_s < HEARTBEAT_TIMEOUT_S


class Queue:
    """The requests of one store.

    Contract, tested by ``tests/unit/test_queue_contract.py``:

    - Each run is queued once; a further request for an active run joins it.
    - States move forward only: queued, running, then done, failed, cancelled or diverged. A run returns to ``queued``
      when it is requested again after its end, or when its worker is lost; both increase ``attempt``.
    - Each transition is recorded with its time and cause (``history``), in the same transaction.
    - A run that is expected to take longer than ``MAX_INTERACTIVE_S`` is bulk, also if an interactive request asks for
      it.
    - A request is accepted whole or not at all: limits are checked in the transaction that enters it.
    - Interactive runs come before bulk ones. Within a priority sessions alternate, one run each; within a session the
      oldest run comes first. So a small request never waits for the whole of a large one.
    - Points and states are written in one transaction; ``live`` reads both in one.
    - A run is marked done only after it is stored: a reader of ``done`` finds it in the store.

    All methods are safe for threads and processes. StoreError if the disk is full, the file is damaged or has another
    version: then nothing was changed.
    """

    def __init__(self, directory: Path | StoreDirectory) -> None:
        self.home = open_directory(directory)
        self.path = self.home.path / "queue.sqlite"
        self._lock = threading.RLock()
        try:
            self._db = open_database(self.path, "NORMAL")
            create_tables(self._db, self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"queue {self.path}: cannot be opened ({error}); " + remedy(error, "choose another with --store")
            ) from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def request(
        self,
        runs: Mapping[str, tuple[str, RunConfig]],
        priority: int = INTERACTIVE,
        session: str = "",
        limits: Limits = UNLIMITED,
        *,
        address: str = "",
        expected_s: Mapping[str, float] | None = None,
    ) -> list[str]:
        """Queue runs, given as run_id -> (config_id, run); return the ids of new ones, the others are joined.

        A run that ended is queued again with a higher attempt number. An interactive request promotes a waiting bulk
        run, which then belongs to this session. ``address`` stands for the network address whose limits count, empty
        for none; ``expected_s`` maps run ids to the expected seconds of training. FieldError, with nothing changed,
        beyond ``limits``.
        """
        with self._transaction() as db:
            new = fair_share.enqueue(db, runs, priority, Origin(session, address), limits, expected_s or {})
            drop_old_transitions(db)
        return new

    def cancel(self, run_ids: Iterable[str], session: str | None = None) -> None:
        """Cancel active runs: queued ones at once, running ones when the engine next reads the queue.

        A ``session`` withdraws its own requests: a run that another session requested, too, goes on, and so does one
        that this session never requested. None cancels whoever requested them.
        """
        with self._transaction() as db:
            for run_id in run_ids:
                if session is not None and not _withdraw(db, run_id, session):
                    continue
                db.execute(
                    "UPDATE requests SET state = 'cancelled', finished_at = ?, cause = 'cancelled while queued' "
                    "WHERE run_id = ? AND state = 'queued'",
                    [time.time(), run_id],
                )
                db.execute("UPDATE requests SET cancel = 1 WHERE run_id = ? AND state = 'running'", [run_id])

    def jobs(self, states: Sequence[str] = (*ACTIVE, *ENDED), since: float = 0.0) -> list[Job]:
        """Return the jobs in these states: running ones first, then in the order in which they are started.

        ``since`` leaves out jobs that ended before that time (seconds since the epoch).
        """
        placeholders = ", ".join("?" * len(states))
        rows = self._read(
            f"SELECT {_JOB_COLUMNS} FROM requests WHERE state IN ({placeholders}) AND coalesce(finished_at, 1e18) >= ? "
            "ORDER BY state != 'running', priority, virtual_start, position",
            [*states, since],
        )
        return [_job(row) for row in rows]

    def ended(self, limit: int) -> list[Job]:
        """Return the jobs that ended last, at most ``limit``, newest first."""
        rows = self._read(
            f"SELECT {_JOB_COLUMNS} FROM requests WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT ?",
            [limit],
        )
        return [_job(row) for row in rows]

    def states(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Return the states of those of these runs that were ever requested."""
        rows = self._read(
            "SELECT run_id, state FROM requests WHERE run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(run_ids))],
        )
        return {str(run_id): str(state) for run_id, state in rows}

    def find(self, prefix: str) -> list[str]:
        """Return the ids, at most ten, of runs with a history that begin with ``prefix``."""
        rows = self._read(
            "SELECT DISTINCT run_id FROM transitions WHERE substr(run_id, 1, ?) = ? ORDER BY run_id LIMIT 10",
            [len(prefix), prefix],
        )
        return [str(run_id) for (run_id,) in rows]

    def history(self, run_id: str) -> list[Transition]:
        """Return the transitions of a run that are still kept, oldest first."""
        rows = self._read(
            'SELECT run_id, attempt, "from", "to", at, cause FROM transitions WHERE run_id = ? ORDER BY seq', [run_id]
        )
        return [Transition(*row) for row in rows]

    def live(self, after: Mapping[str, int] | None = None) -> tuple[list[Job], dict[str, list[Point]]]:
        """Return the active jobs and the points of the running ones by run id, read in one transaction.

        ``after`` maps a run id to the step of the last point that the caller has: only later points are returned.
        """
        with self._transaction(write=False):
            jobs = self.jobs(ACTIVE)
            rows = self._read(
                "SELECT points.run_id, point FROM points JOIN requests USING (run_id) "
                "LEFT JOIN json_each(?) AS known ON known.key = points.run_id "
                "WHERE state = 'running' AND points.step > coalesce(known.value, -1) "
                "ORDER BY points.run_id, points.step",
                [json.dumps(after or {})],
            )
        points: dict[str, list[Point]] = {}
        for run_id, text in rows:
            points.setdefault(run_id, []).append(dict(_point(text)))
        return jobs, points

    def progress(self, run_ids: Sequence[str]) -> tuple[int, float]:
        """Return how many of these runs are active, and the sum of their finished shares."""
        ((active, done),) = self._read(
            "SELECT count(*), total(CASE WHEN total_steps THEN min(1.0, 1.0 * step / total_steps) ELSE 0 END) "
            "FROM requests WHERE state IN ('queued', 'running') AND run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(run_ids))],
        )
        return int(active), float(done)

    # ---- for the engine

    def has_waiting(self) -> bool:
        """Return whether any run is queued."""
        return bool(self._read("SELECT 1 FROM requests WHERE state = 'queued' LIMIT 1"))

    def waiting(
        self,
        priority: int = BULK,
        limit: int = LOOK_AHEAD,
        *,
        sessions_left_out: Collection[str] = (),
        addresses_left_out: Collection[str] = (),
    ) -> list[Job]:
        """Return the runs to start next, of this priority or a more urgent one, in fair-share order."""
        rows = self._read(
            f"SELECT {_JOB_COLUMNS} FROM requests WHERE state = 'queued' AND priority <= ? "
            "AND session NOT IN (SELECT value FROM json_each(?)) AND address NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY priority, virtual_start, position LIMIT ?",
            [priority, json.dumps(list(sessions_left_out)), json.dumps(list(addresses_left_out)), limit],
        )
        return [_job(row) for row in rows]

    def cancelling(self) -> set[str]:
        """Return the running runs whose cancellation was requested."""
        rows = self._read("SELECT run_id FROM requests WHERE state = 'running' AND cancel = 1")
        return {str(run_id) for (run_id,) in rows}

    def start(self, run_ids: Iterable[str]) -> set[str]:
        """Mark queued runs as running and return them; one that was cancelled meanwhile is left out."""
        with self._transaction() as db:
            return {
                run_id
                for run_id in run_ids
                if db.execute(
                    "UPDATE requests SET state = 'running', started_at = ?, cause = 'started by the engine' "
                    "WHERE run_id = ? AND state = 'queued'",
                    [time.time(), run_id],
                ).rowcount
            }

    def record_progress(self, points: Sequence[tuple[str, Point]], progress: Mapping[str, tuple[int, int]]) -> None:
        """Add points of running runs and set their optimizer steps, given as run_id -> (step, total_steps)."""
        if not points and not progress:
            return
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO points "
                "SELECT run_id, ?, ? FROM requests WHERE run_id = ? AND state = 'running'",
                [(point["step"], json.dumps(point), run_id) for run_id, point in points],
            )
            db.executemany(
                "UPDATE requests SET step = ?, total_steps = ? WHERE run_id = ? AND state = 'running'",
                [(step, total, run_id) for run_id, (step, total) in progress.items()],
            )

    def finish(self, run_id: str, state: str, error: str | None = None) -> None:
        """Set an active run's final state and drop its live points, unless it failed: a stored run has them all."""
        last = (error or "").strip().splitlines()[-1:]
        cause = last[0][:MAX_CAUSE] if last else _CAUSES[state]
        with self._transaction() as db:
            db.execute(
                "UPDATE requests SET state = ?, finished_at = ?, error = ?, cancel = 0, cause = ? WHERE run_id = ? "
                "AND state IN ('queued', 'running')",
                [state, time.time(), error, cause, run_id],
            )
            if state != "failed":
                db.execute("DELETE FROM points WHERE run_id = ?", [run_id])

    def requeue(self, run_ids: Iterable[str], cause: str = "training was lost") -> None:
        """Queue running runs again whose training was lost, with a higher attempt number.

        A run whose cancellation was requested, and that was not requested again since, is cancelled instead.
        """
        now = time.time()
        with self._transaction() as db:
            for run_id in run_ids:
                db.execute(
                    "UPDATE requests SET state = 'cancelled', cancel = 0, finished_at = ?, cause = 'cancelled' "
                    "WHERE run_id = ? AND state = 'running' AND cancel = 1",
                    [now, run_id],
                )
                db.execute(
                    "UPDATE requests SET state = 'queued', attempt = attempt + 1, started_at = NULL, cause = ? "
                    "WHERE run_id = ? AND state = 'running'",
                    [cause, run_id],
                )
                db.execute(
                    "DELETE FROM points WHERE run_id = ? AND run_id IN "
                    "(SELECT run_id FROM requests WHERE state = 'cancelled')",
                    [run_id],
                )

    def set_heartbeat(self, pid: int, message: str = "") -> None:
        """Record that the engine is alive, with a message about its problem, if any."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO engine VALUES (1, ?, ?, ?)", [pid, time.time(), message])

    def clear_heartbeat(self) -> None:
        """Record that the engine has stopped."""
        with self._transaction() as db:
            db.execute("DELETE FROM engine")

    def engine(self) -> EngineState | None:
        """Return the engine's last heartbeat; None if the engine stopped."""
        rows = self._read("SELECT pid, heartbeat_at, message FROM engine")
        return EngineState(rows[0][0], max(0.0, time.time() - rows[0][1]), rows[0][2]) if rows else None

    def record_visit(self) -> None:
        """Record that somebody looks at a page now."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO visit VALUES (1, ?)", [time.time()])

    def visited_at(self) -> float:
        """Return when somebody last looked at a page, in seconds since the epoch; 0 for never."""
        rows = self._read("SELECT at FROM visit")
        return float(rows[0][0]) if rows else 0.0

    # ----

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        self.home.check()
        # IMMEDIATE takes the write lock at once: upgrading a read transaction could fail as busy.
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield self._db
                except BaseException:
                    # After a full disk SQLite has rolled back already; a second ROLLBACK would hide the reason.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(
                    f"queue {self.path}: cannot be written ({error}); nothing was changed, "
                    + remedy(error, "try again")
                ) from error

    def _read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        self.home.check()
        with self._lock:
            try:
                return self._db.execute(text, list(values)).fetchall()
            except sqlite3.Error as error:
                raise StoreError(
                    f"queue {self.path}: cannot be read ({error}); " + remedy(error, "try again")
                ) from error


def _withdraw(db: sqlite3.Connection, run_id: str, session: str) -> bool:
    """Withdraw a session's request for a run; return whether it was the only one."""
    withdrawn = db.execute("DELETE FROM requesters WHERE run_id = ? AND session = ?", [run_id, session]).rowcount
    return bool(withdrawn) and not db.execute("SELECT 1 FROM requesters WHERE run_id = ?", [run_id]).fetchone()


def _job(row: tuple[Any, ...]) -> Job:
    run_id, config_id, config, state, priority, attempt, cancel, *rest, requesters = row
    rest.append(frozenset(requesters.split("\n")) if requesters else frozenset())
    return Job(run_id, config_id, _config(config), state, priority, attempt, bool(cancel), *rest)


@lru_cache(maxsize=100_000)
def _point(text: str) -> Point:
    # Cached: a growing curve is read several times a second, and only its newest points are new.
    point: Point = json.loads(text)
    return point


@lru_cache(maxsize=10_000)
def _config(text: str) -> RunConfig:
    # Cached: the same jobs are read several times a second, and validating a config takes longer than reading it.
    return RunConfig.from_dict(json.loads(text))
