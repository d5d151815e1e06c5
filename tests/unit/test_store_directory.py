"""A store is a directory with a marker; nothing else is opened, written to or swept as one."""

import json
import multiprocessing
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from runs import record_of

from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError, StoreGoneError
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.jobs import calibration
from jsc_explore.jobs.engine.checkpoints import Checkpoints
from jsc_explore.jobs.engine.supervisor import start_engine
from jsc_explore.jobs.queue import Queue
from jsc_explore.store import Store
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.compaction import compact
from jsc_explore.store.directory import FOLDERS, MARKER, open_directory
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.merge import merge
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.store.verify import verify

OPENERS = {
    "store": Store,
    "store for reading": lambda directory: Store(directory, read_only=True),
    "catalogue": Catalog,
    "queue": Queue,
    "saved views": SavedViews,
    "imported runs": ImportedRuns,
    "checkpoints": Checkpoints,
    "compaction": compact,
    "engine": lambda directory: start_engine(directory, directory / "none.parquet"),
    "calibration": lambda directory: calibration.write(directory, []),
}


def content_of(directory):
    """Return each file below a directory with its bytes, each link with its target, each folder."""

    def read(path):
        return path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()

    return {path.relative_to(directory): read(path) for path in directory.rglob("*")}


@pytest.fixture
def project(tmp_path):
    """An ordinary directory, with folders and files as a store has them."""
    directory = tmp_path / "project"
    for name in ("checkpoints/best.ckpt", f"checkpoints/{'a' * 32}.safetensors", "parts/chapter1.tex",
                 f"parts/{'a' * 32}.parquet", "reserve", "catalog.sqlite-wal", "engine.log"):  # fmt: skip
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("mine")
    return directory


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "store")) as store:
        for seed in range(2):
            store.add(record_of(RunConfig(seed=seed)))
        yield store


@pytest.mark.parametrize("opener", OPENERS)
def test_a_directory_with_other_files_is_refused_in_one_line_and_not_touched(project, opener):
    before = content_of(project)
    with pytest.raises(StoreError, match=rf"project: is not empty and is not a store .*{MARKER}.*; choose .* --store"):
        OPENERS[opener](project)
    assert content_of(project) == before


def test_a_new_and_an_empty_directory_become_a_store_that_opens_again(tmp_path):
    (tmp_path / "empty").mkdir()
    # What a process that was killed while it wrote the marker leaves.
    (tmp_path / "empty" / f".{MARKER}.0a1b2c3d.tmp").write_bytes(b"{")
    ids = {open_directory(tmp_path / name).id for name in ("new/below", "empty")}
    assert len(ids) == 2
    assert {open_directory(tmp_path / name).id for name in ("new/below", "empty")} == ids
    assert json.loads((tmp_path / "empty" / MARKER).read_text()).keys() == {"format", "version", "id"}


def _open(directory, gate, ids):
    gate.wait()
    with closing(Store(directory)) as store:
        ids.put(store.home.id)


