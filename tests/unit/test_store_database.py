"""How the files that several processes write are opened."""

import sqlite3
import threading
from contextlib import closing

import pytest

from jsc_explore.store import database
from jsc_explore.store.database import open_database


@pytest.fixture
def written_by_another(tmp_path):
    """Return a new file that is not in use with a log yet, in the middle of a write by another connection."""
    path = tmp_path / "new.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE t (x)")
        other.execute("BEGIN IMMEDIATE")
        yield path, other


def test_opening_a_file_that_another_has_just_begun_waits_for_it(written_by_another):
    path, other = written_by_another
    soon = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    soon.start()
    with closing(open_database(path, "FULL")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    soon.join()


def test_opening_gives_up_when_the_other_never_ends(written_by_another, monkeypatch):
    monkeypatch.setattr(database, "TIMEOUT_S", 0.1)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_database(written_by_another[0], "NORMAL")


def test_what_is_not_a_database_is_refused_at_once(tmp_path):
    path = tmp_path / "notes.sqlite"
    path.write_text("not a database, though it is long enough for the header of one" * 20)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        open_database(path, "NORMAL")
