"""The tables of the queue: how they are made and brought up to date, and what they hold to by themselves.

Triggers, not callers, record every move of a run and refuse one backwards: whoever writes, with whatever program.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

# Of these tables; raise it when they change.
_VERSION = 1
# What happened to runs is kept this long and no longer than this many moves, the oldest go first.
TRANSITIONS_KEPT_S, TRANSITIONS_KEPT = 30 * 86_400.0, 500_000

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
  run_id TEXT PRIMARY KEY,
  config_id TEXT NOT NULL,
  config TEXT NOT NULL,
  state TEXT NOT NULL,
  priority INTEGER NOT NULL,
  position INTEGER NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 1,
  cancel INTEGER NOT NULL DEFAULT 0,
  step INTEGER NOT NULL DEFAULT 0,
  total_steps INTEGER NOT NULL DEFAULT 0,
  requested_at REAL NOT NULL,
  started_at REAL,
  finished_at REAL,
  error TEXT,
  session TEXT NOT NULL DEFAULT '',
  turn INTEGER NOT NULL DEFAULT 0,
  epochs INTEGER NOT NULL DEFAULT 0,
  cause TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS requests_by_state ON requests (state, priority, position);
CREATE TABLE IF NOT EXISTS points (
  run_id TEXT, step INTEGER, point TEXT NOT NULL, PRIMARY KEY (run_id, step)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS engine (
  only_one INTEGER PRIMARY KEY CHECK (only_one = 1), pid INTEGER, beat REAL, message TEXT
);
"""
# Columns that tables of earlier versions lack.
_LATER = {
    "session": "TEXT NOT NULL DEFAULT ''",
    "turn": "INTEGER NOT NULL DEFAULT 0",
    "epochs": "INTEGER NOT NULL DEFAULT 0",
    "cause": "TEXT NOT NULL DEFAULT ''",
}
_NOW = "(julianday('now') - 2440587.5) * 86400.0"
_MOVES = f"""
CREATE INDEX IF NOT EXISTS requests_by_turn ON requests (state, priority, turn, position);
CREATE INDEX IF NOT EXISTS requests_by_session ON requests (state, session, priority, turn, epochs);
CREATE TABLE IF NOT EXISTS moves (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id TEXT NOT NULL, attempt INTEGER NOT NULL, "from" TEXT, "to" TEXT NOT NULL, at REAL NOT NULL, cause TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS moves_by_run ON moves (run_id);
CREATE TRIGGER IF NOT EXISTS first_move AFTER INSERT ON requests BEGIN
  INSERT INTO moves (run_id, attempt, "from", "to", at, cause)
  VALUES (NEW.run_id, NEW.attempt, NULL, NEW.state, {_NOW}, NEW.cause);
END;
CREATE TRIGGER IF NOT EXISTS next_move AFTER UPDATE OF state ON requests WHEN OLD.state <> NEW.state BEGIN
  INSERT INTO moves (run_id, attempt, "from", "to", at, cause)
  VALUES (NEW.run_id, NEW.attempt, OLD.state, NEW.state, {_NOW}, NEW.cause);
END;
CREATE TRIGGER IF NOT EXISTS only_forward BEFORE UPDATE OF state ON requests
WHEN OLD.state IN ('done', 'diverged', 'failed', 'cancelled') AND NEW.state NOT IN (OLD.state, 'queued') BEGIN
  SELECT RAISE(ABORT, 'a run that ended can only be queued again');
END;
"""


@dataclass(frozen=True)
class Transition:
    """A run's step from one state to the next; ``before`` is None for the first, ``at`` seconds since the epoch."""

    run_id: str
    attempt: int
    before: str | None
    after: str
    at: float
    cause: str

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at).astimezone().isoformat(sep=" ", timespec="seconds")
        return f"{when}  attempt {self.attempt}: {self.before or 'new'} → {self.after}, {self.cause}"


def prepare(db: sqlite3.Connection) -> None:
    """Make the tables that are missing and bring those of an earlier version up to date; nothing in them is lost."""
    if db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
        return
    # Several may open a file at once: the lock first, or a look that turns into a write would find it taken.
    db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
    db.execute("BEGIN IMMEDIATE")
    if missing_seeds := _lacking(db):
        for name in missing_seeds:
            db.execute(f"ALTER TABLE requests ADD COLUMN {name} {_LATER[name]}")
        db.execute("UPDATE requests SET epochs = json_extract(config, '$.max_epochs') WHERE epochs = 0")
    db.execute("COMMIT")
    db.executescript(f"BEGIN IMMEDIATE; {_MOVES} PRAGMA user_version = {_VERSION}; COMMIT;")


def trim(db: sqlite3.Connection) -> None:
    """Drop the oldest moves beyond what is kept; cheap when there is nothing to drop. Within a transaction."""
    db.execute("DELETE FROM moves WHERE seq <= (SELECT max(seq) FROM moves) - ?", [TRANSITIONS_KEPT])
    # In the order in which they were entered, few at a time: no index on time, which every move would pay for.
    db.execute(
        f"DELETE FROM moves WHERE seq IN (SELECT seq FROM moves ORDER BY seq LIMIT 1000) AND at < {_NOW} - ?",
        [TRANSITIONS_KEPT_S],
    )


def _lacking(db: sqlite3.Connection) -> list[str]:
    there = {row[1] for row in db.execute("PRAGMA table_info(requests)")}
    return [name for name in _LATER if name not in there]
