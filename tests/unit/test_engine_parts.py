"""Parts of the engine: checkpoint files, data transfer to workers, the disk reserve, the log."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import eventually

from jsc_explore import data, processes
from jsc_explore.data import cache
from jsc_explore.data.sources import SourceData
from jsc_explore.errors import DataError
from jsc_explore.files import safetensors_metadata
from jsc_explore.jobs.cluster import dataset_transfer
from jsc_explore.jobs.engine import disk_reserve, supervisor
from jsc_explore.jobs.engine.checkpoints import Checkpoints
from jsc_explore.jobs.engine.disk_reserve import DiskReserve
from jsc_explore.store.directory import open_directory

SAMPLE = "simulated-few"


def state(epoch, size=64):
    return safetensors.numpy.save({"flat": np.arange(size, dtype=np.float32)}, {"epoch": str(epoch)})


# ---- checkpoints


def test_the_header_is_read_as_it_was_written():
    assert safetensors_metadata(state(7)) == {"epoch": "7"}


@settings(deadline=None)  # a shared machine may stall
@given(st.integers(0, len(state(7)) - 1))
def test_bytes_that_end_too_early_are_no_checkpoint(length):
    with pytest.raises(ValueError, match=" "):
        safetensors_metadata(state(7)[:length])


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=100), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
    lambda value: len(text := json.dumps(value).encode()).to_bytes(8, "little") + text
)))  # fmt: skip
def test_whatever_the_bytes_hold_there_is_one_kind_of_error(content):
    with pytest.raises(ValueError, match=" "):
        safetensors_metadata(content)


A, B, C = (letter * 32 for letter in "abc")


def test_the_latest_checkpoint_of_a_run_is_on_the_disk_until_the_run_has_ended(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save(A, state(epoch))
        checkpoints.save(B, state(10 * epoch))
    assert (checkpoints.epoch(A), checkpoints.epoch(B), checkpoints.epoch(C)) == (3, 30, 0)
    checkpoints.drop(B)
    checkpoints.close()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{A}.safetensors"]
    later = Checkpoints(tmp_path)
    later.recover({A})
    assert (later.epoch(A), later.read(A), later.read(B)) == (3, state(3), None)
    later.recover(set())
    assert list((tmp_path / "checkpoints").iterdir()) == []
    later.close()


def test_a_checkpoint_that_cannot_be_written_is_reported_kept_in_memory_and_written_later(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / "checkpoints").write_text("in the way")
    checkpoints.save(A, state(4))
    assert "checkpoints cannot be written" in eventually(lambda: checkpoints.problem)
    assert checkpoints.read(A) == state(4)
    (tmp_path / "checkpoints").unlink()
    eventually(lambda: not checkpoints.problem)
    assert (tmp_path / "checkpoints" / f"{A}.safetensors").read_bytes() == state(4)
    checkpoints.close()


# ---- data transfer


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """Files of a data set on the engine's machine; afterwards the environment is a worker's with an empty cache."""
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "engine"))
    (tmp_path / "engine").mkdir()
    jets = data.load("simulated")
    release = SourceData(np.ascontiguousarray(jets.features[:500]), jets.labels[:500], "", "MIT", "")
    cache.write(tmp_path / "engine", SAMPLE, release)
    digest, content = data.digest(SAMPLE), dataset_transfer.read_files(SAMPLE)
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "worker"))
    monkeypatch.setattr(dataset_transfer, "_temporary", {})
    return digest, *content


def test_missing_jets_are_received_once_and_stay(sent, tmp_path):
    digest, manifest, content = sent
    with pytest.raises(dataset_transfer.MissingDataError, match="no jets with digest"):
        dataset_transfer.load_jets(SAMPLE, digest)
    dataset_transfer.receive(SAMPLE, digest, manifest, content)
    jets = dataset_transfer.load_jets(SAMPLE, digest)
    assert (len(jets), jets.digest) == (500, digest)
    assert not data.is_available(SAMPLE), "the machine's own sources stay as they were"


def test_received_files_with_another_digest_or_path_are_refused(sent):
    digest, manifest, content = sent
    with pytest.raises(DataError, match="received simulated-few with digest"):
        dataset_transfer.receive(SAMPLE, "0" * 64, manifest, content)
    with pytest.raises(DataError, match="received simulated-few with digest"):
        dataset_transfer.receive(
            SAMPLE, digest, manifest.replace(json.loads(manifest)["file"], "../escaped.parquet"), content
        )
    with pytest.raises(dataset_transfer.MissingDataError):
        dataset_transfer.receive(SAMPLE, digest, manifest, content[:-100] + bytes(100))


def test_without_a_writable_cache_received_files_go_to_a_temporary_folder(sent, tmp_path):
    digest, manifest, content = sent
    (tmp_path / "worker").write_text("in the way")
    dataset_transfer.receive(SAMPLE, digest, manifest, content)
    assert dataset_transfer.load_jets(SAMPLE, digest).digest == digest


def test_the_shipped_jets_are_on_every_machine(sent):
    assert len(dataset_transfer.load_jets("simulated", data.digest("simulated"))) == data.size("simulated")


# ---- disk reserve and log


def test_the_disk_reserve_is_acquired_released_and_acquired_again(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_reserve, "RESERVE_BYTES", 4096)
    reserve = DiskReserve(tmp_path / "reserve")
    assert reserve.acquire()
    assert reserve.path.stat().st_size == 4096
    reserve.release_if_full()
    assert reserve.path.exists(), "the disk is not full"
    reserve.release()
    assert not reserve.path.exists()
    assert reserve.acquire()
    assert DiskReserve(tmp_path / "reserve").acquire(), "the file of a crashed engine is reused"


def test_no_reserve_is_acquired_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_reserve, "RESERVE_BYTES", 1 << 60)
    reserve = DiskReserve(tmp_path / "reserve")
    assert not reserve.acquire()
    assert not reserve.path.exists()


def test_a_long_log_is_renamed_when_an_engine_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(processes.sys, "executable", "true")
    open_directory(tmp_path)
    (tmp_path / "engine.log").write_text("short")
    supervisor.start_engine(tmp_path, tmp_path / "none.parquet").communicate(timeout=60)
    assert not (tmp_path / "engine.log.1").exists()
    (tmp_path / "engine.log").write_bytes(b"x" * (supervisor.MAX_LOG_BYTES + 1))
    supervisor.start_engine(tmp_path, tmp_path / "none.parquet").communicate(timeout=60)
    assert (tmp_path / "engine.log.1").stat().st_size > supervisor.MAX_LOG_BYTES
    assert (tmp_path / "engine.log").read_text() == ""
