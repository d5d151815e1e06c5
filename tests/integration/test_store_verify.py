"""Verify finds files that are not as they were written; repair quarantines them and keeps their intact rows."""

import dataclasses
import sqlite3

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import DIGEST, record_of

from jsc_explore import data
from jsc_explore.cli import main
from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.store import Store
from jsc_explore.store.checks import row_faults, run_identity
from jsc_explore.store.compaction import compact
from jsc_explore.store.publish import publish
from jsc_explore.store.schema import to_table
from jsc_explore.store.verify import repair, verify


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed in range(3):
        store.add(record_of(RunConfig(seed=seed)))
    yield store
    store.close()


def damage(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 3 if at is None else at] ^= 0xFF
    path.write_bytes(content)


def messages(store, snapshot=None):
    return [fault.what for fault in verify(store.catalog, snapshot)]


def path_of(store, place=0):
    return store.catalog.path_of(store.catalog.parts()[place])


def test_a_sound_store_has_no_faults(store):
    assert messages(store) == []


def test_a_flipped_bit_a_missing_and_an_invalid_part_are_reported(store):
    damage(path_of(store, 0))
    path_of(store, 1).unlink()
    stranger = path_of(store, 2)
    pq.write_table(pa.table({"a": [1]}), stranger)
    assert messages(store) == [
        "its checksum differs from the recorded one",
        "is missing",
        "its checksum differs from the recorded one",
    ]


def rewrite(store, table):
    """Replace the rows of the first part, and its checksum in the catalogue."""
    from jsc_explore.files import sha256_of

    path = path_of(store)
    pq.write_table(table, path)
    with store.catalog.transaction() as db:
        seq = store.catalog.parts()[0].seq
        db.execute("UPDATE parts SET sha256 = ?, rows = ? WHERE seq = ?", (sha256_of(path), table.num_rows, seq))


def test_a_row_whose_id_does_not_follow_from_its_content_is_found(store):
    record = record_of(RunConfig(seed=0))
    rewrite(store, to_table(dataclasses.replace(record, config={**record.config, "batch_size": 128})))
    (line,) = messages(store)
    assert line.startswith(f"run {record.run_id}: its config, data and recipe have the id ")
    rewrite(store, to_table(dataclasses.replace(record, config={**record.config, "batch_size": 0})))
    assert "batch_size = 0: must be a whole number" in messages(store)[0]
    rewrite(store, to_table(dataclasses.replace(record, config_id="0" * 32)))
    assert "not the stored one" in messages(store)[0]


def test_a_curve_of_unequal_lists_and_a_wrong_count_are_found(store):
    table = to_table(record_of(RunConfig(seed=0)))
    place = table.column_names.index("curve_val_acc")
    rewrite(store, table.set_column(place, table.schema.field(place), pa.array([[0.5]])))
    assert "differ in length" in messages(store)[0]
    rewrite(store, pa.concat_tables([table, to_table(record_of(RunConfig(seed=9)))]))
    with store.catalog.transaction() as db:
        db.execute("UPDATE parts SET rows = 1")
    assert messages(store) == ["holds 2 runs, the catalogue says 1"]


def test_a_registered_run_that_is_in_no_part_is_found_and_repaired(store):
    with store.catalog.transaction() as db:
        db.execute("INSERT INTO runs VALUES ('a', 1, '{}', 'd', 1), ('b', 99, '{}', 'd', 1)")
    assert messages(store) == [
        "run a is registered for this part, but not in it",
        "run b is in the catalogue, but its part is not",
    ]
    done = repair(store.catalog, verify(store.catalog))
    assert sorted(entry.run_id for entry in done.lost) == ["a", "b"]
    assert done.runs_kept == 1
    assert messages(store) == []
    store.refresh()
    assert store.runs().num_rows == 3


