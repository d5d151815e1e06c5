"""Overfitting is visible: validation and training jets, both in evaluation mode, in one chart that names each."""

import json

import pyarrow.parquet as pq
import pytest
from runs import DIGEST, record_of

from jsc_explore.charts.curves import MARKS, MEDIANS
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.store.schema import OPTIONAL, to_table
from jsc_explore.view_model import curves
from jsc_explore.view_model.grid import cells_of
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import EXPLORE

SLICE = Slice("learning_rate", "batch_size", None, "val_acc", RunConfig(), DIGEST, (), "", 5, True)


@pytest.fixture
def store_with(tmp_path):
    """A function that opens a store with runs in a snapshot of before the columns were recorded, and newer runs."""
    stores = []

    def open_store(old, new):
        snapshot = tmp_path / "before.parquet"
        pq.write_table(to_table(old).drop_columns(["weights", *OPTIONAL]), snapshot)
        stores.append(Store(tmp_path / "store", snapshot))
        for record in new:
            stores[-1].add(record)
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def panels(store, **state):
    state = EXPLORE.read({})[0] | {"curve": "acc"} | state
    repository = Repository(store)
    cells = cells_of(repository, SLICE, [], ())
    drawn = curves.panels(repository, state, SLICE, cells, {}, "light")
    return drawn, curves.legend(state, drawn.shown)


def test_validation_and_training_are_drawn_together_and_each_is_named(store_with):
    store = store_with(record_of(RunConfig(seed=0)), [record_of(RunConfig(seed=seed)) for seed in (1, 3)])
    drawn, legend = panels(store)
    ((_, figure),) = drawn.figures
    dashes = figure.tables[MEDIANS]["dash"].to_pylist()
    assert dashes == ["training jets"] * 4 + ["validation jets"] * 4
    assert '"In evaluation mode"' in json.dumps(figure.spec)
    assert "their gap is the overfitting" in legend
    assert "Training accuracy, evaluation mode: not recorded for 1 of 3 runs" in [
        note[0].upper() + note[1:] for note in drawn.notes
    ]


@pytest.mark.parametrize("curve", ["train_eval_acc", "train_eval_loss"])
def test_a_curve_that_was_not_recorded_is_said_to_be(store_with, curve):
    drawn, _ = panels(store_with(record_of(RunConfig(seed=0)), []), curve=curve)
    assert drawn.figures == []
    (note,) = drawn.notes
    assert note.endswith("evaluation mode: not recorded for 1 of 1 runs")
    assert panels(store_with(record_of(RunConfig(seed=0)), []), curve="val_acc")[0].notes == []


@pytest.mark.parametrize(("share", "text"), [(0.1234, "12.3%"), (None, "not recorded")])
def test_the_mark_of_a_silent_class_tells_how_many_jets_no_output_recognises(store_with, share, text):
    silent = record_of(RunConfig(seed=2), zero_output_share=share)
    drawn, _ = panels(store_with(record_of(RunConfig(seed=0)), [silent]), curve="val_acc")
    (mark,) = drawn.figures[0][1].tables[MARKS].to_pylist()
    assert mark["name"].endswith(f"silent: t; test jets whose outputs are all zero: {text}")
