"""The store's contract, held by every form a store can have: one suite over all of them."""

import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from runs import DIGEST, record_of

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.store import Store
from jsc_explore.store.compaction import compact
from jsc_explore.store.publish import publish
from jsc_explore.store.query.curves import curve_points
from jsc_explore.store.query.grid import grid_cells
from jsc_explore.store.verify import verify

RECORDS = [record_of(RunConfig(batch_size=b, learning_rate=r, seed=s)) for b in (16, 256) for r in (1e-3, 1e-2)
           for s in (2, 0, 1)]  # fmt: skip
BY_ID = {record.run_id: record for record in RECORDS}
ODD = "with spaces, ümlauts, 'quotes', \"double\", *, [a-z], {b}, %20, #, ; and seed=3"


def without_weights(record):
    return dataclasses.replace(record, outcome=dataclasses.replace(record.outcome, weights=b""))


@functools.cache
def template():
    """A store with every record, written once and copied."""
    directory = tempfile.TemporaryDirectory()
    store = Store(Path(directory.name) / "store")
    for record in RECORDS:
        store.add(record)
    store.close()
    return directory


def local(directory):
    shutil.copytree(Path(template().name) / "store", directory / "store", dirs_exist_ok=True)
    return Store(directory / "store")


def reopened(directory):
    local(directory).close()
    return Store(directory / "store")


def second_reader(directory):
    """A reader that was there before anything was added, and has looked again."""
    Store(directory / "store").close()
    reader = Store(directory / "store")
    writer = Store(directory / "store")
    for record in RECORDS:
        writer.add(record)
    writer.close()
    reader.refresh()
    return reader


def compacted(directory):
    local(directory).close()
    assert compact(directory / "store", select=lambda parts: parts).after == 1
    return Store(directory / "store")


def compacted_under_a_reader(directory):
    store = local(directory)
    store.curves(list(BY_ID), ["step"])
    compact(directory / "store", select=lambda parts: parts, retention_s=0)
    store.refresh()
    return store


def compacted_unnoticed(directory):
    """The files of the generation that the reader knows are gone, and it has not looked."""
    store = local(directory)
    compact(directory / "store", select=lambda parts: parts, retention_s=0)
    return store


def over_a_snapshot(directory):
    source = local(directory)
    publish(source, directory / "results.parquet")
    source.close()
    above = Store(directory / "above", directory / "results.parquet")
    for record in RECORDS[:3]:
        above.add(record)
    return above


def half_in_a_snapshot(directory):
    source = Store(directory / "source")
    for record in RECORDS[:5]:
        source.add(record)
    publish(source, directory / "results.parquet")
    source.close()
    above = Store(directory / "above", directory / "results.parquet")
    for record in RECORDS:
        above.add(record)
    compact(directory / "above", select=lambda parts: parts)
    above.refresh()
    return above


def on_an_odd_path(directory):
    return compacted_under_a_reader(directory / ODD)


def opened_read_only(directory):
    local(directory).close()
    return Store(directory / "store", read_only=True)


def read_only_beside_a_writer(directory):
    local(directory)  # Still open, its log beside it.
    return Store(directory / "store", read_only=True)


BACKENDS = [local, reopened, second_reader, compacted, compacted_under_a_reader, compacted_unnoticed, over_a_snapshot,
            half_in_a_snapshot, on_an_odd_path, opened_read_only, read_only_beside_a_writer]  # fmt: skip
LACK_WEIGHTS = (over_a_snapshot, half_in_a_snapshot)


@pytest.fixture(params=BACKENDS, ids=lambda make: make.__name__)
def make(request):
    return request.param


@pytest.fixture
def store(make, tmp_path):
    store = make(tmp_path)
    yield store
    store.close()


def test_every_run_is_there_once_and_as_it_was_added(store, make):
    assert sorted(store.runs(columns=["run_id"])["run_id"].to_pylist()) == sorted(BY_ID)
    assert store.problems == []
    for run_id, record in BY_ID.items():
        assert without_weights(store.record(run_id)) == without_weights(record)
        if make not in LACK_WEIGHTS:
            assert store.record(run_id, weights=True) == record
    assert store.record("nothing") is None


def test_curves_cells_and_groups_are_those_of_the_records(store):
    table = store.curves(list(BY_ID), ["step", "val_acc"])
    found = {(row["run_id"], row["step"]): row["val_acc"] for row in table.to_pylist()}
    assert table.num_rows == len(found)
    assert found == {(r.run_id, p["step"]): p["val_acc"] for r in RECORDS for p in r.outcome.points}
    groups = {(row["config_id"], row["is_silent"], row["step"]): sorted(row["values"])
             for row in store.grouped_curves(list(BY_ID), "val_acc").to_pylist()}  # fmt: skip
    assert groups[RECORDS[0].config_id, False, 10] == pytest.approx([1.0, 1.1])
    points = curve_points(store, list(BY_ID), "epoch", ["val_acc"], budget=10_000)
    assert points.seeds.num_rows == len(found)
    cells = grid_cells(store, ["batch_size", "learning_rate"], "val_acc", {}).to_pylist()
    assert [cell["n"] for cell in cells] == [3] * 4