def test_ids_of_an_older_recipe_are_recomputed_with_that_recipe():
    run = RunConfig(optimizer="sgd")
    assert run_identity(run.to_dict(), DIGEST, 1) == (run.run_id(DIGEST), run.config_id(DIGEST))
    older = run_identity(run.to_dict(), DIGEST, 0)
    assert not set(older) & {run.run_id(DIGEST), run.config_id(DIGEST)}
    record = dataclasses.replace(record_of(run), run_id=older[0], config_id=older[1], recipe_version=0)
    assert row_faults(to_table(record)) == {}


def test_the_rows_of_the_snapshot_are_checked_too(store, tmp_path):
    snapshot = tmp_path / "results.parquet"
    publish(store, snapshot)
    assert messages(store, snapshot) == []
    table = pq.read_table(snapshot)
    pq.write_table(table.set_column(0, "run_id", pa.array(["f" * 32] * 3)), snapshot)
    assert "have the id" in messages(store, snapshot)[0]


def test_repair_quarantines_damaged_parts_and_lists_the_lost_runs(store):
    broken, gone = path_of(store, 0), path_of(store, 1)
    content = bytearray(broken.read_bytes())
    damage(broken, len(content) - 20)  # The footer: nothing in it can be read.
    gone.unlink()
    done = repair(store.catalog, verify(store.catalog))
    assert [entry.config["seed"] for entry in sorted(done.lost, key=lambda entry: entry.config["seed"])] == [0, 1]
    assert done.runs_kept == 0
    assert [path.name for path in store.catalog.quarantine_directory.iterdir()] == [broken.name]
    assert messages(store) == []
    assert store.refresh()
    assert store.runs(columns=["seed"])["seed"].to_pylist() == [2]
    # What was lost can be stored again.
    store.add(record_of(RunConfig(seed=0)))
    assert store.runs().num_rows == 2


def test_of_a_large_part_with_a_bad_sector_only_one_row_group_is_lost(tmp_path):
    store = Store(tmp_path / "large")
    records = [record_of(RunConfig(seed=seed)) for seed in range(300)]
    store.add_table(pa.concat_tables([to_table(record) for record in records]))
    path = path_of(store)
    column = pq.read_metadata(path).row_group(1).column(40)
    damage(path, column.data_page_offset + column.total_compressed_size - 2)
    assert messages(store) == ["its checksum differs from the recorded one"]
    done = repair(store.catalog, verify(store.catalog))
    # Three groups of 128, 128 and 44 runs; the middle one is lost.
    assert (done.runs_kept, len(done.lost)) == (172, 128)
    assert messages(store) == []
    store.refresh()
    assert store.runs().num_rows == 172
    lost = {entry.run_id for entry in done.lost}
    for record in records[::20]:
        assert store.record(record.run_id, weights=True) == (None if record.run_id in lost else record)
    store.close()


@pytest.mark.parametrize("seed", range(12))
def test_repair_keeps_only_correct_runs_whichever_byte_is_damaged(tmp_path, seed):
    """The kept runs equal the stored ones to the bit."""
    store = Store(tmp_path / "store")
    records = [record_of(RunConfig(seed=s)) for s in range(4)]
    store.add_table(pa.concat_tables([to_table(record) for record in records]))
    path = path_of(store)
    damage(path, int(np.random.default_rng(seed).integers(path.stat().st_size)))
    done = repair(store.catalog, verify(store.catalog))
    assert done.runs_kept + len(done.lost) == 4
    assert messages(store) == []
    store.refresh()
    for record in records:
        assert store.record(record.run_id, weights=True) in (None, record)
    store.close()


