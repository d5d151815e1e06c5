"""Curves, networks and files: their tables, that the charts are valid Vega-Lite, and that files can be read back."""

import io
import itertools
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import median_spread, smooth
from jsc_explore.charts.curve_labels import LABELS, move_apart
from jsc_explore.charts.curves import (
    CONTEXT,
    HEIGHT,
    MARKS,
    MEDIANS,
    PREDICTIONS,
    SEEDS,
    CurveStyle,
    PlotOptions,
    count_nonpositive,
    curve_figure,
    curve_tables,
    prediction_table,
    quantities_of,
    value_range,
)  # fmt: skip
from jsc_explore.charts.network import layer_table, network_figure
from jsc_explore.charts.style import BACKGROUND, colours, readable
from jsc_explore.export.chart_files import render_image, table_bytes, zip_archive
from jsc_explore.network import NAMED, parse


def groups_table(config_ids, quantity="val_acc", steps=(0, 10, 20), median=0.5):
    rows = [
        {"config_id": c, "is_silent": False, "x": s / 10,
         "quantity": quantity, "values": [median + 0.1 * (2 * i + 1 - n) for i in range(n)]}
        for c, n in config_ids.items() for s in steps
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=_GROUPS)


def seeds_table(config_id, values=(0.2, 0.6), silent="w t", quantity="val_acc", status="done", run_id="r"):
    rows = [
        {
            "run_id": run_id,
            "config_id": config_id,
            "seed": 3,
            "silent": silent,
            "zero_output_share": 0.25,
            "status": status,
            "x": float(i),
            "quantity": quantity,
            "value": v,
        }
        for i, v in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=_SEEDS)


_GROUPS = pa.schema(
    [("config_id", pa.string()), ("is_silent", pa.bool_()), ("x", pa.float64()), ("quantity", pa.string()),
     ("values", pa.list_(pa.float64()))]
)  # fmt: skip
_SEEDS = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32()), ("silent", pa.string()),
     ("zero_output_share", pa.float64()), ("status", pa.string()), ("x", pa.float64()), ("quantity", pa.string()),
     ("value", pa.float64())]
)  # fmt: skip
LINES = {"a": CurveStyle("Batch size 16", "16 (n=4)"), "b": CurveStyle("Batch size 32", highlighted=False)}


def tables(options=PlotOptions(), groups=None, seeds=None):  # noqa: B008
    groups = groups_table({"a": 4, "b": 1, "c": 2}) if groups is None else groups
    return curve_tables(groups, seeds_table("a") if seeds is None else seeds, LINES, options)


@pytest.mark.parametrize(
    ("band", "n", "low", "high"),
    [
        ("interval", 4, 0.2, 0.8),
        ("interval", 6, *median_spread(0.5 + 0.1 * np.arange(-5, 6, 2))),
        ("range", 6, 0.0, 1.0),
        ("none", 6, 0.5, 0.5),
    ],
)
def test_a_curve_has_median_band_and_each_seed(band, n, low, high):
    drawn = tables(PlotOptions(band=band), groups_table({"a": n, "b": 1, "c": 2}))
    assert set(drawn[MEDIANS]["config_id"].to_pylist()) == {"a"}
    assert drawn[CONTEXT].to_pylist()[0] == {
        "line": 0,
        "is_silent": False,
        "x": 0.0,
        "median": 0.5,
        "name": "Batch size 32",
    }
    assert drawn[CONTEXT].num_rows == 3
    first = drawn[MEDIANS].to_pylist()[0]
    assert (first["low"], first["high"]) == (pytest.approx(low), pytest.approx(high))
    assert (first["name"], first["group"]) == ("Batch size 16", "16 (n=4)")
    assert drawn[SEEDS]["value"].to_pylist() == [0.2, 0.6]


def test_the_band_of_two_seeds_is_their_range_and_that_of_one_nothing():
    for n, ends in ((1, (0.5, 0.5)), (2, (0.4, 0.6))):
        rows = tables(groups=groups_table({"a": n}))[MEDIANS].to_pylist()
        assert [(row["low"], row["median"], row["high"]) for row in rows] == [(ends[0], 0.5, ends[1])] * 3


