"""Saved views: named URL queries of the pages, in one small SQLite file of the store."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from jsc_explore.errors import FieldError, StoreError
from jsc_explore.store.database import remedy
from jsc_explore.store.directory import StoreDirectory, open_directory

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS views (name TEXT PRIMARY KEY, query TEXT NOT NULL, saved_at REAL, owner TEXT NOT NULL)"
)
MAX_NAME, MAX_VIEWS = 80, 500


class SavedViews:
    """The saved views of a store: name -> query string of a URL, which all users of the store see.

    Who saved a view may replace, rename and delete it. A ``visitor`` is given by one or more names; a view belongs to
    the first, of which the file holds a salted hash, and each of them may be its owner's. None is who runs the app, and
    may change every view.

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

    def own(self, visitor: Sequence[str] | None) -> set[str]:
        """Return the names of the views that this visitor may change."""
        if not self.path.exists():
            return set()
        with self._open() as db:
            views = db.execute("SELECT name, owner FROM views").fetchall()
        return {name for name, owner in views if _is_owner(owner, visitor)}

    def save(self, name: str, query: str, visitor: Sequence[str] | None) -> None:
        """Save a view, replacing this visitor's own one of the same name.

        Raises FieldError for a name that is empty, too long, or that of another visitor's view.
        """
        checked = _checked(name)
        with self._open() as db:
            names = self._names(db)
            if checked in names:
                self._check_owner(db, checked, visitor)
            elif len(names) >= MAX_VIEWS:
                raise FieldError("view", name, f"would exceed the limit of {MAX_VIEWS} views", "delete another one")
            db.execute(
                "INSERT INTO views VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET query = excluded.query, saved_at = excluded.saved_at",
                [checked, query, time.time(), _owner(visitor)],
            )

    def rename(self, name: str, new: str, visitor: Sequence[str] | None) -> None:
        """Rename a view of this visitor.

        Raises FieldError if there is none of the old name, or already one of the new.
        """
        checked = _checked(new)
        with self._open() as db:
            if checked != name and checked in self._names(db):
                raise FieldError("view", checked, "already exists", "choose another name")
            self._check_owner(db, name, visitor)
            if not db.execute("UPDATE views SET name = ? WHERE name = ?", [checked, name]).rowcount:
                raise FieldError("view", name, "does not exist", "somebody may have deleted it; reload the page")

    def delete(self, name: str, visitor: Sequence[str] | None) -> None:
        """Delete a view of this visitor if it exists."""
        with self._open() as db:
            self._check_owner(db, name, visitor)
            db.execute("DELETE FROM views WHERE name = ?", [name])

    def _check_owner(self, db: sqlite3.Connection, name: str, visitor: Sequence[str] | None) -> None:
        found = db.execute("SELECT owner FROM views WHERE name = ?", [name]).fetchone()
        if found is not None and not _is_owner(found[0], visitor):
            remedy = "save it under another name; who saved it, or runs the app, may change it"
            raise FieldError("view", name, "belongs to somebody else", remedy)

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


def _owner(visitor: Sequence[str] | None) -> str:
    """Return the owner of a view that this visitor saves; empty for who runs the app."""
    return _hash(secrets.token_hex(8), visitor[0]) if visitor else ""


def _is_owner(owner: str, visitor: Sequence[str] | None) -> bool:
    return visitor is None or owner in {_hash(owner.partition(":")[0], name) for name in visitor}


def _hash(salt: str, name: str) -> str:
    return f"{salt}:{hashlib.sha256(f'{salt}:{name}'.encode()).hexdigest()}"


def _checked(name: str) -> str:
    checked = " ".join(name.split())
    if not 1 <= len(checked) <= MAX_NAME:
        raise FieldError("view", name, f"must have a name of 1 to {MAX_NAME} characters", "try 'batch size at 1e-3'")
    return checked
