"""Compaction: many parts become few sorted ones while others read and write; an interruption changes nothing."""

import os
import re
import signal
import subprocess
import sys
import time

import duckdb
import pyarrow.parquet as pq
import pytest
from runs import record_of
from servers import ROOT

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.store import Store, compaction
from jsc_explore.store.catalog import Part
from jsc_explore.store.compaction import compact, parts_to_compact
from jsc_explore.store.recovery import orphans
from jsc_explore.store.schema import to_table
from jsc_explore.store.verify import verify

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def everything(parts):
    return parts


def run(seed, batch_size=256):
    return record_of(RunConfig(seed=seed, batch_size=batch_size))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed in (3, 1, 2):
        for batch_size in (256, 16):
            store.add(run(seed, batch_size))
    yield store
    store.close()


def files(store):
    return {path.name for path in store.catalog.parts_directory.iterdir()}


def test_many_parts_become_one_sorted_part_and_the_old_files_are_kept_for_a_while(store):
    before = files(store)
    done = compact(store.directory, select=everything)
    assert (done.before, done.after, done.runs, done.problems) == (6, 1, 6, ())
    (part,) = store.catalog.parts()
    assert part.rows == 6
    rows = pq.read_table(store.catalog.path_of(part)).select(["config_id", "seed", "run_id"]).to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["config_id"], row["seed"], row["run_id"]))
    assert files(store) == before | {part.name}
    assert {name for name, _ in store.catalog.retired()} == before
    assert verify(store.catalog) == []
    version = store.version
    assert not store.refresh()
    assert store.version == version
    assert store.runs().num_rows == 6


def documented(language):
    """Return the code of docs/results.md that reads the parts of a store."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", ROOT.joinpath("docs/results.md").read_text(), re.M | re.S)
    (code,) = [block for block in blocks if "STORE" in block]
    return code


def test_the_documented_way_to_read_the_parts_counts_each_run_once_while_replaced_files_are_kept(store):
    compact(store.directory, select=everything)
    with duckdb.connect() as db:
        every = f"'{store.catalog.parts_directory}/*.parquet'"
        assert db.execute(f"SELECT count(*) FROM {every}").fetchone() == (12,)
        db.execute(documented("sql").replace("STORE", str(store.directory)))
        counts = "SELECT count(*), count(DISTINCT run_id), avg(seed) FROM runs"
        assert db.execute(counts).fetchone() == (6, 6, 2.0)
    found = {}
    exec(documented("python").replace("STORE", str(store.directory)), found)
    assert sorted(found["runs"]["run_id"]) == sorted(store.runs(columns=["run_id"])["run_id"].to_pylist())


def test_without_retention_the_old_files_are_deleted_and_an_open_reader_continues(store):
    reader = Store(store.directory)
    ids = reader.runs(columns=["run_id"])["run_id"].to_pylist()
    assert reader.curves(ids, ["step"]).num_rows == 24
    compact(store.directory, select=everything, retention_s=0)
    assert len(files(store)) == 1
    assert reader.curves(ids, ["step"]).num_rows == 24
    assert reader.record(ids[0], weights=True).outcome.weights == b"\x00\x01"
    reader.close()


def test_parts_without_weights_are_compacted_too(store):
    store.add_table(to_table(run(9)).drop_columns(["weights"]))
    done = compact(store.directory, select=everything)
    assert (done.before, done.after, done.runs, done.problems) == (7, 1, 7, ())


def test_parts_are_compacted_when_a_size_class_has_too_many():
    def parts(*rows):
        return [Part(seq, str(seq), count, "") for seq, count in enumerate(rows, 1)]

    assert parts_to_compact(parts(*[1] * 64)) == []
    assert len(parts_to_compact(parts(*[1] * 65, 64, 5000))) == 65
    assert parts_to_compact(parts(*[64] * 64, *[4096] * 1000)) == []
    # The larger class takes the smaller one with it, never a full part.
    assert [part.rows for part in parts_to_compact(parts(1, 4096, *[64] * 65))] == [1, *[64] * 65]


def test_every_run_is_written_three_times_at_most_on_its_way_to_a_full_part():
    """By the policy alone: 100,000 runs, one part each, leave few parts and are rewritten seldom."""
    parts, seq, written, most = [], 0, 0, 0
    for _ in range(100_000):
        seq += 1
        parts.append(Part(seq, "", 1, ""))
        if len(parts) > compaction.MAX_PARTS and (chosen := parts_to_compact(parts)):
            gone = {part.seq for part in chosen}
            rows = sum(part.rows for part in chosen)
            written += rows
            parts = [part for part in parts if part.seq not in gone]
            for first in range(0, rows, compaction.ROWS_PER_PART):
                seq += 1
                parts.append(Part(seq, "", min(compaction.ROWS_PER_PART, rows - first), ""))
        most = max(most, len(parts))
    assert most <= 3 * compaction.MAX_PARTS
    assert written <= 3 * 100_000


def test_the_store_compacts_in_the_background_when_needed(store, monkeypatch):
    assert not store.compact_if_needed()
    monkeypatch.setattr(compaction, "MAX_PARTS", 6)
    store.add(run(4))
    assert store.compact_if_needed()
    for seed in (5, 6):
        store.add(run(seed))  # Nobody waits for it.
    store._background._thread.join()
    assert store._background.message == ""
    store.refresh()
    assert sorted(part.rows for part in store.catalog.parts()) in ([1, 1, 7], [1, 8], [9])
    assert store.runs().num_rows == 9
    assert verify(store.catalog) == []


def test_only_one_process_compacts_at_a_time(store):
    code = """
