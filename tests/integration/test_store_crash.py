"""Failures at any step: readers see no partial state, no finished run is lost, and the store stays usable."""

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import DIGEST, record_of
from servers import ROOT

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.store import Store
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.compaction import compact
from jsc_explore.store.query.curves import curve_points
from jsc_explore.store.recovery import drop_retired, orphans, recover
from jsc_explore.store.schema import to_table
from jsc_explore.store.verify import verify


def run(seed):
    return record_of(RunConfig(seed=seed))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed in (0, 1):
        store.add(run(seed))
    yield store
    store.close()


def seeds(directory):
    """Return the seeds that a new reader of the store finds."""
    reader = Store(directory)
    found = sorted(reader.runs(columns=["seed"])["seed"].to_pylist())
    assert reader.problems == []
    assert reader.curves(reader.runs(columns=["run_id"])["run_id"].to_pylist(), ["step"]).num_rows == 4 * len(found)
    reader.close()
    return found


# ---- the order of steps


class Steps:
    """Record every step of writing a part, and make one of them fail as the operating system would."""

    def __init__(self, monkeypatch, catalog, fail_at=None, error=None):
        self.seen, self.fail_at, self.error = [], fail_at, error
        self._of_handle = {}
        for name, owner in (("fsync", os), ("replace", Path), ("unlink", Path)):
            monkeypatch.setattr(owner, name, self._around(name, getattr(owner, name)))
        open_path, open_handle = Path.open, os.open

        def opening(path, *args, **kwargs):
            if "w" in (args[0] if args else kwargs.get("mode", "r")):
                self._step("open", path.suffix)
            file = open_path(path, *args, **kwargs)
            self._of_handle[file.fileno()] = path.suffix
            return _Watched(file, self) if path.suffix == ".tmp" else file

        def opening_handle(path, *args, **kwargs):
            handle = open_handle(path, *args, **kwargs)
            self._of_handle[handle] = Path(path).name
            return handle

        monkeypatch.setattr(Path, "open", opening)
        monkeypatch.setattr(os, "open", opening_handle)
        catalog._db = _WatchedDatabase(catalog._db, self)

    def _around(self, name, real):
        def call(first, *args, **kwargs):
            what = self._of_handle.get(first, "?") if name == "fsync" else Path(first).suffix
            if name != "unlink":
                self._step(name, what)
            return real(first, *args, **kwargs)

        return call

    def _step(self, name, what=""):
        self.seen.append(f"{name} {what}".strip())
        if self.fail_at == len(self.seen) - 1:
            raise self.error


