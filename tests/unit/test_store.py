"""The store: what goes in comes out, readers never see a half, foreign and broken files are named and passed over."""

import dataclasses
import json
import re
import threading
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import DIGEST, record_of
from servers import ROOT

from jsc_explore import __version__
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store import Store
from jsc_explore.store.directory import open_directory
from jsc_explore.store.publish import publish
from jsc_explore.store.query.curves import curve_points
from jsc_explore.store.schema import COLUMNS, METRICS, OPTIONAL, WEIGHTS, from_row, to_table
from jsc_explore.store.verify import verify


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    yield store
    store.close()


def filled(store, batches=(16, 256), rates=(1e-3, 1e-2), seeds=(0, 1, 2)):
    records = [
        record_of(RunConfig(batch_size=b, learning_rate=r, seed=s)) for b in batches for r in rates for s in seeds
    ]
    for record in records:
        store.add(record)
    return records


def test_a_record_comes_back_as_it_went_in(store):
    record = record_of(RunConfig(seed=3, optimizer="sgd"))
    store.add(record)
    assert store.record(record.run_id, weights=True) == record
    assert store.record(record.run_id).outcome.weights == b""
    assert store.record("nothing") is None
    assert store.find(record.run_id[:5]) == [record.run_id]


def test_a_diverged_record_without_points_comes_back_too(store):
    record = record_of(points=1, status="diverged", diverged_step=3, val_acc=None, auc=None, confusion=None)
    store.add(record)
    assert store.record(record.run_id, weights=True) == record


def test_a_run_is_stored_once(store):
    store.add(record_of())
    store.add(record_of())
    assert len(store.catalog.parts()) == 1


def test_a_second_reader_sees_a_part_after_refresh_and_only_then(store, tmp_path):
    reader = Store(tmp_path / "store")
    store.add(record_of())
    assert reader.runs().num_rows == 0
    assert reader.refresh()
    assert reader.runs().num_rows == 1
    assert not reader.refresh()
    reader.close()


def test_filters_choose_runs(store):
    filled(store)
    assert store.runs().num_rows == 12
    assert store.runs({"batch_size": [16], "seed": [0, 1]}).num_rows == 4
    assert store.runs({"learning_rate": []}).num_rows == 0
    assert store.runs({"final_relu": [True]}, ["run_id"]).column_names == ["run_id"]
    assert store.values("batch_size", {"seed": [0]}).to_pylist() == [{"value": 16, "n": 2}, {"value": 256, "n": 2}]
    with pytest.raises(FieldError, match="did you mean batch_size"):
        store.runs({"batchsize": [16]})
    with pytest.raises(FieldError, match="not a column"):
        store.runs(columns=["1; DROP TABLE runs"])


def test_curves_are_tidy_and_know_their_run(store):
    records = filled(store, (16,), (1e-3,))
    table = store.curves([r.run_id for r in records[:2]], ["step", "train_loss", "val_acc"])
    assert table.column_names == ["run_id", "config_id", "seed", "silent", "step", "train_loss", "val_acc"]
    assert table.num_rows == 8
    first = [row for row in table.to_pylist() if row["seed"] == 0]
    assert [row["train_loss"] for row in first] == [None, 1.0, 2.0, 3.0]
    assert store.curves([]).num_rows == 0


def test_grouped_curves_have_the_values_of_all_runs(store):
    records = filled(store, (16,), (1e-3,), range(4))
    table = store.grouped_curves([r.run_id for r in records], "val_loss").to_pylist()
    for silent, seeds in ((False, (0, 1, 3)), (True, (2,))):
        rows = [row for row in table if row["is_silent"] == silent]
        values = np.array([[p["val_loss"] for p in records[seed].outcome.points] for seed in seeds])
        np.testing.assert_allclose([sorted(row["values"]) for row in rows], np.sort(values, axis=0).T)
    assert store.grouped_curves([], "val_loss").num_rows == 0


def test_a_grouped_curve_ends_with_its_shortest_run_and_has_no_diverged_one(store):
    runs = [record_of(RunConfig(seed=seed), points=points) for seed, points in ((0, 4), (1, 3), (3, 4))]
    runs.append(record_of(RunConfig(seed=4), status="diverged"))
    for one in runs:
        store.add(one)
    table = store.grouped_curves([one.run_id for one in runs], "val_loss").to_pylist()
    assert [row["step"] for row in table] == [p["step"] for p in runs[1].outcome.points]
    assert {len(row["values"]) for row in table} == {3}