def test_without_lines_of_each_seed_only_cancelled_ones_are_drawn_and_marked():
    cancelled = [seeds_table("a", (0.2, end), "", status="cancelled", run_id=str(end)) for end in (0.5, 0.505)]
    seeds = pa.concat_tables([seeds_table("a"), *cancelled])
    drawn = tables(PlotOptions(seed_lines=False), seeds=seeds)
    assert drawn[SEEDS]["value"].to_pylist() == [0.2, 0.5, 0.2, 0.505]
    (mark,) = drawn[MARKS].to_pylist()
    assert mark["mark"] == "cancelled", "a † belongs to a seed that is drawn"
    assert mark["name"].count("seed 3: cancelled, in no median") == 2


def test_a_seed_with_a_silent_class_is_marked_at_the_end_of_its_curve():
    (mark,) = tables()[MARKS].to_pylist()
    assert (mark["x"], mark["value"], mark["mark"]) == (1.0, 0.6, "†wt")
    assert mark["name"] == ("Batch size 16, seed 3: silent: w, t; test jets whose outputs are all zero: 25.0%")
    assert tables(seeds=seeds_table("a", silent=""))[MARKS].num_rows == 0


def test_marks_of_lines_that_end_together_do_not_overlap():
    both = {"a": LINES["a"], "b": CurveStyle("Batch size 32", "32 (n=1)")}
    seeds = pa.concat_tables([seeds_table("a", (0.2, 0.6)), seeds_table("b", (0.2, 0.6), silent="z")])
    seeds = seeds.set_column(0, "run_id", pa.array(["r", "r", "s", "s"]))
    low, high = curve_tables(groups_table({"a": 1, "b": 1}), seeds, both, PlotOptions())[MARKS].to_pylist()
    assert {low["mark"], high["mark"]} == {"†wt", "†z"}
    assert (low["value"], high["value"]) == (0.6, pytest.approx(0.6 + 0.05 * (0.6 - 0.2)))


def test_a_logarithmic_axis_leaves_out_nonpositive_points_and_counts_them():
    drawn = tables(PlotOptions(log_x=True))
    assert drawn[MEDIANS]["x"].to_pylist() == drawn[CONTEXT]["x"].to_pylist() == [1.0, 2.0]
    options = PlotOptions(metric="val_loss", log_y=True)
    seeds = seeds_table("a", (0.0, -1.0, 2.0), quantity="val_loss")
    assert count_nonpositive(seeds, options) == 2
    assert tables(options, groups_table({"a": 2}, "val_loss"), seeds)[SEEDS]["value"].to_pylist() == [2.0]
    assert count_nonpositive(seeds, PlotOptions()) == 0


def test_training_and_validation_in_one_chart_differ_by_their_dash():
    assert quantities_of("acc") == ("val_acc", "train_eval_acc")
    groups = pa.concat_tables([groups_table({"a": 2}), groups_table({"a": 2}, "train_eval_acc")])
    drawn = tables(PlotOptions(metric="acc"), groups)
    assert drawn[MEDIANS]["dash"].to_pylist() == ["validation jets"] * 3 + ["training jets"] * 3


def test_smoothing_keeps_the_raw_median_and_smooths_each_curve_alone():
    groups = pa.concat_tables([groups_table({"a": 2}, median=0.2), groups_table({"b": 2}, median=0.8)])
    both = {"a": LINES["a"], "b": CurveStyle("Batch size 32", "32 (n=2)")}
    drawn = curve_tables(groups, seeds_table("a"), both, PlotOptions(smoothing=0.9))[MEDIANS]
    assert drawn["median"].to_pylist() == [0.2] * 3 + [0.8] * 3
    assert drawn["smooth"].to_pylist() == pytest.approx([0.2] * 3 + [0.8] * 3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 0.99))
def test_a_smoothed_curve_stays_within_the_range_of_its_values(values, weight):
    smoothed = smooth(values, weight)
    assert len(smoothed) == len(values)
    assert smoothed[0] == pytest.approx(values[0])
    assert min(values) - 1e-3 <= min(smoothed) <= max(smoothed) <= max(values) + 1e-3


def test_a_smoothing_weight_of_one_is_refused():
    assert smooth([1.0, 3.0], 0.0) == [1.0, 3.0]
    with pytest.raises(ValueError, match="must lie in"):
        smooth([1.0], 1.0)