import sys
from pathlib import Path
from jsc_explore.files import file_lock
with file_lock(Path(sys.argv[1]) / "compaction.lock", exclusive=True) as got:
    print(got, flush=True)
    sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", code, str(store.directory)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)  # fmt: skip
    assert other.stdout.readline() == "True\n"
    assert compact(store.directory, select=everything) is None
    other.kill()
    other.communicate()
    assert compact(store.directory, select=everything).after == 1


def test_a_part_with_a_wrong_checksum_is_not_compacted_and_reported(store):
    torn = store.catalog.parts()[2]
    path = store.catalog.path_of(torn)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    done = compact(store.directory, select=everything, retention_s=0)
    assert (done.before, done.after, done.runs) == (5, 1, 5)
    assert "its checksum differs from the recorded one" in done.problems[0]
    assert torn in store.catalog.parts()
    assert path.read_bytes() == content


def test_a_full_disk_during_a_compaction_leaves_the_old_parts(store, monkeypatch):
    before, parts = files(store), store.catalog.parts()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"could not be compacted \(no space left"):
            compact(store.directory, select=everything)
    assert (files(store), store.catalog.parts()) == (before, parts)
    assert verify(store.catalog) == []


def test_parts_removed_during_a_compaction_are_not_restored(store, monkeypatch):
    """verify --repair quarantines a part during its compaction."""
    parts = store.catalog.parts()
    real = compaction.write_part

    def write(directory, table):
        with store.catalog.transaction() as db:
            db.execute("DELETE FROM parts WHERE seq = ?", (parts[0].seq,))
        return real(directory, table)

    monkeypatch.setattr(compaction, "write_part", write)
    assert compact(store.directory, select=everything).after == 0
    assert store.catalog.parts() == parts[1:]
    assert [path.name for path in orphans(store.catalog)] == [parts[0].name]


KILLED = """
import os, signal, sys
from pathlib import Path
from jsc_explore.store import compaction
from jsc_explore.store.catalog import Catalog
where = sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "written":
    compaction._replace_parts = die
elif where == "switched":
    real = compaction._replace_parts
    compaction._replace_parts = lambda *a: (real(*a), die())
elif where == "half":
    os.fsync = die
compaction.compact(Path(sys.argv[1]), select=lambda parts: parts)
"""


@pytest.mark.parametrize("where", ["half", "written", "switched"])
def test_a_compaction_killed_at_any_point_has_no_effect_or_is_complete(store, where):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(store.directory), where], env=ENVIRONMENT)
    assert ended.returncode == -signal.SIGKILL
    assert len(store.catalog.parts()) == (1 if where == "switched" else 6)
    store.refresh()
    assert store.runs().num_rows == 6
    assert len(store.recover().removed) == (0 if where == "switched" else 1)
    assert verify(store.catalog) == []
    assert compact(store.directory, select=everything, retention_s=0).runs == (0 if where == "switched" else 6)
    assert len(files(store)) == 1


READER = """
import sys, time
from pathlib import Path
from jsc_explore.store import Store
store = Store(Path(sys.argv[1]), read_only=sys.argv[2] == "read-only")
print("ready", flush=True)
looks, last, sizes = 0, 0, set()
while not (Path(sys.argv[1]) / "done").exists():
    store.refresh()
    ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
    assert len(ids) == len(set(ids)), "a run appears twice"
    assert len(ids) >= last, "a run is missing"
    curves = store.curves(ids, ["step"])
    assert curves.num_rows == 4 * len(ids), "a curve is missing or appears twice"
    assert store.problems == []
    looks, last = looks + 1, len(ids)
store.refresh()
print(looks, store.runs().num_rows)
"""


def test_a_process_that_ends_waits_until_its_compaction_has_stopped():
    code = """
from pathlib import Path
from jsc_explore.store import compaction
compaction.compact = lambda directory, stop: print("stopped", stop.wait(60), flush=True)
compaction.BackgroundCompaction(Path("store")).start()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stopped True\n"), ended.stderr


def test_readers_in_other_processes_see_every_run_once_during_compactions(store):
    """Without any time of grace, which is harder than what users have: files vanish under the readers."""
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(store.directory), how], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for how in ("read-write", "read-only")
    ]  # fmt: skip
    assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 2
    deadline, seed = time.monotonic() + 6, 100
    while time.monotonic() < deadline:
        for _ in range(5):
            store.add(run(seed))
            seed += 1
        compact(store.directory, select=everything, retention_s=0)
    (store.directory / "done").touch()
    for reader in readers:
        out, err = reader.communicate(timeout=120)
        assert reader.returncode == 0, err
        looks, rows = map(int, out.split())
        assert looks > 3
        assert rows == 6 + seed - 100
    assert verify(store.catalog) == []
