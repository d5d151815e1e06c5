"""The metric against one hyperparameter: its rows, its axes, its tables, and that the chart is valid Vega-Lite."""

import itertools
import json

import altair as alt
import numpy as np
import pyarrow.parquet as pq
import pytest
from servers import ROOT

from jsc_explore.analysis.statistics import median_spread
from jsc_explore.charts.curve_labels import LABELS
from jsc_explore.charts.response import (
    HEIGHT,
    MIDDLE_HALF,
    POINTS,
    SEEDS,
    ResponseOptions,
    response_axes,
    response_figure,
    response_tables,
    spread_of,
)
from jsc_explore.export.chart_files import render_image
from jsc_explore.network import NAMED, parse
from jsc_explore.store import Store
from jsc_explore.store.query.grid import varying_fields
from jsc_explore.view_model.repository import response_rows
from jsc_explore.view_model.response import fields_of, response_of

SNAPSHOT = ROOT / "results.parquet"
LAB = {
    "dataset": ["simulated"], "validation": ["train"], "max_epochs": [10], "optimizer": ["adam"],
    "scheduler": ["cosine"], "precision": ["32-true"], "weight_decay": [0.0], "patience": [0],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    opened = Store(tmp_path_factory.mktemp("store"), SNAPSHOT)
    yield opened
    opened.close()


def row(x, metrics=(0.7,), field="batch_size", **changes):
    """One row of ``response_rows``: a point whose seeds have these metrics; silent ones are given as n_silent."""
    low, high = map(float, median_spread(metrics)) if len(metrics) else (None, None)
    found = {
        field: x, "metrics": list(metrics) or None, "median": float(np.median(metrics)) if len(metrics) else None,
        "low": low, "high": high, "median_all": 0.5, "lowest": 0.4, "highest": 0.7, "n_silent": 0, "n_diverged": 0,
        "n_configs": 1, "n_hidden": 0,
    } | changes  # fmt: skip
    return {"n": len(metrics) + found["n_silent"]} | found


def test_points_are_the_plain_medians_and_intervals_of_the_stored_seeds(store):
    filters = LAB | {"model": ["jsc-tiny"], "final_relu": [True]}
    rows = response_rows(store, ("batch_size", "learning_rate"), "val_acc", filters)
    options = ResponseOptions("val_acc", "batch_size", "learning_rate")
    points = response_tables(rows, options, response_axes(rows, options))[POINTS].to_pylist()
    runs = [
        run for run in pq.read_table(SNAPSHOT).to_pylist() if all(run[name] in filters[name] for name in filters)
    ]  # fmt: skip
    places = {(run["batch_size"], run["learning_rate"]) for run in runs}
    assert len(points) == len(places) > 20
    for point in points:
        own = [run for run in runs if (run["batch_size"], f"{run['learning_rate']:g}") == (point["x"], at(point))]
        loud = [run["val_acc"] for run in own if not run["silent_classes"]]
        assert point["value"] == pytest.approx(np.median(loud or [run["val_acc"] for run in own]))
        assert point["open"] == (not loud)
        assert point["mark"] == ("†" if len(loud) < len(own) else "")
        if len(loud) >= 5:
            assert (point["kind"], point["low"], point["high"]) == ("95% interval", *pytest.approx(median_spread(loud)))
        elif len(loud) > 1:
            assert (point["kind"], point["low"], point["high"]) == ("range", min(loud), max(loud))


def at(point):
    return f"{float(point['line']):g}"


def test_a_point_of_several_configs_has_the_middle_half_of_its_runs_and_no_interval():
    values = [0.6, 0.61, 0.7, 0.72, 0.73, 0.9]
    low, high, kind = spread_of(row(16, values, n_configs=2), "val_acc")
    assert (low, high, kind) == (*np.quantile(values, [0.25, 0.75]), MIDDLE_HALF)
    rows = [row(16, values, n_configs=2)]
    said = response_of(rows, ResponseOptions("val_acc", "batch_size"), ["model", "batch_size", "learning_rate"]).legend
    assert "wide bar: middle half of the runs of several configs, of any network and learning rate" in said
    assert spread_of(row(16, values), "val_acc")[2] == "95% interval"
    assert spread_of(row(16, values[:4]), "val_acc") == (0.6, 0.72, "range")
    assert spread_of(row(16, values[:1]), "val_acc") is None
    assert spread_of(row(16, values), "train_time_s") is None, "a time differs by what else the machine did"


def axes_of(field, values, **options):
    return response_axes([row(value, field=field) for value in values], ResponseOptions("val_acc", field, **options))


@pytest.mark.parametrize(
    ("field", "values"), [("batch_size", [256, 16]), ("learning_rate", [1e-2, 1e-4]), ("max_epochs", [50, 1])]
)
def test_numbers_that_grow_by_factors_have_a_logarithmic_axis(field, values):
    axes = axes_of(field, values)
    assert axes.log_x
    assert axes.ticks == tuple(sorted(map(float, values)))


@pytest.mark.parametrize(
    ("field", "values", "labels"),
    [
        ("optimizer", ["sgd", "adam"], ("adam", "sgd")),
        ("weight_decay", [1e-3, 0.0, 1e-2], ("0", "1e-3", "1e-2")),
        ("final_relu", [False, True], ("yes", "no")),
    ],
)
def test_other_values_stand_evenly_in_their_order(field, values, labels):
    axes = axes_of(field, values)
    assert not axes.log_x
    assert (axes.ticks, axes.labels) == (tuple(map(float, range(len(values)))), labels)


def test_networks_stand_at_their_number_of_parameters_under_their_names():
    names = ["jsc-s", "jsc-tiny", "16-32-5", "16-8/tanh-8-5", "16-8-8-5"]
    axes = axes_of("model", names)
    assert axes.log_x
    assert dict(axes.places) == {name: parse(name).parameters for name in names}
    assert list(axes.ticks) == sorted({parse(name).parameters for name in names})
    assert axes.labels[axes.ticks.index(parse("jsc-s").parameters)] == "jsc-s"
    # Two of the same size share a place.
    assert axes.labels[axes.ticks.index(parse("16-8-8-5").parameters)] == "16-8-8-5, 16-8/tanh-8-5"


def test_names_of_networks_that_are_near_each_other_stand_in_rows():
    names = [*NAMED, "16-64-32-32-5"]
    spec = figure_of([row(name, [0.7], "model") for name in names], against="model").spec
    labels = next(
        layer["encoding"]["x"]["axis"]["labelExpr"]
        for layer in spec["layer"]
        if "axis" in layer["encoding"].get("x", {})
    )
    rows = {lines[-1]: len(lines) for lines in json.loads(labels[: labels.index("[indexof")])}
    assert set(rows) == set(names)
    assert rows["jsc-tiny"] == rows["jsc-toy"] == 1
    assert len({rows[name] for name in ("jsc-conv", "jsc-trt", "16-64-32-32-5", "jsc-s")}) > 2


def test_the_range_fits_the_data_and_holds_chance_only_where_it_is_near():
    options = ResponseOptions("val_acc", "batch_size")
    low, high = response_axes([row(16, [0.70, 0.72]), row(32, [0.74])], options).y_range
    assert 0.695 < low < 0.70
    assert 0.74 < high < 0.745
    low, _ = response_axes([row(16, [0.25]), row(32, [0.74])], options).y_range
    assert low < 0.2
    drawn = json.dumps(figure_of([row(16, [0.25]), row(32, [0.74])]).spec)
    assert '"chance"' in drawn
    assert '"chance"' not in json.dumps(figure_of([row(16, [0.6]), row(32, [0.74])]).spec)
    losses = [row(16, [0.9]), row(32, [15.0])]
    assert response_axes(losses, ResponseOptions("val_loss", "batch_size")).log_y


def figure_of(rows, **changes):
    options = ResponseOptions(**({"metric": "val_acc", "against": "batch_size"} | changes))
    axes = response_axes(rows, options)
    return response_figure(response_tables(rows, options, axes), options, axes)


def test_silent_seeds_are_counted_beside_a_point_and_a_point_of_such_seeds_alone_is_open():
    rows = [row(16, [0.7, 0.71], n_silent=3), row(32, [], n_silent=5), row(64, [0.7])]
    options = ResponseOptions("val_acc", "batch_size")
    points = response_tables(rows, options, response_axes(rows, options))[POINTS].to_pylist()
    assert [point["mark"] for point in points] == ["† 3 of 5", "† 5 of 5", ""]
    assert [point["open"] for point in points] == [False, True, False]
    assert [point["value"] for point in points] == [pytest.approx(0.705), 0.5, 0.7]
    said = response_of(rows, options).legend
    assert "open: each of the seeds has a silent class" in said
    assert "bar: range of fewer than 5 seeds" in said


def test_labels_of_lines_that_end_together_do_not_overlap():
    rates = [1e-5, 1e-4, 1e-3, 1e-2]
    rows = [row(16, [0.7 + 0.0001 * i], learning_rate=rate) for i, rate in enumerate(rates)]
    rows += [row(16, [0.3], learning_rate=0.1)]
    options = ResponseOptions("val_acc", "batch_size", "learning_rate")
    axes = response_axes(rows, options)
    tables = response_tables(rows, options, axes)
    low, high = axes.y_range
    heights = sorted(label["at"] * (HEIGHT - 70) / (high - low) for label in tables[LABELS].to_pylist())
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15 - 1e-6
    assert {label["line"]: label["at"] for label in tables[LABELS].to_pylist()}["1e-1"] == pytest.approx(0.3)
    assert tables[SEEDS].num_rows == 5


def test_many_lines_are_thinned_and_the_legend_says_so():
    rows = [row(16, [0.7], learning_rate=10.0**-i) for i in range(8)]
    rows += [row(16, [0.7], learning_rate=3 * 10.0**-i) for i in range(1, 8)]
    drawn = response_of(rows, ResponseOptions("val_acc", "batch_size", "learning_rate"))
    assert drawn.figures[0][1].tables[LABELS].num_rows == 12
    assert "12 of 15 lines are drawn" in drawn.legend
    assert drawn.table.num_rows == 15


def test_the_table_has_the_columns_of_the_grids_table():
    rows = [row("jsc-s", [0.7, 0.71], field="model", final_relu=True, n_silent=1, n_diverged=1), row("jsc-tiny", [0.6],
            field="model", final_relu=True)]  # fmt: skip
    drawn = response_of(rows, ResponseOptions("val_acc", "model", "final_relu"))
    first, second = drawn.table.to_pylist()
    assert (first["model"], second["model"]) == ("jsc-tiny", "jsc-s")
    assert second | {"median": 0, "low": 0, "high": 0} == {
        "final_relu": True, "model": "jsc-s", "parameters": parse("jsc-s").parameters, "metric": "val_acc",
        "n_median": 2, "median": 0, "low": 0, "high": 0, "spread": "range", "median_all": 0.5, "lowest": 0.4,
        "highest": 0.7, "n": 3, "n_configs": 1, "n_silent": 1, "n_diverged": 1,
    }  # fmt: skip
    assert "1 diverged run is left out." in drawn.legend


def test_the_fields_are_those_of_the_grid_unless_others_are_chosen():
    varying = ["batch_size", "learning_rate", "model"]
    at_grid = {"against": "auto", "lines": "auto"}
    assert fields_of(at_grid, varying, "batch_size", "learning_rate") == ("batch_size", "learning_rate")
    assert fields_of(at_grid, ["batch_size"], "batch_size", "learning_rate") == ("batch_size", None)
    swapped = {"against": "learning_rate", "lines": "auto"}
    assert fields_of(swapped, varying, "batch_size", "learning_rate") == ("learning_rate", "batch_size")
    assert fields_of(at_grid | {"lines": "none"}, varying, "batch_size", "learning_rate") == ("batch_size", None)
    assert fields_of(at_grid | {"lines": "model"}, varying, "batch_size", "learning_rate") == ("batch_size", "model")
    assert fields_of({"against": "model", "lines": "model"}, varying, "batch_size", "learning_rate") == ("model", None)


def test_fields_vary_where_the_passing_runs_have_several_values(store):
    assert varying_fields(store, LAB | {"model": ["jsc-tiny"], "final_relu": [True]}) == ["batch_size", "learning_rate"]
    assert "model" in varying_fields(store, LAB)
    assert (
        varying_fields(store, LAB, "batch_size = 16 and learning_rate = 1e-3 and model = 'jsc-s' and final_relu") == []
    )
    assert varying_fields(store, {"model": ["16-3-5"]}) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("metric", ["val_acc", "val_loss", "train_time_s"])
@pytest.mark.parametrize("against", ["batch_size", "model", "final_relu", "optimizer"])
def test_the_chart_is_valid_and_can_be_drawn_without_a_browser(theme, metric, against):
    values = {"batch_size": [16, 32], "model": ["jsc-s", "jsc-tiny"], "final_relu": [True, False]}.get(
        against, ["adam", "sgd"]
    )
    rows = [
        row(value, [0.2, 0.3, 0.7], against, learning_rate=rate, n_silent=i)
        for i, (value, rate) in enumerate(itertools.product(values, [1e-3, 1e-2]))
    ]
    figure = figure_of(rows, metric=metric, against=against, lines="learning_rate", theme=theme)
    alt.LayerChart.from_dict(dict(figure.spec))
    # The page's theme gives every mark that does not say otherwise a tooltip of its columns.
    assert all("tooltip" in one["encoding"] or one["mark"]["tooltip"] is None for one in figure.spec["layer"])
    image = render_image(figure, "svg").decode()
    for name in values:
        assert {True: "yes", False: "no"}.get(name, str(name)) in image
    assert "1e-3" in image