def test_panels_share_one_range_that_covers_all_of_them():
    options = PlotOptions(metric="val_loss")
    low, high = value_range([tables(options), tables(options, groups_table({"a": 1}, median=5.0))], options)
    assert low <= 0.2
    assert high >= 5.0
    assert value_range([tables(options, groups_table({}), seeds_table("a", ()))], options) is None


@pytest.mark.parametrize(
    ("metric", "log_y", "values", "expected"),
    [
        ("val_acc", False, (0.213, 0.734), (0.2, 0.75)),
        ("val_acc", False, (0.29, 0.734), (0.2, 0.75)),  # near that of a guess
        ("val_acc", False, (0.623, 0.734), (0.62, 0.74)),
        ("val_acc", False, (0.7312, 0.7312), (0.73, 0.732)),
        ("val_acc", False, (0.981, 0.999), (0.98, 1.0)),
        ("recall_t", False, (0.0, 0.93), (0.0, 0.95)),
        ("val_loss", False, (0.83, 1.58), (0.8, 1.6)),
        ("val_loss", True, (0.83, 1.58), (0.5, 2.0)),
        ("val_loss", True, (1.0, 1.0), (0.5, 2.0)),
    ],
)
def test_the_y_axis_is_fitted_to_what_is_drawn_between_round_numbers(metric, log_y, values, expected):
    options = PlotOptions(metric=metric, log_y=log_y)
    assert value_range([], options, [pa.chunked_array([list(values)])]) == pytest.approx(expected)


def test_the_axis_of_a_growing_curve_moves_seldom_and_only_outwards():
    ranges = []
    for last in np.linspace(0.25, 0.75, 60):
        (found,) = {value_range([], PlotOptions(), [pa.chunked_array([[0.2, last]])])}
        ranges.append(found)
    assert all(before[1] <= after[1] and before[0] >= after[0] for before, after in itertools.pairwise(ranges[20:]))
    assert len(set(ranges[20:])) <= 8, "after the first third"
    assert {low for low, _ in ranges} == {0.2}


def test_the_level_of_a_guess_is_drawn_where_the_axis_shows_it(texts_drawn):
    for metric, y_range, expected in (
        ("val_acc", (0.2, 0.8), True), ("val_acc", (0.6, 0.8), False), ("recall_t", (0.0, 1.0), False),
        ("val_loss", (0.0, 2.0), False),
    ):  # fmt: skip
        options = PlotOptions(metric=metric, y_range=y_range)
        drawn = texts_drawn(curve_figure(tables(options), ["16 (n=4)"], [], options).standalone_spec())
        assert ("chance" in drawn) is expected, (metric, y_range)


def test_names_stand_at_the_ends_of_their_curves_and_never_over_each_other():
    names = ["16 (2 seeds)", "32 (2 seeds)", "64 (2 seeds)", "none (2 seeds)"]
    lines = {name[:2]: CurveStyle(name, name) for name in names}
    groups = pa.concat_tables([groups_table({"16": 2}, median=0.7), groups_table({"32": 2}, median=0.699),
                               groups_table({"64": 2}, median=0.3, steps=(0, 10))])  # fmt: skip
    options = PlotOptions(y_range=(0.2, 0.8))
    drawn = curve_tables(groups, seeds_table("16"), lines, options)
    rows = {row["group"]: row for row in curve_figure(drawn, names, [], options).tables[LABELS].to_pylist()}
    assert [*rows] == names[:3], "a curve without points has no name"
    assert (rows[names[2]]["x"], rows[names[2]]["end"], rows[names[2]]["at"]) == (1.0, 0.3, pytest.approx(0.3))
    distance = rows[names[0]]["at"] - rows[names[1]]["at"]
    assert distance == pytest.approx(0.6 * 15 / (HEIGHT - 80)), "one line of text"
    assert rows[names[0]]["at"] + rows[names[1]]["at"] == pytest.approx(0.7 + 0.699), "moved as little as can be"


def test_of_a_group_the_median_without_a_silent_class_is_named_and_without_any_a_seed():
    lines = {"a": CurveStyle("16", "16 (4 seeds)")}
    both = groups_table({"a": 2}, median=0.7)
    silent = groups_table({"a": 2}, median=0.4, steps=(0, 10, 20, 30))
    silent = silent.set_column(1, "is_silent", pa.array([True] * 4))
    options = PlotOptions(y_range=(0.2, 0.8))
    for groups, end in ((pa.concat_tables([both, silent]), 0.7), (silent, 0.4), (groups_table({}), 0.6)):
        drawn = curve_tables(groups, seeds_table("a"), lines, options)
        (row,) = curve_figure(drawn, ["16 (4 seeds)"], [], options).tables[LABELS].to_pylist()
        assert row["end"] == pytest.approx(end)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.2))