def test_the_snapshot_and_the_parts_are_one_store(store, tmp_path):
    records = filled(store)
    snapshot = tmp_path / "it's ümlaut.parquet"
    assert publish(store, snapshot) == 12
    other = Store(tmp_path / "other", snapshot)
    assert other.runs().num_rows == 12
    other.add(records[0])
    other.add(record_of(RunConfig(seed=99)))
    assert other.runs().num_rows == 13
    assert len(other.catalog.parts()) == 1
    assert other.curves([records[0].run_id, RunConfig(seed=99).run_id(DIGEST)]).num_rows == 8
    assert dataclasses.replace(
        records[5], outcome=dataclasses.replace(records[5].outcome, weights=b"")
    ) == other.record(records[5].run_id, weights=True)
    assert publish(other, snapshot) == 13
    other.close()


def test_the_snapshot_opens_in_plain_duckdb_and_pandas(store, tmp_path):
    filled(store)
    target = tmp_path / "results.parquet"
    publish(store, target)
    sql = f"SELECT run_id, unnest(curve_epoch) AS epoch, unnest(curve_val_acc) AS acc FROM '{target}'"
    assert duckdb.sql(sql).to_arrow_table().num_rows == 48
    frame = pq.read_table(target).to_pandas()
    assert len(frame.explode(["curve_epoch", "curve_val_acc"])) == 48
    metadata = pq.read_schema(target).metadata
    assert metadata[b"jsc_explore.schema_version"] == b"1"
    said = json.loads(metadata[b"jsc_explore.provenance"])
    assert said.pop("written_by") == f"jsc-explore {__version__}"
    assert datetime.fromisoformat(said.pop("written_at")).tzinfo is not None
    assert said == {
        "runs": 12, "configs": 4, "recipe_versions": {"1": 12}, "data": {"simulated": {DIGEST: 12}},
        "trained_with": [{"torch": "2", "runs": 12}],
    }  # fmt: skip
    assert WEIGHTS.name not in frame.columns


def test_a_new_snapshot_is_read_while_the_store_is_open(store, tmp_path):
    filled(store, (16,), (1e-3,))
    snapshot = tmp_path / "results.parquet"
    publish(store, snapshot)
    reader = Store(tmp_path / "reader", snapshot)
    ids = reader.runs(columns=["run_id"])["run_id"].to_pylist()
    new = record_of(RunConfig(batch_size=4))
    store.add(new)
    publish(store, snapshot)
    # Its rows lie at other places now: a reader that has not looked must not take one run for another.
    assert {row["run_id"] for row in reader.curves(ids, ["step"]).to_pylist()} == set(ids)
    reader.refresh()
    assert reader.runs().num_rows == 4
    assert reader.record(new.run_id).outcome.points == new.outcome.points
    reader.close()


def test_publishing_nothing_or_nowhere_is_a_clear_line_and_keeps_the_old_file(store, tmp_path):
    with pytest.raises(StoreError, match="no runs to publish"):
        publish(store, tmp_path / "r.parquet")
    store.add(record_of())
    (tmp_path / "dir").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        publish(store, tmp_path / "nowhere" / "r.parquet")
    assert list(tmp_path.glob("**/.*tmp")) == []


def test_a_store_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="choose another with --store") as caught:
            Store(directory)
        assert "\n" not in str(caught.value)


