"""Saved views: named URL queries of the pages, in one small SQLite file of the store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from jsc_explore.errors import FieldError, StoreError
from jsc_explore.store.database import remedy
from jsc_explore.store.directory import StoreDirectory, open_directory

_SCHEMA = "CREATE TABLE IF NOT EXISTS views (name TEXT PRIMARY KEY, query TEXT NOT NULL, saved_at REAL)"
MAX_NAME, MAX_VIEWS = 80, 500


class SavedViews:
    """The saved views of a store: name -> query string of a URL, shared by all users of the store.

    Each call opens the file itself, so any thread and process may call. Raises StoreError if the file cannot be used.
    """

    def __init__(self, directory: Path | StoreDirectory) -> None:
        self._home = open_directory(directory)
        self.path = self._home.path / "views.sqlite"

    def all(self) -> dict[str, str]:
        """Return every view by name, sorted by name; none where the file does not exist yet."""
        if not self.path.exists():
            return {}
        with self._open() as db:
            return dict(db.execute("SELECT name, query FROM views ORDER BY name COLLATE NOCASE").fetchall())

    def save(self, name: str, query: str) -> None:
        """Save a view, replacing one of the same name. Raises FieldError for a name that is empty or too long."""
        checked = _checked(name)
        with self._open() as db:
            if checked not in self._names(db) and len(self._names(db)) >= MAX_VIEWS:
                raise FieldError("view", name, f"would exceed the limit of {MAX_VIEWS} views", "delete another one")
            db.execute("INSERT OR REPLACE INTO views VALUES (?, ?, ?)", [checked, query, time.time()])

    def rename(self, name: str, new: str) -> None:
        """Rename a view. Raises FieldError if there is none of the old name, or already one of the new."""
        checked = _checked(new)
        with self._open() as db:
            if checked != name and checked in self._names(db):
                raise FieldError("view", checked, "already exists", "choose another name")
            if not db.execute("UPDATE views SET name = ? WHERE name = ?", [checked, name]).rowcount:
                raise FieldError("view", name, "does not exist", "somebody may have deleted it; reload the page")

    def delete(self, name: str) -> None:
        """Delete a view if it exists."""
        with self._open() as db:
            db.execute("DELETE FROM views WHERE name = ?", [name])

    def _names(self, db: sqlite3.Connection) -> set[str]:
        return {str(name) for (name,) in db.execute("SELECT name FROM views")}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._home.check()
        try:
            with closing(sqlite3.connect(self.path, timeout=10)) as db, db:
                db.execute(_SCHEMA)
                yield db
        except sqlite3.Error as error:
            raise StoreError(
                f"saved views {self.path}: cannot be used ({error}); nothing was changed, " + remedy(error, "try again")
            ) from error


def _checked(name: str) -> str:
    checked = " ".join(name.split())
    if not 1 <= len(checked) <= MAX_NAME:
        raise FieldError("view", name, f"must have a name of 1 to {MAX_NAME} characters", "try 'batch size at 1e-3'")
    return checked
