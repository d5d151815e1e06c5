"""Merge: runs of another machine are added once, conflicting ones stored separately, invalid rows refused."""

import contextlib
import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import DIGEST
from safetensors.numpy import save

from jsc_explore.cli import main
from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError
from jsc_explore.results import POINT_FIELDS, Outcome, RunRecord
from jsc_explore.store import Store, checks
from jsc_explore.store.compaction import compact
from jsc_explore.store.merge import conflicts, merge
from jsc_explore.store.publish import publish
from jsc_explore.store.schema import OPTIONAL, part_schema, to_table
from jsc_explore.store.verify import verify

WEIGHTS = save({"0.weight": np.arange(4, dtype=np.float32)})


def run(seed=0, curve=None, **changes):
    """A run as training leaves it: shares are shares, weights are safetensors."""
    config = RunConfig(seed=seed)
    points = [dict.fromkeys(POINT_FIELDS, (i + seed) / 100) | {"step": i * 10, "samples": i * 100, "epoch": float(i)}
              for i in range(4)]  # fmt: skip
    points[0]["train_loss"] = None
    values = {
        "status": "done", "stop_reason": "max_epochs", "points": curve or points, "epochs_run": 3, "steps": 30,
        "val_acc": 0.7, "val_loss": 0.8, "train_eval_acc": 0.71, "auc": [0.9, None, 0.8, 0.7, 0.6],
        "confusion": list(range(25)), "silent_classes": ["t"], "versions": {"torch": "2"}, "weights": WEIGHTS,
        "device": "cpu", "backend": "kernel",
    }  # fmt: skip
    outcome = Outcome(**{**values, **changes})
    identity = (config.run_id(DIGEST), config.config_id(DIGEST), DIGEST, 1, config.to_dict(), config.network.parameters)
    return RunRecord(*identity, outcome, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for seed in (0, 1):
        store.add(run(seed))
    yield store
    store.close()


@pytest.fixture
def other(tmp_path):
    store = Store(tmp_path / "other machine's störe")
    yield store
    store.close()


def seeds(store):
    return sorted(store.runs(columns=["seed"])["seed"].to_pylist())


@pytest.mark.parametrize("form", ["store", "store at work", "compacted", "snapshot"])
def test_new_runs_join_and_the_same_ones_are_skipped(store, other, tmp_path, form):
    for seed in (1, 2, 3):
        # Another machine, another time: that is no other result.
        other.add(dataclasses.replace(run(seed, device="cuda", train_time_s=9.0, replicas=7), created_at="2027"))
    source = other.directory
    if form == "compacted":
        compact(other.directory, select=lambda parts: parts, retention_s=0)
    elif form == "snapshot":
        source = tmp_path / "their results.parquet"
        publish(other, source)
    if form != "store at work":
        other.close()
    done = merge(store, source)
    assert (done.added, done.same, done.conflicts, done.refused) == (2, 1, [], [])
    assert seeds(store) == [0, 1, 2, 3]
    assert store.record(run(2).run_id).outcome.points == run(2).outcome.points
    assert store.record(run(2).run_id, weights=True).outcome.weights == (b"" if form == "snapshot" else WEIGHTS)
    assert store.record(run(1).run_id).outcome.device == "cpu"
    again = merge(store, source)
    assert (again.added, again.same, again.conflicts) == (0, 3, [])
    assert verify(store.catalog) == []
    assert not (store.directory / "conflicts").exists()


def test_conflicting_runs_are_reported_and_stored_where_no_reader_sees_them(store, other):
    curve = [dict(point) for point in run(0).outcome.points]
    curve[2]["val_acc"] += 1e-9
    other.add(run(0, val_acc=0.71, curve=curve))
    other.add(run(1))
    other.add(run(2))
    done = merge(store, other.directory)
    assert (done.added, done.same) == (1, 1)
    (conflict,) = done.conflicts
    assert str(conflict) == (
        f"run {run(0).run_id}: differs from {other.directory}: val_acc 0.7, there 0.71, "
        "curve_val_acc[2] 0.02, there 0.020000001"
    )
    assert seeds(store) == [0, 1, 2]
    assert store.record(run(0).run_id).outcome.val_acc == 0.7
    # Nothing is dropped: the other figures lie there, whole.
    (kept,) = (store.directory / "conflicts").iterdir()
    assert pq.read_table(kept)["val_acc"].to_pylist() == [0.71]
    assert list(conflicts(store.catalog)) == [conflict]
    assert verify(store.catalog) == []
    again = merge(store, other.directory)
    assert (again.added, again.same, again.conflicts) == (0, 2, [conflict])
    assert list((store.directory / "conflicts").iterdir()) == [kept]
    assert len(list(conflicts(store.catalog))) == 1
    # Kept through compaction, and checked.
    compact(store.directory, select=lambda parts: parts, retention_s=0)
    kept.write_bytes(kept.read_bytes()[:-1])
    assert [fault.what for fault in verify(store.catalog)] == ["its checksum differs from the recorded one"]


def test_a_run_that_is_twice_in_a_file_is_added_once(store, tmp_path):
    path = tmp_path / "twice.parquet"
    pq.write_table(pa.concat_tables([to_table(run(5)), to_table(run(5)), to_table(run(5, val_acc=0.1))]), path)
    done = merge(store, path)
    assert (done.added, done.same, len(done.conflicts)) == (1, 1, 1)
    assert seeds(store) == [0, 1, 5]


def test_the_snapshot_beneath_counts_as_here(store, other, tmp_path):
    publish(store, tmp_path / "results.parquet")
    above = Store(tmp_path / "above", tmp_path / "results.parquet")
    other.add(run(0))
    other.add(run(1, val_acc=0.1))
    done = merge(above, other.directory)
    assert (done.added, done.same, len(done.conflicts)) == (0, 1, 1)
    assert above.catalog.parts() == []
    above.close()


def test_what_another_machine_did_not_record_yet_is_no_conflict(store, tmp_path):
    path = tmp_path / "before.parquet"
    pq.write_table(pa.concat_tables([to_table(run(1)), to_table(run(2))]).drop_columns([*OPTIONAL]), path)
    done = merge(store, path)
    assert (done.added, done.same, done.refused, done.conflicts) == (1, 1, [], [])
    found = store.runs(columns=["seed", "train_eval_acc"]).to_pylist()
    assert {row["seed"]: row["train_eval_acc"] for row in found} == {0: 0.71, 1: 0.71, 2: None}


# ---- what is refused


def changed(name, value):
    table = to_table(run(9))
    place = table.column_names.index(name)
    kind = table.schema.field(place)
    return table.set_column(place, kind, pa.array([value], kind.type))


BAD = {
    "another id": (changed("run_id", "f" * 32), "its config, data and recipe have the id"),
    "another config": (changed("batch_size", 128), "its config, data and recipe have the id"),
    "no config": (changed("learning_rate", float("nan")), "learning_rate = nan: must be a number"),
    "a config without a field": (changed("optimizer", None), "optimizer = None: must be one of"),
    "a layer bomb": (changed("model", "16-" + "9" * 9 + "-5"), "model"),
    "a path for a data set": (changed("dataset", "simulated-../../etc"), "dataset"),
    "a future recipe": (
        to_table(dataclasses.replace(run(9), recipe_version=2, **dict(zip(("run_id", "config_id"),
                 checks.run_identity(run(9).config, DIGEST, 2), strict=True)))),
        "its recipe version is above 1",
    ),
    "parameters": (changed("parameters", 1), "parameters = 1, the network has 117"),
    "a status of its own": (changed("status", "great"), "status is none of done, diverged"),
    "an accuracy above one": (changed("val_acc", 1.01), "val_acc is out of range"),
    "a loss that is no number": (changed("test_loss", float("nan")), "test_loss is out of range"),
    "an endless time": (changed("train_time_s", float("inf")), "train_time_s is out of range"),
    "no steps": (changed("steps", None), "steps is missing"),
    "negative steps": (changed("steps", -1), "steps is out of range"),
    "too many epochs": (changed("epochs_run", 11), "epochs_run = 11, more than max_epochs"),
    "lists of unequal length": (changed("curve_val_acc", [0.1]), "differ in length"),
    "no curve": (changed("curve_step", None), "curve_step"),
    "a curve out of range": (changed("curve_recall_g", [0.1, 0.2, 7.0, 0.3]), "curve_recall_g is out of range"),
    "a curve that turns back": (changed("curve_step", [0, 10, 5, 20]), "curve_step does not increase"),
    "four areas": (changed("auc", [0.1] * 4), "auc must have 5 values"),
    "a class of its own": (changed("silent_classes", ["x"]), "silent_classes is out of range"),
    "a pickle": (changed("weights", pickle.dumps({"a": 1})), "its weights are not in the safetensors format"),
    "versions": (changed("versions", '{"torch": [1]}'), "versions is not a JSON object of strings"),
    "deep versions": (changed("versions", "[" * 3000), "versions is not a JSON object of strings"),
    "a long text": (changed("device", "x" * 5000), "device is too long"),
    "a digest": (to_table(dataclasses.replace(run(9), data_digest="../x", **dict(zip(("run_id", "config_id"),
                 checks.run_identity(run(9).config, "../x", 1), strict=True)))),
                 "data_digest is not a hexadecimal digest"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_row_that_breaks_a_rule_is_refused_in_one_line_and_the_others_join(store, tmp_path, case):
    table, rule = BAD[case]
    path = tmp_path / "theirs.parquet"
    pq.write_table(pa.concat_tables([to_table(run(2)), table, to_table(run(3))]), path)
    done = merge(store, path)
    (line,) = done.refused
    assert rule in line
    assert line.endswith("; it is skipped")
    assert "\n" not in line
    assert (done.added, done.same, done.conflicts) == (2, 0, [])
    assert seeds(store) == [0, 1, 2, 3]


def test_the_published_runs_of_this_project_break_no_rule():
    from jsc_explore import paths

    for _, table, why in checks.read_row_groups(paths.site_file("results.parquet")):
        assert why == ""
        assert checks.external_faults(table) == {}


def test_invalid_and_truncated_files_are_one_clear_line(store, tmp_path):
    newer = to_table(run(2)).replace_schema_metadata({b"jsc_explore.schema_version": b"99"})
    for name, table in (("foreign", pa.table({"a": [1]})), ("newer", newer)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "text.parquet").write_text("<html>")
    (tmp_path / "pickle.parquet").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty").mkdir()
    for name, says in (
        ("foreign.parquet", "was not written by jsc-explore"), ("text.parquet", "cannot be read as Parquet"),
        ("newer.parquet", "schema version 99, this program reads 1"), ("pickle.parquet", "cannot be read as Parquet"),
        ("empty", "is not a store"), ("nowhere", "does not exist"), ("store", "is this store itself"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=says) as caught:
            merge(store, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert seeds(store) == [0, 1]


def test_a_damaged_part_of_the_source_is_skipped_and_the_others_are_merged(store, other):
    for seed in (2, 3):
        other.add(run(seed))
    path = other.catalog.path_of(other.catalog.parts()[0])
    path.write_bytes(path.read_bytes()[:300])
    done = merge(store, other.directory)
    assert done.added == 1
    assert "cannot be read as Parquet" in done.refused[0]


@pytest.mark.parametrize("seed", range(8))
def test_a_file_with_wrong_bytes_in_it_is_merged_or_refused_and_never_a_traceback(store, tmp_path, seed):
    path, rng = tmp_path / "theirs.parquet", np.random.default_rng(seed)
    pq.write_table(pa.concat_tables([to_table(run(2)), to_table(run(3))]), path)
    content = bytearray(path.read_bytes())
    for _ in range(20):
        bad = content.copy()
        # Half of them in the footer, where everything is decided.
        for at in rng.integers(len(bad) - 9000 if rng.random() < 0.5 else 0, len(bad), rng.integers(1, 4)):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        with contextlib.suppress(StoreError):
            merge(store, path)
    assert [fault for fault in verify(store.catalog) if fault.part is not None] == []


def test_row_groups_beyond_the_limit_are_not_read(store, tmp_path, monkeypatch):
    monkeypatch.setattr("jsc_explore.store.parquet_size.MAX_GROUP_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.parquet"
    table = to_table(run(2)).set_column(
        part_schema().get_field_index("versions"), "versions", pa.array(["x" * (2 << 20)])
    )
    pq.write_table(table, bomb, compression="zstd")
    assert bomb.stat().st_size < 100_000
    with pytest.raises(StoreError, match="is too large: at most 10,000,000 runs, and 1 MiB a row group once decoded"):
        merge(store, bomb)


def test_a_full_disk_during_a_merge_keeps_the_added_runs_and_merging_again_continues(store, tmp_path, monkeypatch):
    monkeypatch.setattr("jsc_explore.store.merge._BATCH_ROWS", 2)
    path = tmp_path / "theirs.parquet"
    pq.write_table(pa.concat_tables([to_table(run(seed)) for seed in range(2, 8)]), path)
    real, calls = store.catalog.add, []

    def full_at_last(table, broken=()):
        calls.append(table)
        if len(calls) == 3:
            raise StoreError("no space left on device")
        return real(table, broken)

    monkeypatch.setattr(store.catalog, "add", full_at_last)
    with pytest.raises(StoreError, match="no space"):
        merge(store, path)
    assert seeds(store) == list(range(6))
    done = merge(store, path)
    assert (done.added, done.same) == (2, 4)


# ---- the command


def test_the_command_says_what_joined_and_exits_with_one_where_figures_differ(
    store, other, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "none.parquet"))

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main.main([*map(str, arguments), "--store", str(store.directory)])
        return (ended.value.code or 0, *capsys.readouterr())

    other.add(run(2))
    counts = f"{other.directory}: 1 runs added, 0 the same here, 0 with other figures, 0 refused\n"
    assert call("merge", other.directory) == (0, counts, "")
    other.add(run(1, val_acc=0.1))
    code, out, err = call("merge", other.directory)
    assert (code, out) == (
        1, f"{other.directory}: 0 runs added, 1 the same here, 1 with other figures, 0 refused\n"
    )  # fmt: skip
    assert err.splitlines()[0].endswith("val_acc 0.7, there 0.1")
    code, out, _ = call("list", "--conflicts")
    assert (code, out) == (0, f"run {run(1).run_id}: differs from {other.directory}: val_acc 0.7, there 0.1\n")
    code, _, err = call("merge", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "1 merged runs with other figures" in call("verify")[2]