def test_a_catalogue_that_is_no_database_is_refused_in_one_line(tmp_path):
    open_directory(tmp_path)
    (tmp_path / "catalog.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="run `jsc-explore verify --repair`"):
        Store(tmp_path)


@pytest.mark.parametrize("broken", ["foreign", "newer", "lacking", "torn"])
def test_an_invalid_snapshot_is_one_clear_line(tmp_path, broken):
    good = to_table(record_of())
    newer = good.replace_schema_metadata({b"jsc_explore.schema_version": b"99"})
    tables = {"foreign": pa.table({"a": [1]}), "newer": newer, "lacking": good.drop_columns(["val_acc"])}
    snapshot = tmp_path / "r.parquet"
    pq.write_table(tables.get(broken, good), snapshot)
    if broken == "torn":
        snapshot.write_bytes(snapshot.read_bytes()[:1000])
    says = {"foreign": "was not written by jsc-explore", "newer": "schema version 99, this program reads 1",
            "lacking": "lacks the column val_acc", "torn": "cannot be read as Parquet"}  # fmt: skip
    store = Store(tmp_path / "store", snapshot)
    (line,) = store.problems
    assert says[broken] in line
    assert "\n" not in line
    assert store.runs().num_rows == 0
    store.close()


def test_runs_without_roc_curves_are_read_listed_and_published_beside_others(store, tmp_path):
    old, new = record_of(RunConfig(seed=0), roc=None), record_of(RunConfig(seed=1))
    before = tmp_path / "before.parquet"
    pq.write_table(to_table(old).drop_columns(["weights"]), before)
    for both in (False, True):
        if both:
            store.add(new)
        seen = Store(store.directory, before)
        ids = [old.run_id, new.run_id][: 1 + both]
        assert seen.problems == []
        assert seen.record(old.run_id).outcome.roc is None
        assert seen.curves(ids, ["step"]).num_rows == 4 * len(ids)
        assert seen.roc_curves(ids)["run_id"].to_pylist() == ids[1:]
        assert publish(seen, tmp_path / "after.parquet") == len(ids)
        assert verify(seen.catalog, tmp_path / "after.parquet") == []
        seen.close()
    again = Store(tmp_path / "again", tmp_path / "after.parquet")
    assert again.roc_curves(ids)["roc"].to_pylist() == [new.outcome.roc]
    again.close()


def test_columns_that_were_not_recorded_yet_are_null(store, tmp_path):
    old, new = record_of(RunConfig(seed=0)), record_of(RunConfig(seed=1), train_eval_acc=0.75, zero_output_share=0.25)
    before, after = tmp_path / "before.parquet", tmp_path / "after.parquet"
    pq.write_table(to_table(old).drop_columns(["weights", *OPTIONAL]), before)
    for both in (False, True):
        if both:
            store.add(new)
        seen = Store(store.directory, before)
        assert seen.problems == []
        outcome = seen.record(old.run_id).outcome
        assert (outcome.train_eval_acc, outcome.zero_output_share) == (None, None)
        assert [point["train_eval_acc"] for point in outcome.points] == [None] * 4
        points = curve_points(seen, [old.run_id], "step", ["val_acc", "train_eval_acc"], budget=100)
        assert points.groups["quantity"].to_pylist() == ["val_acc"] * 4
        assert seen.grouped_curves([old.run_id], "train_eval_acc").num_rows == 0
        assert publish(seen, after) == 1 + both
        assert verify(seen.catalog, before) == verify(seen.catalog, after) == []
        seen.close()


def test_readers_in_threads_while_parts_are_added(store, tmp_path):
    reader, errors = Store(tmp_path / "store"), []
    done = threading.Event()

    def read():
        while not done.is_set():
            try:
                reader.refresh()
                ids = reader.runs(columns=["run_id"])["run_id"].to_pylist()
                assert reader.curves(ids, ["step"]).num_rows == 4 * len(ids)
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for seed in range(15):
        store.add(record_of(RunConfig(seed=seed)))
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []
    reader.close()


# ---- schema


def test_every_column_is_documented_with_its_type_and_meaning():
    """docs/results.md repeats the schema, line by line."""
    text = ROOT.joinpath("docs", "results.md").read_text()
    documented = re.findall(r"^\| `\w+` \|.*$", text, re.M)
    types = [re.sub(r"list<\w+: (\w+)>", r"list of \1", str(column.type)) for column in (*COLUMNS, WEIGHTS)]
    columns = zip((*COLUMNS, WEIGHTS), types, strict=True)
    assert documented == [f"| `{column.name}` | {type_} | {column.doc} |" for column, type_ in columns]


def test_rows_hold_every_field_and_every_quantity():
    names = {column.name for column in COLUMNS}
    assert set(FIELDS) <= names
    assert set(METRICS) <= names
    assert {f"curve_{name}" for name in POINT_FIELDS} <= names
    record = record_of()
    assert from_row(to_table(record).to_pylist()[0]) == record
