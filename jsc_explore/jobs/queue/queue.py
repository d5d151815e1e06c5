"""The queue: requests, live points and cancel flags in SQLite, shared by every app, command and the one engine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.jobs.limits import UNLIMITED, Limits
from jsc_explore.jobs.queue import fair_share
from jsc_explore.jobs.queue.fair_share import BULK, INTERACTIVE
from jsc_explore.jobs.queue.schema import Transition, prepare, trim
from jsc_explore.results import Point
from jsc_explore.store.database import open_database

__all__ = ["ACTIVE", "BULK", "ENDED", "INTERACTIVE", "EngineState", "Job", "Queue", "Transition"]

# queued -> running -> done | diverged | failed | cancelled; whatever ended goes back to queued when asked for again.
ACTIVE = ("queued", "running")
ENDED = ("done", "diverged", "failed", "cancelled")
# The engine looks this far ahead: enough to fill many stacks, little enough to read while others wait.
LOOK_AHEAD = 5000

_JOB_COLUMNS = (
    "run_id, config_id, config, state, priority, attempt, cancel, step, total_steps, requested_at, started_at, "
    "finished_at, error, session"
)
# What a move is said to come from when nothing else is known; a traceback's last line otherwise, this long at most.
_CAUSES = {
    "done": "trained and stored",
    "diverged": "its numbers left the finite ones",
    "failed": "no reason given",
    "cancelled": "cancelled",
}
MAX_CAUSE = 300
# The engine beats every second; a machine under load may be late.
ENGINE_SILENT_AFTER_S = 10.0


@dataclass(frozen=True)
class Job:
    """One requested run and how far it is. Times are seconds since the epoch; ``error`` holds a traceback.

    ``session`` names who asked first: a random name, no person.
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

    @property
    def share_done(self) -> float:
        """Steps done over steps to do, in [0, 1]."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else 0.0


@dataclass(frozen=True)
class EngineState:
    """What the engine last said of itself: process, seconds since, a message for the page (empty: all is well)."""

    pid: int
    silent_s: float
    message: str

    @property
    def alive(self) -> bool:
        """Whether it spoke recently."""
        return self.silent_s < ENGINE_SILENT_AFTER_S


class Queue:
    """The requests of one store.

    Contract, held by ``tests/unit/test_queue_contract.py``:

    - A run is requested once however often and by whomever it is asked for; whoever asks again joins it.
    - States move forward only: queued, running, then done, failed, cancelled or diverged. Back to ``queued`` leads a
      new request for a run that ended, or the loss of a running one's training; the attempt number counts both.
    - Every move is recorded with its time and cause (``history``), in the transaction that makes it.
    - A request is admitted whole or not at all: its limits are checked in the transaction that enters it.
    - Urgent runs come before others. Within a priority sessions take turns, a run each; within a session the oldest
      comes first. Who has little to ask for never waits for all of one who asks for much.
    - Points and states are written in one transaction; ``live`` reads both as of one moment.
    - A run is marked done only after it is stored; whoever reads ``done`` finds it in the store.

    Every method may be called from any thread and process. StoreError if the disk is full or the file is damaged: then
    nothing was changed.
    """

    def __init__(self, directory: Path) -> None:
        self.path = Path(directory) / "queue.sqlite"
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = open_database(self.path, "NORMAL")
            prepare(self._db)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"queue {self.path}: cannot be opened ({error}); choose another with --store") from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def request(
        self,
        runs: Mapping[str, tuple[str, RunConfig]],
        priority: int = INTERACTIVE,
        session: str = "",
        limits: Limits = UNLIMITED,
    ) -> list[str]:
        """Ask for runs, given as run_id -> (config_id, run); return the ids that are new, the others are joined.

        A run that ended is queued again with its attempt number raised; a request of more urgent priority lifts a
        waiting one, which then counts as this session's. FieldError, with nothing changed, beyond ``limits``.
        """
        with self._transaction() as db:
            new = fair_share.enter(db, runs, priority, session, limits)
            trim(db)
        return new

    def cancel(self, run_ids: Iterable[str]) -> None:
        """Cancel: waiting runs at once, running ones as soon as the engine looks up. Others stay as they are."""
        with self._transaction() as db:
            for run_id in run_ids:
                db.execute(
                    "UPDATE requests SET state = 'cancelled', finished_at = ?, cause = 'cancelled while it waited' "
                    "WHERE run_id = ? AND state = 'queued'",
                    [time.time(), run_id],
                )
                db.execute("UPDATE requests SET cancel = 1 WHERE run_id = ? AND state = 'running'", [run_id])

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop ended requests, for instance failures that were read. Active ones stay."""
        with self._transaction() as db:
            for run_id in run_ids:
                db.execute(
                    "DELETE FROM requests WHERE run_id = ? AND state IN ('failed', 'cancelled', 'done', 'diverged')",
                    [run_id],
                )

    def jobs(self, states: Sequence[str] = (*ACTIVE, *ENDED), since: float = 0.0) -> list[Job]:
        """Return jobs in these states, in the order in which they will be or were taken.

        ``since`` leaves out those that ended before that time (seconds since the epoch).
        """
        marks = ", ".join("?" * len(states))
        rows = self._read(
            f"SELECT {_JOB_COLUMNS} FROM requests WHERE state IN ({marks}) AND coalesce(finished_at, 1e18) >= ? "
            "ORDER BY state != 'running', priority, turn, position",
            [*states, since],
        )
        return [_job(row) for row in rows]

    def states(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Return the state of each of these runs that was ever requested."""
        rows = self._read(
            "SELECT run_id, state FROM requests WHERE run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(run_ids))],
        )
        return {str(run_id): str(state) for run_id, state in rows}

    def find(self, prefix: str) -> list[str]:
        """Return the runs with a history whose id begins with these characters, at most ten."""
        rows = self._read(
            "SELECT DISTINCT run_id FROM moves WHERE substr(run_id, 1, ?) = ? ORDER BY run_id LIMIT 10",
            [len(prefix), prefix],
        )
        return [str(run_id) for (run_id,) in rows]

    def history(self, run_id: str) -> list[Transition]:
        """Return what happened to a run, oldest first: every move between states that is still kept."""
        rows = self._read(
            'SELECT run_id, attempt, "from", "to", at, cause FROM moves WHERE run_id = ? ORDER BY seq', [run_id]
        )
        return [Transition(*row) for row in rows]

    def live(self, after: Mapping[str, int] | None = None) -> tuple[list[Job], dict[str, list[Point]]]:
        """Return the active jobs and the points of the running ones by run id, as of one moment.

        ``after`` holds for a run the step of the last point that the caller has: earlier ones are left out.
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
        """Return how many of these runs are active, and how much of them is done, counted in runs."""
        ((active, done),) = self._read(
            "SELECT count(*), total(CASE WHEN total_steps THEN min(1.0, 1.0 * step / total_steps) ELSE 0 END) "
            "FROM requests WHERE state IN ('queued', 'running') AND run_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(run_ids))],
        )
        return int(active), float(done)

    # ---- the engine's side

    def has_waiting(self) -> bool:
        """Whether any run waits to be taken."""
        return bool(self._read("SELECT 1 FROM requests WHERE state = 'queued' LIMIT 1"))

    def waiting(self, priority: int = BULK, limit: int = LOOK_AHEAD) -> list[Job]:
        """Return the runs to be taken next, of this priority or a more urgent one: urgent first, then by turns."""
        rows = self._read(
            f"SELECT {_JOB_COLUMNS} FROM requests WHERE state = 'queued' AND priority <= ? "
            "ORDER BY priority, turn, position LIMIT ?",
            [priority, limit],
        )
        return [_job(row) for row in rows]

    def cancelling(self) -> set[str]:
        """Return the running runs that shall end."""
        rows = self._read("SELECT run_id FROM requests WHERE state = 'running' AND cancel = 1")
        return {str(run_id) for (run_id,) in rows}

    def start(self, run_ids: Iterable[str]) -> set[str]:
        """Mark queued runs as running; return them. One that was cancelled a moment ago is not among them."""
        with self._transaction() as db:
            return {
                run_id
                for run_id in run_ids
                if db.execute(
                    "UPDATE requests SET state = 'running', started_at = ?, cause = 'taken by the engine' "
                    "WHERE run_id = ? AND state = 'queued'",
                    [time.time(), run_id],
                ).rowcount
            }

    def advance(self, points: Sequence[tuple[str, Point]], progress: Mapping[str, tuple[int, int]]) -> None:
        """Enter new points of running runs, and optimizer steps done and to do, as run_id -> (step, total)."""
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
        """End an active run; its live points go, a stored run has them all."""
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

    def requeue(self, run_ids: Iterable[str], cause: str = "its training was lost") -> None:
        """Put running runs back whose training is gone; the attempt number and the cause tell that it happened.

        One that was to be cancelled is cancelled: nobody wants it back. One asked for again since then is wanted.
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
        """Say that the engine lives, and what is wrong with it if anything is."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO engine VALUES (1, ?, ?, ?)", [pid, time.time(), message])

    def clear_heartbeat(self) -> None:
        """Say that the engine has stopped."""
        with self._transaction() as db:
            db.execute("DELETE FROM engine")

    def engine(self) -> EngineState | None:
        """Return what the engine last said; None if none runs."""
        rows = self._read("SELECT pid, beat, message FROM engine")
        return EngineState(rows[0][0], max(0.0, time.time() - rows[0][1]), rows[0][2]) if rows else None

    # ----

    @contextmanager
    def _transaction(self, write: bool = True) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE takes the write lock at once: a read that turns into a write later could fail as busy.
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    yield self._db
                except BaseException:
                    # A full disk has rolled back already, and a second one would hide the reason.
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise StoreError(
                    f"queue {self.path}: cannot be written ({error}); nothing was changed, try again"
                ) from error

    def _read(self, text: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(text, list(values)).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"queue {self.path}: cannot be read ({error})") from error


def _job(row: tuple[Any, ...]) -> Job:
    run_id, config_id, config, state, priority, attempt, cancel, *rest = row
    return Job(run_id, config_id, _config(config), state, priority, attempt, bool(cancel), *rest)


@lru_cache(maxsize=100_000)
def _point(text: str) -> Point:
    # A growing curve is read several times a second, and all of its points but the newest were read before.
    point: Point = json.loads(text)
    return point


@lru_cache(maxsize=10_000)
def _config(text: str) -> RunConfig:
    # The same jobs are read several times a second, and checking a config costs more than reading it.
    return RunConfig.from_dict(json.loads(text))