def test_refreshing_again_changes_nothing(store):
    store.refresh()
    version = store.version
    assert not store.refresh()
    assert store.version == version
    assert store.runs().num_rows == len(RECORDS)


def test_ids_decide_identity(store, make):
    """What is there is not written again; what is new is there for every reader that looks."""
    if store.read_only:
        with pytest.raises(StoreError, match="it is read-only here"):
            store.add(record_of(RunConfig(seed=77)))
        assert store.runs().num_rows == len(RECORDS)
        return
    store.refresh()
    other = Store(store.directory, store.snapshot)
    before = len(store.catalog.parts())
    for record in RECORDS:
        other.add(dataclasses.replace(record, created_at="2027-01-01T00:00:00+00:00"))
    assert len(store.catalog.parts()) == before
    other.add(record_of(RunConfig(seed=77)))
    other.close()
    assert store.refresh()
    assert store.runs().num_rows == len(RECORDS) + 1
    assert {store.record(run_id).created_at for run_id in BY_ID} == {RECORDS[0].created_at}


def test_files_and_rows_are_what_the_catalogue_says(store):
    assert verify(store.catalog, store.snapshot) == []
    names = {part.name for part in store.catalog.parts()} | {name for name, _ in store.catalog.retired()}
    assert {path.name for path in store.catalog.parts_directory.iterdir()} == names


def test_what_is_published_from_it_is_the_same_snapshot(store, tmp_path):
    assert publish(store, tmp_path / "again.parquet") == len(RECORDS)
    again = Store(tmp_path / "from-snapshot", tmp_path / "again.parquet")
    for run_id, record in BY_ID.items():
        assert again.record(run_id) == without_weights(record)
    again.close()


# ---- read-only, as another user


AS_ANOTHER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from runs import record_of
from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.store import Store
from jsc_explore.store.verify import verify
directory = Path(sys.argv[2])
Store(directory, read_only=True).curves(["x"], ["step"])
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
snapshot = directory.parent / "results.parquet"
store = Store(directory, snapshot)
ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
assert store.curves(ids, ["step"]).num_rows == 4 * len(ids)
assert verify(store.catalog, snapshot) == []
assert store.compact_if_needed() is False
try:
    store.add(record_of(RunConfig(seed=77)))
except StoreError as error:
    print(len(ids), store.read_only, error)
"""


def as_another(directory):
    """Open, read and try to write a store as a user to whom it does not belong; return what was said."""
    tests = Path(__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(tests), str(directory)], capture_output=True, text=True,
        cwd=tests.parent, env={**os.environ, "PYTHONPATH": str(tests.parent)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def open_to_all():
    """A directory that another user may enter: those of pytest are the user's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
        for path in Path(name).rglob("*"):
            path.chmod(0o755)


@pytest.mark.parametrize("writer", ["gone", "at work"])
def test_a_store_of_another_user_is_read_and_says_why_it_is_not_written(open_to_all, writer):
    store = local(open_to_all)
    if writer == "gone":
        store.close()
    for path in [open_to_all / "store", *(open_to_all / "store").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    said = as_another(open_to_all / "store")
    assert said == (
        f"{len(RECORDS)} permission denied store {open_to_all / 'store'}: a finished run could not be written, "
        "it is read-only here (permission denied); ask its owner or choose another with --store\n"
    )
    store.close()


def test_an_empty_directory_that_cannot_be_written_shows_the_snapshot(open_to_all):
    source = local(open_to_all)
    publish(source, open_to_all / "results.parquet")
    source.close()
    (open_to_all / "empty").mkdir(mode=0o555)
    assert as_another(open_to_all / "empty").startswith(f"{len(RECORDS)} permission denied store")


def test_a_store_opened_read_only_leaves_no_trace(tmp_path):
    local(tmp_path).close()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    store = Store(tmp_path / "store", read_only=True)
    store.curves(list(BY_ID), ["step"])
    store.close()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before
    with pytest.raises(StoreError, match="the directory does not exist"):
        Store(tmp_path / "nowhere", read_only=True)


def test_a_read_only_reader_follows_the_writer(tmp_path):
    writer = local(tmp_path)
    reader = Store(tmp_path / "store", read_only=True)
    writer.add(record_of(RunConfig(seed=77)))
    compact(tmp_path / "store", select=lambda parts: parts, retention_s=0)
    assert reader.refresh()
    assert reader.runs().num_rows == len(RECORDS) + 1
    assert reader.record(RunConfig(seed=77).run_id(DIGEST)) is not None
    writer.close()
    reader.close()