def test_places_that_are_moved_apart_stay_in_order_and_within_the_axis(places, gap):
    moved = move_apart(places, gap)
    order = sorted(range(len(places)), key=lambda i: places[i])
    least = min(gap, 1 / max(1, len(places) - 1))
    assert all(moved[b] - moved[a] >= least - 1e-9 for a, b in itertools.pairwise(order))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)
    if all(places[b] - places[a] > gap for a, b in itertools.pairwise(order)):
        assert moved == pytest.approx(places)


@pytest.mark.parametrize(
    ("groups", "width_fraction", "has_labels"),
    [(["16 (5 seeds)"] * 12, 1.0, True), (["16 (5 seeds)"] * 13, 1.0, False), (["x" * 40], 1.0, False),
     (["256, 1e-3 (5 seeds)"], 0.5, False), ([], 1.0, False)],
)  # fmt: skip
def test_many_or_long_names_stand_in_a_legend(groups, width_fraction, has_labels):
    names = [f"{i}{name}"[: len(name)] for i, name in enumerate(groups)]
    options = PlotOptions(y_range=(0.2, 0.8), width_fraction=width_fraction)
    figure = curve_figure(tables(options), names, [], options)
    assert (LABELS in figure.tables) is has_labels
    legends = [layer["encoding"]["color"]["legend"] for layer in figure.spec["layer"]
               if layer["encoding"].get("color", {}).get("field") == "group"]  # fmt: skip
    assert all((legend is None) is has_labels for legend in legends)


def test_a_panel_names_its_own_curves_alone():
    names = ["16 (5 seeds)", "32 (0 seeds)"]
    for options in (PlotOptions(y_range=(0.2, 0.8)), PlotOptions(y_range=(0.2, 0.8), width_fraction=0.3)):
        figure = curve_figure(tables(options), names, [], options, drawn=names[:1])
        text = json.dumps([layer["encoding"].get("color", {}).get("legend") for layer in figure.spec["layer"]])
        assert names[1] not in text
        assert "32" not in figure.alt_text


def test_names_have_a_contrast_of_4_5_to_1_on_both_themes():
    def contrast(one: str, other: str) -> float:
        def luminance(colour: str) -> float:
            parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue

        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for theme, background in BACKGROUND.items():
        for colour in (*colours(8, False, theme), *colours(12, True, theme)):
            assert contrast(readable(colour, theme), background) >= 4.5, (theme, colour)
    assert readable("#0072B2", "light") == "#0072B2", "what is readable stays as it is"


def test_a_prediction_is_drawn_under_the_end_of_its_curve():
    guess = {"c1": Prediction(0.6, 0.5, 0.7), "elsewhere": Prediction(0.1, 0.0, 0.2)}
    medians = pa.table({"config_id": ["c1", "c1", "c2"], "x": [1.0, 2.0, 2.0]})
    lines = {
        "c1": CurveStyle("16", "16 (n=1)"),
        "c2": CurveStyle("64", "64 (n=1)"),
        "elsewhere": CurveStyle("1", "1 (n=1)"),
    }
    for ends, x in (({}, 2.0), ({"c1": 10.0}, 10.0)):
        (row,) = prediction_table(medians, lines, guess, "val_acc", ends).to_pylist()
        assert (row["x"], row["low"], row["high"], row["group"]) == (x, 0.5, 0.7, "16 (n=1)")
        assert row["text"] == "16: predicted ≈60.0%, 80% band 50.0–70.0%"
    (row,) = prediction_table(medians.slice(0, 0), lines, guess, "val_acc", {"c1": 10.0}).to_pylist()
    assert row["x"] == 10.0, "before the first point the band stands already"
    drawn = tables(PlotOptions()) | {PREDICTIONS: prediction_table(medians, lines, guess, "val_acc", {})}
    for expected in (True, False):
        spec = curve_figure(drawn, ["16 (n=1)"], [], PlotOptions(show_predictions=expected)).spec
        names = [layer["data"].get("name") for layer in spec["layer"]]
        assert (PREDICTIONS in names) is expected
        # Layers before others are drawn under them.
        assert not expected or names.index(PREDICTIONS) < names.index(SEEDS)


