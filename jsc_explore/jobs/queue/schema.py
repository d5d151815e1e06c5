"""The queue's SQLite schema: tables, and triggers that keep its invariants for every writer.

Triggers, not callers, record each change of a run's state and reject a backward one, whatever program writes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jsc_explore.errors import StoreError

# Raise it when a table changes: a file of another version is refused.
QUEUE_VERSION = 5
# Transitions are dropped when they are older than this, or when there are more of them, oldest first.
TRANSITIONS_KEPT_S, TRANSITIONS_KEPT = 30 * 86_400.0, 500_000

_NOW = "(julianday('now') - 2440587.5) * 86400.0"
# ``IF NOT EXISTS``: several processes may create the tables at once.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS requests (
  run_id TEXT PRIMARY KEY,
  config_id TEXT NOT NULL,
  config TEXT NOT NULL,
  state TEXT NOT NULL,
  priority INTEGER NOT NULL,
  position INTEGER NOT NULL,
  virtual_start INTEGER NOT NULL,
  session TEXT NOT NULL,
  address TEXT NOT NULL,
  expected_s REAL NOT NULL,
  epochs INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 1,
  cancel INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0,
  total_steps INTEGER NOT NULL DEFAULT 0,
  requested_at REAL NOT NULL,
  started_at REAL,
  finished_at REAL,
  error TEXT,
  cause TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_start ON requests (state, priority, virtual_start, position, session, address);
CREATE INDEX IF NOT EXISTS requests_by_session ON requests (state, session, priority, virtual_start, epochs);
-- Every session that wants an active run; requests.session is the one whose limits and turns it counts for.
CREATE TABLE IF NOT EXISTS requesters (
  run_id TEXT, session TEXT, PRIMARY KEY (run_id, session)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
  run_id TEXT, step INTEGER, point TEXT NOT NULL, PRIMARY KEY (run_id, step)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS engine (
  only_one INTEGER PRIMARY KEY CHECK (only_one = 1), pid INTEGER, heartbeat_at REAL, message TEXT
);
-- When a page was last looked at.
CREATE TABLE IF NOT EXISTS visit (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), at REAL);
CREATE TABLE IF NOT EXISTS transitions (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL, attempt INTEGER NOT NULL, "from" TEXT, "to" TEXT NOT NULL, at REAL NOT NULL, cause TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS transitions_by_run ON transitions (run_id);
CREATE TRIGGER IF NOT EXISTS record_request AFTER INSERT ON requests BEGIN
  INSERT INTO transitions (run_id, attempt, "from", "to", at, cause)
  VALUES (NEW.run_id, NEW.attempt, NULL, NEW.state, {_NOW}, NEW.cause);
END;
CREATE TRIGGER IF NOT EXISTS record_transition AFTER UPDATE OF state ON requests WHEN OLD.state <> NEW.state BEGIN
  INSERT INTO transitions (run_id, attempt, "from", "to", at, cause)
  VALUES (NEW.run_id, NEW.attempt, OLD.state, NEW.state, {_NOW}, NEW.cause);
END;
CREATE TRIGGER IF NOT EXISTS reject_backward_transition BEFORE UPDATE OF state ON requests
WHEN OLD.state IN ('done', 'diverged', 'failed', 'cancelled') AND NEW.state NOT IN (OLD.state, 'queued') BEGIN
  SELECT RAISE(ABORT, 'a run that ended can only be queued again');
END;
"""


@dataclass(frozen=True)
class Transition:
    """A change of a run's state; ``before`` is None for the first one, ``at`` counts seconds since the epoch."""

    run_id: str
    attempt: int
    before: str | None
    after: str
    at: float
    cause: str

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at).astimezone().isoformat(sep=" ", timespec="seconds")
        return f"{when}  attempt {self.attempt}: {self.before or 'new'} → {self.after}, {self.cause}"


def create_tables(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file; StoreError if the file has another version."""
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        # The write lock first: with a deferred transaction one of several processes would fail as busy.
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {QUEUE_VERSION}; COMMIT;")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != QUEUE_VERSION:
        raise StoreError(
            f"queue {path}: has version {version}, this program reads only version {QUEUE_VERSION}; "
            "use the jsc-explore that wrote it, or another directory with --store"
        )


def drop_old_transitions(db: sqlite3.Connection) -> None:
    """Drop the oldest transitions beyond what is kept, within the caller's transaction."""
    db.execute("DELETE FROM transitions WHERE seq <= (SELECT max(seq) FROM transitions) - ?", [TRANSITIONS_KEPT])
    # Look only at the oldest rows: an index on time would slow down every transition.
    oldest = "SELECT seq FROM transitions ORDER BY seq LIMIT 1000"
    db.execute(f"DELETE FROM transitions WHERE seq IN ({oldest}) AND at < {_NOW} - ?", [TRANSITIONS_KEPT_S])