class _Watched:
    def __init__(self, file, steps):
        self._file, self._steps = file, steps

    def write(self, content):
        half = memoryview(content)[: len(content) // 2]
        self._file.write(half)
        self._steps._step("write")
        return self._file.write(memoryview(content)[len(content) // 2 :])

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)


class _WatchedDatabase:
    def __init__(self, database, steps):
        self._database, self._steps = database, steps

    def execute(self, text, *values):
        word = text.split()[0]
        if word in ("BEGIN", "INSERT", "COMMIT", "DELETE", "UPDATE"):
            self._steps._step(word)
        return self._database.execute(text, *values)

    def executemany(self, text, values):
        self._steps._step(text.split()[0])
        return self._database.executemany(text, values)

    def __getattr__(self, name):
        return getattr(self._database, name)


ORDER = ["open .tmp", "write", "fsync .tmp", "replace .tmp", "fsync parts", "BEGIN", "INSERT", "INSERT", "COMMIT"]


def test_a_part_is_synced_renamed_and_synced_again_before_its_row_is_written(store, monkeypatch):
    with monkeypatch.context() as patch:
        steps = Steps(patch, store.catalog)
        store.add(run(2))
    assert steps.seen == ORDER
    store.catalog._db = store.catalog._db._database
    # The row itself is synced by SQLite before COMMIT returns.
    assert store.catalog.read("PRAGMA synchronous") == [(2,)]


FULL = OSError(28, "No space left on device")
FAILURES = [(place, sqlite3.OperationalError("database or disk is full") if step.isupper() else FULL)
            for place, step in enumerate(ORDER)]  # fmt: skip


@pytest.mark.parametrize(("place", "error"), FAILURES, ids=[f"{i} {step}" for i, step in enumerate(ORDER)])
def test_a_disk_full_at_any_step_loses_nothing_and_is_reported(store, monkeypatch, place, error):
    with monkeypatch.context() as patch:
        Steps(patch, store.catalog, place, error)
        with pytest.raises(StoreError, match=r"could not be written \((no space left|database or disk is full)"):
            store.add(run(2))
    store.catalog._db = store.catalog._db._database
    assert seeds(store.directory) == [0, 1]
    assert orphans(store.catalog) == []
    assert verify(store.catalog) == []
    store.add(run(2))
    assert seeds(store.directory) == [0, 1, 2]


def test_a_commit_that_succeeded_but_raised_keeps_the_run(store, monkeypatch):
    class Liar(_WatchedDatabase):
        def executemany(self, text, values):
            return self._database.executemany(text, values)

        def execute(self, text, *values):
            done = self._database.execute(text, *values)
            if text == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return done

    real = store.catalog._db
    store.catalog._db = Liar(real, None)
    with pytest.raises(StoreError, match="disk i/o error"):
        store.add(run(2))
    store.catalog._db = real
    assert seeds(store.directory) == [0, 1, 2]
    store.add(run(2))
    assert seeds(store.directory) == [0, 1, 2]
    assert verify(store.catalog) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from runs import record_of
from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]))
added = refused = 0
largest = max(path.stat().st_size for path in Path(sys.argv[1]).rglob("*") if path.is_file())
for number, limit in enumerate([*range(0, 40_000, 4000), *range(40_000, 2 * largest, 40_000)]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        store.add(record_of(RunConfig(seed=100 + number)))
        added += 1
    except StoreError:
        refused += 1
    assert store.runs().num_rows == 2 + added
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for other in range(number + 1):
    store.add(record_of(RunConfig(seed=100 + other)))
print(added, refused, number + 1)
"""


def test_a_file_size_limit_at_any_point_loses_nothing(store):
    """A real limit, not a mock: the operating system refuses to let any file, SQLite's included, grow further."""
    code = LIMITED.format(tests=str(ROOT / "tests"))
    ended = subprocess.run([sys.executable, "-c", code, str(store.directory)], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    added, refused, total = map(int, ended.stdout.split())
    assert added > 0
    assert refused > 3
    assert seeds(store.directory) == [0, 1, *range(100, 100 + total)]
    assert verify(store.catalog) == []


# ---- killed writers


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from runs import record_of
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10_000):
    store.add(record_of(RunConfig(seed=seed)))
    print(seed, flush=True)
"""


def test_a_writer_killed_at_any_moment_has_stored_the_runs_it_reported(store):
    """kill -9, four times, at arbitrary moments."""
    announced = {0, 1}
    for attempt in range(4):
        code, first = KILLED.format(tests=str(ROOT / "tests")), 10_000 * (attempt + 1)
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(store.directory), str(first)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.037 * attempt)
        writer.send_signal(signal.SIGKILL)
        announced |= {int(line) for line in writer.stdout.read().split("\n")[:-1]}
        writer.wait()
        writer.stdout.close()
    store.recover()
    assert orphans(store.catalog) == []
    assert set(seeds(store.directory)) >= announced
    assert verify(store.catalog) == []


HALF = f".{4:032x}.parquet.0a1b2c3d.tmp"


def write_orphan(store, table, name=f"{1:032x}.parquet"):
    """Write a file to parts/ that the catalogue does not list, as a writer does that is killed before its last step."""
    path = store.catalog.parts_directory / name
    pq.write_table(table, path)
    return path


def test_a_complete_part_that_was_never_registered_is_registered(store):
    path = write_orphan(store, to_table(run(2)))
    assert store.recover().registered == [path]
    assert seeds(store.directory) == [0, 1, 2]
    assert store.runs().num_rows == 3
    assert verify(store.catalog) == []


def test_of_an_orphan_part_only_the_runs_not_stored_yet_are_registered(store):
    path = write_orphan(store, pa.concat_tables([to_table(run(1)), to_table(run(2))]))
    assert store.recover().registered == [path]
    assert seeds(store.directory) == [0, 1, 2]
    assert verify(store.catalog) == []


def test_incomplete_and_redundant_files_are_removed_and_invalid_ones_quarantined(store):
    half = write_orphan(store, to_table(run(2)), HALF)
    there = write_orphan(store, to_table(run(1)), f"{5:032x}.parquet")
    foreign = write_orphan(store, pa.table({"a": [1]}), f"{6:032x}.parquet")
    forged = write_orphan(store, to_table(dataclasses.replace(run(3), run_id="f" * 32)), f"{7:032x}.parquet")
    found = store.recover()
    assert set(found.removed) == {half, there}
    assert set(found.quarantined) == {foreign, forged}
    assert {path.name for path in store.catalog.quarantine_directory.iterdir()} == {foreign.name, forged.name}
    assert len(found.lines()) == 4
    assert seeds(store.directory) == [0, 1]
    assert verify(store.catalog) == []


def test_files_of_a_running_writer_are_not_recovered(store, monkeypatch):
    monkeypatch.setattr("jsc_explore.store.recovery._LOCK_TIMEOUT_S", 0.1)
    path = write_orphan(store, to_table(run(2)), HALF)
    other = Catalog(store.directory)
    with other.writing("nothing"):
        assert recover(store.catalog).lines() == []
        assert path.exists()
    other.close()
    assert recover(store.catalog).removed == [path]


def test_a_store_whose_catalogue_was_deleted_is_recovered_from_its_parts(store):
    store.close()
    for path in store.directory.glob("catalog.sqlite*"):
        path.unlink()
    again = Store(store.directory)
    assert again.runs().num_rows == 0
    assert len(again.recover().registered) == 2
    again.close()
    assert seeds(store.directory) == [0, 1]


def test_a_run_whose_part_is_missing_or_truncated_is_stored_again_after_training(store):
    first, second = store.catalog.parts()
    store.catalog.path_of(first).unlink()
    path = store.catalog.path_of(second)
    path.write_bytes(path.read_bytes()[:500])
    again = Store(store.directory)
    assert again.runs().num_rows == 0
    for seed in (0, 1):
        again.add(run(seed))
    assert sorted(again.runs(columns=["seed"])["seed"].to_pylist()) == [0, 1]
    assert again.record(run(1).run_id) is not None
    again.close()


# ---- more than one writer, and clocks


RACING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from runs import record_of
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for seed in range(100, 120):
    store.add(record_of(RunConfig(seed=seed)))
"""


def test_two_processes_that_write_the_same_runs_write_each_once(store):
    code = RACING.format(tests=str(ROOT / "tests"))
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(store.directory)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(2)
    ]  # fmt: skip
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seeds(store.directory) == [0, 1, *range(100, 120)]
    assert sum(part.rows for part in store.catalog.parts()) == 22
    assert orphans(store.catalog) == []
    assert verify(store.catalog) == []


