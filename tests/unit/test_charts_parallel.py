"""Parallel coordinates: brushes, colours, axes and tooltips of the spec, and what a selection keeps."""

import json
import math

import pyarrow as pa
import pytest

from jsc_explore.charts.parallel import MAX_LINES, brush_names, brushed, parallel_chart, parallel_tables
from jsc_explore.config import RunConfig

TITLES = ["Batch size", "Final ReLU", "Validation accuracy"]


def rows_of(count=12):
    return [
        {**RunConfig(batch_size=2 ** (4 + place % 6), final_relu=place < count / 2).to_dict(), "config_id": str(place),
         "metric": 0.3 + 0.4 * place / count, "n": 5, "n_silent": 0}
        for place in range(count)
    ]  # fmt: skip


def spec_of(rows, curves, metric="val_acc"):
    return parallel_chart(*parallel_tables(rows, metric), curves, TITLES, metric, "val_acc").to_dict()


def curves_of(*lengths):
    points = [(place, float(x)) for place, length in enumerate(lengths) for x in range(length + 1)]
    config, x = zip(*points, strict=True)
    return pa.table({"config": pa.array(config, pa.int32()), "x": pa.array(x, pa.float32()), "median": [0.4] * len(x)})


def leaves(spec):
    for layer in spec.get("layer", ()):
        yield from leaves(layer)
    if "mark" in spec:
        yield spec


def test_a_brush_is_a_range_along_its_axis_alone():
    params = spec_of(rows_of(), curves_of(10))["params"]
    assert [one["name"] for one in params] == ["brush0", "brush1", "brush2"]
    for axis, one in enumerate(params):
        assert one["select"]["encodings"] == ["y"], "a plain vertical drag has no width"
        assert f"event.item.datum.axis === {axis}" in one["select"]["on"]
        assert one["select"]["translate"] is False


def test_the_strip_of_an_axis_shows_that_it_can_be_dragged():
    strips = [one for one in leaves(spec_of(rows_of(), curves_of(10))) if one["mark"].get("cursor")]
    assert [one["mark"]["cursor"] for one in strips] == ["ns-resize"]


def test_colours_are_those_of_all_configs_whatever_is_brushed():
    rows = rows_of()
    scales = [
        one["encoding"]["color"]["scale"] for one in leaves(spec_of(rows, curves_of(10))) if "color" in one["encoding"]
    ]
    assert scales
    assert all(scale["domain"] == pytest.approx([rows[0]["metric"], rows[-1]["metric"]]) for scale in scales)


def x_scale_of(curves):
    *_, below = leaves(spec_of(rows_of(), curves))
    return below["encoding"]["x"]["scale"], json.dumps(below["transform"])


def test_the_epochs_are_those_of_the_curves_that_are_drawn_and_short_ones_do_not_vanish():
    scale, _ = x_scale_of(curves_of(10, 12))
    assert "domain" not in scale, "Vega fits it to what the brushes keep"
    assert "type" not in scale
    scale, transform = x_scale_of(curves_of(10, 100))
    assert scale["type"] == "log"
    assert "datum.x > 0" in transform


def test_only_lines_of_configs_have_a_tooltip_and_it_names_no_column():
    for one in leaves(spec_of(rows_of(), curves_of(10))):
        if one["mark"].get("tooltip", "missing") is not None:
            titles = [entry["title"] for entry in one["encoding"]["tooltip"]]
            assert titles == ["configuration", "validation accuracy", "seeds", "seeds with a silent class"]


def test_a_selection_keeps_the_configs_within_its_ranges_also_those_that_are_not_drawn():
    rows = rows_of()
    assert brush_names(rows) == {"brush0": "batch_size", "brush1": "final_relu", "brush2": "metric"}
    kept, axes = brushed(rows, {"brush0": {"y": [-0.06, 0.45]}, "brush1": {"y": [1.06, 0.5]}, "brush2": {}})
    assert axes == ("batch_size", "final_relu")
    assert {(row["batch_size"], row["final_relu"]) for row in kept} == {(16, True), (32, True), (64, True)}
    assert len(kept) == 3
    many = rows_of(3 * MAX_LINES)
    assert parallel_tables(many, "val_acc")[0].num_rows == MAX_LINES
    best, _ = brushed(many, {"brush2": {"y": [0.5, 1.0]}})
    assert len(best) == sum(row["metric"] >= (many[0]["metric"] + many[-1]["metric"]) / 2 for row in many)


@pytest.mark.parametrize("forged", [None, 3, {"y": None}, {"y": [1]}, {"y": ["a", "b"]}, {"y": "ab"}, {"x": [0, 1]}])
def test_a_forged_selection_is_ignored(forged):
    rows = rows_of()
    assert brushed(rows, {"brush0": forged, "brush9": {"y": [0, 1]}}) == (rows, ())
    assert brushed(rows, {"brush0": {"y": [math.nan, math.nan]}})[0] == []