def test_cached_specs_do_not_share_colours_titles_or_ranges():
    first = curve_figure(
        tables(PlotOptions()), ["16"], [], PlotOptions(metric="val_loss", y_range=(0.5, 2.0), titles=("Batch size", ""))
    )
    second = curve_figure(tables(PlotOptions()), ["a", "b"], [], PlotOptions(metric="val_loss", y_range=(1.0, 3.0)))

    def layer(figure, table, channel):
        return next(
            one["encoding"][channel] for one in figure.spec["layer"]
            if one["data"].get("name") == table and channel in one["encoding"]
        )  # fmt: skip

    domains = [layer(figure, MEDIANS, "color")["scale"]["domain"] for figure in (first, second)]
    assert domains == [["16"], ["a", "b"]]
    assert [figure.spec.get("title", {}).get("text") for figure in (first, second)] == ["Batch size", None]
    ranges = [layer(figure, CONTEXT, "y")["scale"]["domain"] for figure in (first, second)]
    assert ranges == [[0.5, 2.0], [1.0, 3.0]]


@pytest.mark.parametrize("options", [
    PlotOptions(), PlotOptions(log_x=True, theme="dark", size=1.4),
    PlotOptions(metric="loss", log_y=True, smoothing=0.5),
    PlotOptions(x="lr_sum", metric="learning_rate", x_range=(0.5, 2.0), y_range=(0.0, 1.0), band="none"),
])  # fmt: skip
def test_curves_are_a_valid_chart_even_without_rows(options, texts_drawn):
    for drawn, groups in (
        (tables(options), ["16 (n=4)"]),
        (tables(options, groups_table({}), seeds_table("a", ())), []),
    ):
        spec = curve_figure(drawn, groups, ["adam", "sgd"], options).standalone_spec()
        assert {*groups} < {*texts_drawn(spec)}, "names of the groups, and axes"
        assert {p["name"] for p in spec["params"]} == {"groups", "zoom", "crosshair"}


def test_colours_differ_and_ordered_ones_follow_one_scale():
    assert len(set(colours(8, False, "light"))) == 8
    assert len(set(colours(5, True, "dark"))) == 5
    assert len(set(colours(20, False, "light"))) == 20


@pytest.mark.parametrize("name", NAMED)
def test_a_network_is_drawn_with_all_its_layers_and_parameters(name, texts_drawn):
    network = parse(name)
    table = layer_table(network)
    assert table.num_rows == 1 + len(network.layers)
    assert sum(table["parameters"].to_pylist()) == network.parameters
    figure = network_figure(network)
    texts = texts_drawn(figure.standalone_spec())
    assert "features" in texts
    assert all(str(layer.shape_out[0]) in texts for layer in network.layers if layer.parameters)
    assert f"{network.parameters:,} parameters" in figure.alt_text


def test_a_figure_becomes_svg_png_and_pdf_without_a_network():
    figure = network_figure(parse("jsc-tiny"))
    svg = render_image(figure, "svg").decode()
    assert svg.startswith("<svg")
    assert "linear" in svg
    assert render_image(figure, "png").startswith(b"\x89PNG")
    assert render_image(figure, "pdf").startswith(b"%PDF")


def test_tables_come_back_from_csv_and_parquet_and_the_zip_holds_everything():
    table = pa.table({"batch_size": [16, 32], "mean": [0.5, None], "model": ["a", 'b "quoted", c']})
    assert pq.read_table(io.BytesIO(table_bytes(table, "parquet"))).equals(table)
    assert pyarrow.csv.read_csv(io.BytesIO(table_bytes(table, "csv"))).equals(table)
    packed = zip_archive(
        {"network": network_figure(parse("jsc-tiny"))}, {"grid": table}, {"README.txt": "words"}, "view"
    )
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert sorted(archive.namelist()) == [
            "view/README.txt", "view/grid.csv", "view/grid.parquet",
            "view/network.pdf", "view/network.png", "view/network.svg",
        ]  # fmt: skip
        assert archive.read("view/README.txt") == b"words"