def test_a_clock_that_was_set_back_changes_nothing(store, monkeypatch):
    now = time.time()
    compact(store.directory, select=lambda parts: parts)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now - 1e6)
        store.refresh()
        store.add(run(2))
        assert store.runs().num_rows == 3
        compact(store.directory, select=lambda parts: parts)
        store.refresh()
        assert store.runs().num_rows == 3
        # What was retired in the future is kept from now on, and no longer than any other.
        assert drop_retired(store.catalog, 600) == []
        patch.setattr(time, "time", lambda: now - 1e6 + 601)
        assert len(drop_retired(store.catalog, 600)) == 4
    assert seeds(store.directory) == [0, 1, 2]
    assert orphans(store.catalog) == []


@pytest.mark.parametrize("version", [0, 9])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_catalogue_of_another_version_is_refused(store, version, read_only):
    store.close()
    with sqlite3.connect(store.directory / "catalog.sqlite") as db:
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(
        StoreError, match=f"catalogue has version {version}, this program reads only version .* --store"
    ):
        Store(store.directory, read_only=read_only)


def test_a_run_of_a_million_points_is_stored_read_and_thinned(store):
    n = 1_000_000
    curves = {f"curve_{name}": pa.array([[float(i) for i in range(n)]]) for name in ("epoch", "val_acc")}
    table = to_table(record_of(RunConfig(seed=7), points=1))
    steps = pa.array([range(n)], pa.list_(pa.int64()))
    for name in [name for name in table.column_names if name.startswith("curve_")]:
        kind = table.schema.field(name).type
        column = curves.get(name, steps.cast(kind))
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    assert store.add_table(table) == 1
    run_id = RunConfig(seed=7).run_id(DIGEST)
    points = curve_points(store, [run_id], "epoch", ["val_acc"], budget=2000)
    assert points.total == n
    assert points.stride == 500
    drawn = points.seeds["x"].to_pylist()
    assert (len(drawn), drawn[0], drawn[-1]) == (2001, 0.0, n - 1)
    assert len(store.record(run_id).outcome.points) == n
