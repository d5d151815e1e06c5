"""The words of a view: its title, what is held fixed, its counts, and what stands above a chart in a file."""

import dataclasses
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from jsc_explore import paths
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.figure import Heading
from jsc_explore.charts.network import network_figure
from jsc_explore.config import FIELDS
from jsc_explore.export.chart_files import render_image
from jsc_explore.network import parse
from jsc_explore.store import Store
from jsc_explore.view_model import grid, headline, url_params
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import slice_of
from jsc_explore.view_model.tables import cells_table, commands, public_table


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("home") / "store", paths.snapshot())


def slice_for(**query):
    state, faults = url_params.EXPLORE.read(query)
    assert not faults
    return slice_of(state)


def test_nothing_that_holds_a_value_is_left_out():
    for query in ({}, {"x": "model", "y": "optimizer"}, {"optimizer": "sgd", "x": "momentum"}):
        slice = slice_for(**query)
        said = {*slice.axes, *headline.held_fields(slice)}
        assert {name for name in FIELDS if name != "seed" and slice.base.is_relevant(name)} <= said


@pytest.mark.parametrize(
    ("query", "title", "fixed"),
    [
        ({}, "Validation accuracy · jsc-tiny · 10 epochs", "final ReLU on · validated on training data · Adam"),
        ({"max_epochs": "1"}, "Validation accuracy · jsc-tiny · 1 epoch", "1 epoch · final ReLU on"),
        ({"x": "model", "metric": "best_test_acc"}, "Test accuracy of the best epoch · 10 epochs", "batch size 256"),
        ({"optimizer": "adam,sgd"}, "Validation accuracy · jsc-tiny", "optimizer adam or sgd"),
        ({"max_epochs": "2..10"}, "Validation accuracy · jsc-tiny", "epochs 2 to 10"),
        ({"model": "any", "y": "optimizer", "learning_rate": "1e-2"}, "Validation accuracy", "learning rate 1e-2"),
        ({"filter": "val_acc > 0.7"}, "Validation accuracy", "where val_acc > 0.7"),
    ],
)
def test_title_and_fixed_values_are_in_words(query, title, fixed):
    slice = slice_for(**query)
    assert headline.title(slice).startswith(title)
    assert fixed in headline.fixed_text(slice)


def test_many_runs_with_a_silent_class_are_counted_only_where_the_final_relu_is_on(store):
    def said(**query):
        slice = slice_for(**query)
        return headline.silent_runs_text(slice, grid.cells_of(Repository(store), slice, [], []))

    assert said() == "† In 119 of 180 runs a class is never predicted."
    assert said(final_relu="no") == said(final_relu="yes,no") == said(facet="final_relu") == ""


def test_a_file_carries_title_fixed_values_signs_data_and_date():
    slice = slice_for()
    heading = headline.export_heading(slice, datetime(2026, 11, 27, tzinfo=UTC))
    plain = network_figure(parse("jsc-tiny"))
    drawn = render_image(dataclasses.replace(plain, heading=heading), "svg").decode()
    for text in ("Validation accuracy", "final ReLU on", "†", slice.digest[:12], "2026-11-27"):
        assert text in drawn
    assert slice.digest[:12] not in render_image(plain, "svg").decode()


def test_a_long_heading_is_wrapped_to_the_width_of_the_chart():
    spec = Heading("word " * 60, ("note " * 90,)).spec(480)
    assert len(spec["text"]) > 1
    assert max(map(len, spec["text"])) <= 60
    assert max(map(len, spec["subtitle"])) <= 80


def test_the_table_of_the_grid_has_the_predictions_of_missing_cells(store):
    slice = slice_for()
    cells = grid.cells_of(Repository(store), slice, [], [])
    missing = next(cell for cell in cells if cell.state == "missing")
    measured = next(cell for cell in cells if cell.state == "done")
    known = {cell.config_id: Prediction(0.7, 0.6, 0.8) for cell in (missing, measured)}
    rows = {row["config_id"]: row for row in cells_table(slice, cells, known).to_pylist()}
    assert [rows[missing.config_id][f"predicted{end}"] for end in ("", "_low", "_high")] == [0.7, 0.6, 0.8]
    assert rows[measured.config_id]["predicted"] is None


def test_columns_of_curves_have_public_names():
    table = pa.table({"x": [1.0], "median": [0.5], "smooth": [0.5], "group": ["16"], "line": [3], "is_silent": [True]})
    assert public_table(table, "epoch", "val_acc").column_names == [
        "epoch", "median", "smoothed_median", "colour", "has_silent_class",
    ]  # fmt: skip
    assert public_table(pa.table({"x": [1.0], "value": [0.5]}), "step", "val_loss").column_names == ["step", "val_loss"]


def test_commands_are_in_the_order_of_their_hyperparameters(store):
    lines = commands(store, slice_for())
    sizes = [int(line.split("--batch-size ")[1].split()[0]) if "--batch-size" in line else 256 for line in lines]
    assert len(lines) == 36
    assert sizes == sorted(sizes)