def test_a_bad_sector_in_one_part_hides_neither_the_others_nor_itself(store):
    path = path_of(store, 1)
    column = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[4 : column.total_compressed_size] = b"\xff" * (column.total_compressed_size - 4)
    path.write_bytes(content)
    reader = Store(store.directory)
    assert sorted(reader.runs(columns=["seed"])["seed"].to_pylist()) == [0, 2]
    (problem,) = reader.problems
    assert problem.startswith(f"{path}: cannot be read (")
    # Trained again, it is stored again.
    reader.add(record_of(RunConfig(seed=1)))
    assert reader.runs().num_rows == 3
    assert reader.record(RunConfig(seed=1).run_id(DIGEST)) is not None
    repair(reader.catalog, verify(reader.catalog))
    reader.refresh()
    assert reader.problems == []
    assert reader.runs().num_rows == 3
    reader.close()


def test_a_quarantined_run_that_the_snapshot_holds_stays_visible(store, tmp_path):
    snapshot = tmp_path / "results.parquet"
    publish(store, snapshot)
    above = Store(store.directory, snapshot)
    path_of(store, 0).unlink()
    repair(store.catalog, verify(store.catalog))
    above.refresh()
    assert above.runs().num_rows == 3
    above.close()


def test_a_part_that_is_being_written_is_not_a_fault(store, monkeypatch):
    monkeypatch.setattr("jsc_explore.store.verify._LOCK_TIMEOUT_S", 0.1)
    (store.catalog.parts_directory / f".{7:032x}.parquet.0a1b2c3d.tmp").write_bytes(b"x")
    with store.catalog.writing("nothing"):
        assert messages(store) == []
    assert messages(store) == ["is not in the catalogue, left by a writer that was killed"]


def test_verify_during_a_compaction_finds_nothing(store):
    compact(store.directory, select=lambda parts: parts)
    assert messages(store) == []
    compact(store.directory, select=lambda parts: parts, retention_s=0)
    assert messages(store) == []


# ---- the command


@pytest.fixture
def call(capsys, monkeypatch, tmp_path, jets_cache):
    """Run one command line in this process on the store; return its exit code, its stdout and its stderr."""
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "none.parquet"))
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(jets_cache))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main.main([*map(str, arguments), "--store", str(tmp_path / "store")])
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def test_the_command_repairs_and_queues_the_lost_runs_again(call, store):
    digest = data.digest("simulated")
    run = RunConfig(seed=5)
    record = dataclasses.replace(
        record_of(run), run_id=run.run_id(digest), config_id=run.config_id(digest), data_digest=digest
    )
    store.add(record)
    for place in (0, 3):  # One that was trained on jets that are here, one on others.
        path_of(store, place).unlink()
    code, out, err = call("verify")
    assert (code, out.count("is missing"), err) == (1, 2, "4 parts checked, 2 faults\n")
    code, out, err = call("verify", "--repair")
    assert code == 1
    assert "1 lost runs queued again" in out
    other = RunConfig(seed=0).run_id(DIGEST)
    assert f"run {other} is lost and cannot be trained again: it was trained on other jets (dddddddddddd)" in out
    queue = Queue(store.directory)
    assert [job.run_id for job in queue.jobs(("queued",))] == [record.run_id]
    queue.close()
    assert call("verify") == (0, "", "2 parts checked, 0 faults\n")


def test_the_command_registers_the_complete_parts_of_killed_writers(call, store):
    path = store.catalog.parts_directory / f"{7:032x}.parquet"
    pq.write_table(to_table(record_of(RunConfig(seed=9))), path)
    assert call("verify")[0] == 1
    code, out, _ = call("verify", "--repair")
    assert (code, f"{path.name}: complete, but its writer ended before it was registered; registered" in out) == (
        0,
        True,
    )
    store.refresh()
    assert store.runs().num_rows == 4


def test_the_command_compacts(call, store):
    assert call("compact", "--keep", "0") == (0, "3 parts compacted into 1, 3 runs\n", "")
    assert call("compact") == (0, "0 parts compacted into 0, 0 runs\n", "")
    assert call("compact", "--keep", "-1")[0] == 2
    with sqlite3.connect(store.directory / "catalog.sqlite") as db:
        assert db.execute("SELECT count(*) FROM retired").fetchone() == (0,)