def test_processes_that_make_a_store_at_the_same_time_make_one(tmp_path):
    context = multiprocessing.get_context("fork")
    gate, ids = context.Barrier(6), context.SimpleQueue()
    processes = [context.Process(target=_open, args=(tmp_path / "store", gate, ids)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert len({ids.get() for _ in processes}) == 1


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("", "is invalid"),
        ("[" * 4000, "is invalid"),
        ("3", "is invalid"),
        ('{"format": "another", "version": 1, "id": "a"}', "is invalid"),
        (f'{{"format": "jsc-explore store", "version": 1, "id": "../{"a" * 29}"}}', "is invalid"),
        (f'{{"format": "jsc-explore store", "version": 2, "id": "{"a" * 32}"}}', "version 2, .* only version 1"),
    ],
)
def test_an_invalid_marker_is_one_line(tmp_path, marker, says):
    (tmp_path / MARKER).write_text(marker)
    with pytest.raises(StoreError, match=says) as caught:
        Store(tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_an_unwritable_empty_directory_is_an_empty_store_for_reading(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # Not by its permissions: these do not bind the superuser.
    monkeypatch.setattr("jsc_explore.store.directory.atomic_write", refuse)
    monkeypatch.setattr(Path, "mkdir", lambda path, **_: path.is_dir() or refuse())
    with closing(Store(tmp_path)) as store:
        assert (store.read_only, store.runs().num_rows) == ("permission denied", 0)
    assert list(tmp_path.iterdir()) == []


# ---- links


@pytest.mark.parametrize("name", [*FOLDERS, "catalog.sqlite", "engine.log", MARKER, f"parts/{'b' * 32}.parquet"])
def test_a_symbolic_link_inside_a_store_is_refused_and_not_followed(tmp_path, store, name):
    store.close()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{'a' * 32}.safetensors").write_text("mine")
    link = store.directory / name
    if link.exists():
        link.rename(outside / "moved")
    link.symlink_to(outside / "moved" if (outside / "moved").exists() else outside)
    before = content_of(tmp_path)
    for opener in OPENERS.values():
        with pytest.raises(StoreError, match="is a symbolic link"):
            opener(store.directory)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("name", ["parts", "checkpoints"])
def test_a_folder_that_becomes_a_link_while_the_store_is_open_is_not_swept(tmp_path, store, name):
    checkpoints = Checkpoints(store.home)
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (f"{'a' * 32}.safetensors", f".{'a' * 32}.parquet.0a1b2c3d.tmp", f"{'a' * 32}.parquet"):
        (outside / file).write_text("mine")
    before = content_of(outside)
    shutil.rmtree(store.directory / name, ignore_errors=True)
    (store.directory / name).symlink_to(outside)
    with pytest.raises(StoreError, match="is a symbolic link"):
        store.recover() if name == "parts" else checkpoints.recover(set())
    checkpoints.close()
    assert content_of(outside) == before


def test_the_path_of_a_store_may_itself_be_a_link(tmp_path, store):
    (tmp_path / "link").symlink_to(store.directory)
    with closing(Store(tmp_path / "link")) as linked:
        assert linked.runs().num_rows == 2


# ---- names that a catalogue gives


@pytest.mark.parametrize(
    "name", ["../outside/mine.parquet", "{tmp}/outside/mine.parquet", "x/../../outside/mine.parquet", ".."]
)
@pytest.mark.parametrize("table", ["parts", "retired", "conflicts"])
def test_a_catalogue_that_names_files_elsewhere_is_refused_and_they_stay(tmp_path, store, table, name):
    name = name.format(tmp=tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(store.catalog.path_of(store.catalog.parts()[0]), outside / "mine.parquet")
    store.close()
    with closing(sqlite3.connect(store.directory / "catalog.sqlite")) as db, db:
        if table == "parts":
            db.execute("UPDATE parts SET name = ? WHERE seq = 1", [name])
        elif table == "retired":
            db.execute("INSERT INTO retired VALUES (?, 0)", [name])
        else:
            db.execute("INSERT INTO conflicts VALUES ('a', 'b', ?, 'c', 'd', 'e', 'f')", [name])
    before = content_of(outside)
    catalog = Catalog(store.directory)
    readers = {
        "parts": [lambda: Store(store.directory), lambda: verify(catalog), lambda: compact(store.directory)],
        "retired": [lambda: verify(catalog), lambda: compact(store.directory, retention_s=0)],
        "conflicts": [lambda: (store.directory / "conflicts").mkdir() or verify(catalog)],
    }
    with closing(Store(tmp_path / "ours")) as ours:
        readers["parts"].append(lambda: merge(ours, store.directory))
        for read in readers[table]:
            with pytest.raises(StoreError, match=r"which is not the name of a part; run `jsc-explore verify --repair`"):
                read()
    catalog.close()
    assert content_of(outside) == before


def test_the_id_of_a_run_never_becomes_a_path(tmp_path):
    checkpoints = Checkpoints(tmp_path / "store")
    with pytest.raises(StoreError, match="is not the id of a run"):
        checkpoints.save("../../outside", b"")
    checkpoints.drop("../../outside")
    checkpoints.close()


# ---- a store that is gone


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced"])
def test_a_store_that_is_gone_is_told_and_its_path_is_not_made_again(tmp_path, store, how):
    home, queue, views, imported = store.home, Queue(store.home), SavedViews(store.home), ImportedRuns(store.home)
    checkpoints, run = Checkpoints(home), RunConfig(seed=7)
    if how == "removed":
        shutil.rmtree(store.directory)
    else:
        store.directory.rename(tmp_path / "elsewhere")
    if how == "replaced":
        store.directory.mkdir()
        open_directory(store.directory)
    before = content_of(tmp_path)
    for use in (
        store.refresh, store.recover, lambda: store.add(record_of(run)),
        queue.engine, lambda: queue.request({"a": ("b", run)}),
        lambda: views.save("a", "x=model", ""), lambda: imported.add(imported_run()),
        lambda: calibration.write(home, []), lambda: start_engine(home, tmp_path / "none"), lambda: compact(home),
        lambda: open_directory(home.path, expected_id=home.id),
    ):  # fmt: skip
        with pytest.raises(StoreGoneError, match=r"store: is gone .*; put it back, or start again"):
            use()
    assert "is gone" in checkpoints._write("a" * 32, b"")
    assert content_of(tmp_path) == before
    if how == "renamed":
        (tmp_path / "elsewhere").rename(store.directory)
        store.add(record_of(run))
        assert store.runs().num_rows == 3
    checkpoints.close()
    queue.close()


def imported_run():
    return ImportedRun("a", "csv", "a.csv", "a" * 64, {}, {}, [])


def test_a_marker_that_was_written_again_with_the_same_id_is_the_same_store(store):
    marker = store.directory / MARKER
    content = marker.read_bytes()
    marker.unlink()
    with pytest.raises(StoreGoneError):
        store.refresh()
    marker.write_bytes(content)
    store.add(record_of(RunConfig(seed=7)))
    assert store.runs().num_rows == 3


def test_the_check_of_a_store_in_use_opens_no_file(store, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a file was opened"))
    store.home.check()
