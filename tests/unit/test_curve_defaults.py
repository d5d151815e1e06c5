"""What the curves show unless the URL says otherwise: what stands beside the medians, the x axis, the colours."""

import pytest
from runs import DIGEST, record_of

from jsc_explore import data
from jsc_explore.charts.curves import CONTEXT, MARKS, MEDIANS, SEEDS
from jsc_explore.charts.style import colours
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.view_model import curve_selection, curves
from jsc_explore.view_model.curves import Shown
from jsc_explore.view_model.grid import cells_of
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import slice_of
from jsc_explore.view_model.url_params import EXPLORE

BATCH_SIZES = (16, 64, 256, 512)


@pytest.fixture
def panels(tmp_path, monkeypatch):
    """A function that stores a seed of each config and returns the panels of a query."""
    stores = []
    monkeypatch.setattr(data, "digest", lambda dataset: DIGEST)

    def draw(configs, **query):
        stores.append(Store(tmp_path / str(len(stores)), None))
        for config in configs:
            stores[-1].add(record_of(config))
        state, faults = EXPLORE.read(query)
        assert faults == []
        slice = slice_of(state)
        repository = Repository(stores[-1])
        cells = cells_of(repository, slice, [], state["cells"])
        return curves.panels(repository, state, slice, cells, {}, "light")

    yield draw
    for store in stores:
        store.close()


def configs_of(name, values, **changes):
    return [RunConfig(**{name: value}, **changes) for value in values]


def cells_text(batch_sizes):
    return "~".join(f"{size}:1e-3" for size in batch_sizes)


def shown_colours(drawn):
    ((_, figure),) = drawn.figures
    scale = next(layer["encoding"]["color"]["scale"] for layer in figure.spec["layer"]
                 if layer["encoding"].get("color", {}).get("field") == "group")  # fmt: skip
    return scale["domain"], scale["range"]


def test_up_to_three_lines_have_seeds_band_and_other_cells_and_more_have_none(panels):
    runs = configs_of("batch_size", BATCH_SIZES)
    few = panels(runs, cells=cells_text(BATCH_SIZES[:3]))
    assert few.shown == Shown(seeds=True, band="interval", context=True)
    ((_, figure),) = few.figures
    assert figure.tables[SEEDS].num_rows
    assert figure.tables[CONTEXT].num_rows
    many = panels(runs, cells=cells_text(BATCH_SIZES))
    assert many.shown == Shown(seeds=False, band="none", context=False)
    assert panels(runs, cells=cells_text(BATCH_SIZES[:2]), curve="acc").shown == many.shown, "two lines each"


def test_what_the_url_says_is_drawn_whatever_the_number_of_lines(panels):
    runs = configs_of("batch_size", BATCH_SIZES)
    asked = {"seed_lines": "yes", "band": "range", "context": "yes"}
    assert panels(runs, cells=cells_text(BATCH_SIZES), **asked).shown == Shown(True, "range", True)
    asked = {"seed_lines": "no", "band": "none", "context": "no"}
    drawn = panels(runs, cells="16:1e-3", **asked)
    assert drawn.shown == Shown(False, "none", False)
    assert drawn.figures[0][1].tables[CONTEXT].num_rows == 0


def test_a_dagger_goes_with_its_seed(panels):
    silent = [RunConfig(batch_size=16, seed=seed) for seed in (0, 2)]
    for seed_lines, marks in (("yes", ["†t"]), ("no", [])):
        ((_, figure),) = panels(silent, cells="16:1e-3", seed_lines=seed_lines).figures
        assert figure.tables[MARKS]["mark"].to_pylist() == marks
        assert figure.tables[MEDIANS]["is_silent"].to_pylist().count(True) == 4, "their median stays"


@pytest.mark.parametrize(
    ("curve_x", "epochs", "kind"),
    [("step", (10,), "log"), ("samples", (10,), "log"), ("lr_sum", (10,), "log"), ("time_s", (10,), "linear"),
     ("epoch", (10,), "linear"), ("epoch", (50,), "linear"), ("epoch", (20, 100), "linear"),
     ("epoch", (1, 100), "log")],
)  # fmt: skip
def test_the_x_axis_is_logarithmic_where_a_linear_one_would_hide_something(panels, curve_x, epochs, kind):
    query = {"x": "max_epochs", "cells": "~".join(f"{one}:1e-3" for one in epochs), "curve_x": curve_x}
    ((_, figure),) = panels(configs_of("max_epochs", epochs), **query).figures
    scales = [layer["encoding"]["x"]["scale"].get("type", "linear") for layer in figure.spec["layer"]
              if "scale" in layer["encoding"].get("x", {})]  # fmt: skip
    assert set(scales) == {kind}
    ((_, figure),) = panels(configs_of("max_epochs", epochs), **query, x_scale="linear").figures
    assert figure.spec["layer"][0]["encoding"]["x"]["scale"].get("type", "linear") == "linear"


@pytest.mark.parametrize(
    ("name", "values", "cells", "names"),
    [
        ("batch_size", (512, 16, 64), "512:1e-3~16:1e-3~64:1e-3", ["16", "64", "512"]),
        ("learning_rate", (1e-1, 1e-3, 1e-2), "256:0.1~256:1e-3~256:1e-2", ["1e-3", "1e-2", "1e-1"]),
        ("max_epochs", (20, 5), "20:1e-3~5:1e-3", ["5", "20"]),
        ("model", ("jsc-s", "jsc-toy", "jsc-tiny"), "jsc-s:1e-3~jsc-toy:1e-3~jsc-tiny:1e-3",
         ["jsc-tiny", "jsc-toy", "jsc-s"]),
    ],
)  # fmt: skip
def test_colours_follow_the_order_of_a_number_and_of_the_size_of_a_network(panels, name, values, cells, names):
    axis = {} if name in ("batch_size", "learning_rate") else {"x": name}
    groups, palette = shown_colours(panels(configs_of(name, values), cells=cells, **axis))
    assert [group.partition(" (")[0] for group in groups] == names
    assert palette == colours(len(values), True, "light")


def test_colours_of_values_without_an_order_are_told_apart(panels):
    runs = [RunConfig(optimizer=name) for name in ("adam", "sgd")]
    _, palette = shown_colours(panels(runs, x="optimizer", cells="adam:1e-3~sgd:1e-3"))
    assert palette == colours(2, False, "light")
    both = [RunConfig(batch_size=size, learning_rate=rate) for size, rate in ((16, 1e-3), (64, 1e-2))]
    _, palette = shown_colours(panels(both, cells="16:1e-3~64:1e-2"))
    assert palette == colours(2, False, "light")


def test_the_axis_keeps_room_for_the_other_cells_while_something_trains(panels, monkeypatch):
    runs = configs_of("batch_size", BATCH_SIZES)
    query = {"cells": "16:1e-3", "context": "no", "seed_lines": "no"}

    def top(drawn):
        ((_, figure),) = drawn.figures
        layers = [layer["encoding"]["y"]["scale"] for layer in figure.spec["layer"]
                  if "scale" in layer["encoding"].get("y", {})]  # fmt: skip
        return layers[0]["domain"][1]

    runs[-1] = RunConfig(batch_size=512, seed=3)
    fitted = top(panels(runs, curve="val_loss", **query))
    monkeypatch.setattr(curves, "live_table", lambda cells, live: curve_selection._LIVE.empty_table())
    assert top(panels(runs, curve="val_loss", **query)) > fitted
