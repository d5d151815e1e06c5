"""Imported runs over the curves: which are drawn, where, how many readings, and the ranges of the axes."""

import pyarrow as pa
import pytest

from jsc_explore.charts.curves import PlotOptions, curve_figure, curve_tables, value_range
from jsc_explore.charts.imported import ENDS, LINES, with_imported
from jsc_explore.export.chart_files import render_image
from jsc_explore.importers.checked_series import LoggedValue, checked_curve
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.view_model.imported_runs import (
    MAX_DRAWN,
    MAX_READINGS,
    last_epoch,
    readings_table,
    runs_table,
    select_imported,
)
from jsc_explore.view_model.url_params import EXPLORE

GROUPS = pa.schema(
    [("config_id", pa.string()), ("is_silent", pa.bool_()), ("x", pa.float64()), ("quantity", pa.string()),
     ("values", pa.list_(pa.float64()))]
)  # fmt: skip
SEEDS = pa.schema(
    [(name, pa.string()) for name in ("run_id", "config_id", "silent", "status", "quantity")]
    + [("seed", pa.int32())]
    + [(name, pa.float64()) for name in ("zero_output_share", "x", "value")]
)


def run(name="theirs", values=(0.5, 0.6), epoch=True, tag="val_acc"):
    series = {tag: [LoggedValue(10 * i + 9, float(i), value) for i, value in enumerate(values)]}
    if epoch:
        series["epoch"] = [LoggedValue(10 * i + 9, float(i), i) for i in range(len(values))]
    points = checked_curve(name, series, batch_size=64).points
    return ImportedRun(name, "csv", f"{name}.csv", name, {"batch_size": 64}, {}, points)


def empty_figure(options):
    return curve_figure(curve_tables(GROUPS.empty_table(), SEEDS.empty_table(), {}, options), [], [], options)


def test_the_first_few_are_drawn_unless_some_are_named():
    runs = [run(f"r{i}") for i in range(MAX_DRAWN + 2)]
    drawn, notes = select_imported(runs, None)
    assert [one.name for one in drawn] == [f"r{i}" for i in range(MAX_DRAWN)]
    assert notes == [f"{MAX_DRAWN} of {MAX_DRAWN + 2} imported runs are drawn: select them under Imported"]
    drawn, notes = select_imported(runs, ["r7", "gone"])
    assert [one.name for one in drawn] == ["r7"]
    assert notes == ["not imported here: gone"]
    assert select_imported(runs, []) == ([], [])


@pytest.mark.parametrize("names", [[], ["a"], ["a b", "lightning_logs/version_0, again (2)"]])
def test_the_url_holds_their_names(names):
    param = EXPLORE.params["imported"]
    assert param.read(param.write(names)) == names


def test_readings_follow_the_chosen_x_axis():
    table, notes = readings_table([run()], "epoch", "val_acc")
    assert table["x"].to_pylist() == [1, 2]
    assert table["value"].to_pylist() == [0.5, 0.6]
    assert notes == []
    assert readings_table([run()], "samples", "val_acc")[0]["x"].to_pylist() == [640, 1280]
    assert readings_table([run()], "epoch", "val_acc", x_range=(1.5, 2))[0]["x"].to_pylist() == [2]
    both, _ = readings_table([run()], "epoch", "acc")
    assert set(both["label"].to_pylist()) == {"imported: theirs, validation"}
    logged, _ = readings_table([run("lab", tag="train_acc")], "step", "acc")
    assert set(logged["label"].to_pylist()) == {"imported: lab, training, training mode"}


def test_missing_quantities_of_a_source_are_reported():
    table, notes = readings_table([run(epoch=False)], "epoch", "val_acc")
    assert table.num_rows == 0
    assert "the imported run theirs has no such readings" in notes[0]
    assert readings_table([run()], "lr_sum", "val_acc")[1] == notes
    assert readings_table([run()], "epoch", "recall_t")[1] == notes


def test_thinned_readings_are_reported_and_a_zoom_shows_all():
    long = run(values=[0.1] * (3 * MAX_READINGS))
    table, notes = readings_table([long], "epoch", "val_acc")
    assert table.num_rows <= MAX_READINGS + 1
    assert table["x"].to_pylist()[-1] == 3 * MAX_READINGS
    assert "one reading in 3 is drawn" in notes[0]
    assert readings_table([long], "epoch", "val_acc", x_range=(0, 100))[0].num_rows == 100


def test_a_logarithmic_axis_leaves_out_zero():
    table, _ = readings_table([run(values=(0.0, 0.5))], "epoch", "val_acc", log=(False, True))
    assert table["value"].to_pylist() == [0.5]


def test_axes_cover_imported_runs():
    high, _ = readings_table([run(values=(0.5, 0.9))], "epoch", "val_acc")
    assert value_range([], PlotOptions(), [high["value"]]) == (0.5, 0.9)
    loss, _ = readings_table([run(values=(3.0, 0.1), tag="val_loss")], "epoch", "val_loss")
    assert value_range([], PlotOptions(metric="val_loss"), [loss["value"]]) == (0.0, 3.0)
    assert last_epoch([run(), run(values=[0.1] * 7)]) == 7
    assert last_epoch([]) == 0


def test_they_are_drawn_even_without_other_curves():
    options = PlotOptions(x_range=(0.0, 10.0))
    table, _ = readings_table([run(), run("others", values=(0.5, 0.61))], "epoch", "val_acc")
    figure = with_imported(empty_figure(options), table, options)
    drawn = render_image(figure, "svg").decode()
    assert "imported: theirs" in drawn
    assert "imported: others" in drawn
    assert figure.tables[LINES].num_rows == 4
    # Names of lines that end close together are stacked.
    assert figure.tables[ENDS]["level"].to_pylist() == [0, 1]
    assert figure.alt_text.endswith("imported: theirs, others")
    assert (
        with_imported(empty_figure(options), table.slice(0, 0), options).tables.keys()
        == empty_figure(options).tables.keys()
    )


def test_their_table_names_figures_and_hyperparameters():
    (row,) = runs_table([run()]).to_pylist()
    assert row["run"] == "theirs"
    assert row["val_acc"] == 0.6
    assert row["batch_size"] == "64"
    assert row["source"] == "theirs.csv"


@pytest.mark.parametrize(
    ("values", "drawn", "count"), [((1.0, 0.5, 0.0, 0.0), 2, "2 readings are"), ((0.0,), 0, "1 re")]
)
def test_readings_that_a_logarithmic_axis_cannot_show_are_counted(values, drawn, count):
    theirs = run("theirs", values, tag="val_loss")
    table, notes = readings_table([theirs], "step", "val_loss", log=(False, True))
    assert table.num_rows == drawn
    assert notes[0].startswith(f"of theirs {count}")
    assert "logarithmic axis" in notes[0]
    assert readings_table([theirs], "step", "val_loss")[1] == []
