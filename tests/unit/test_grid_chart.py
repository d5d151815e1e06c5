"""The picture of the grid: readable texts, the bar of colours, outlines, axes; and what a click on it selects."""

import re
from dataclasses import replace

import pytest
import vl_convert

from jsc_explore.analysis.cells import build_cells
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.colour_scale import BRIGHT_TEXT, DARK_TEXT, contrast, scale_colour, takes_dark_text
from jsc_explore.charts.grid import SEVERAL_FILL, grid_figure, grid_table, metric_domain
from jsc_explore.charts.style import BACKGROUND, INK, LOG_LABEL, MUTED, number_axis
from jsc_explore.config import FIELDS, RunConfig, display_value
from jsc_explore.view_model import grid
from jsc_explore.view_model.slice import Slice
from jsc_explore.web.components.grid import Report, change_selection

DIGEST = "d" * 64
AXES = ("batch_size", "learning_rate")
BATCHES, RATES = [16, 32, 64, 128, 256, 512, 1024], [1e-3, 1e-2]
FIGURES = {
    "low": 0.69, "high": 0.71, "lowest": 0.69, "highest": 0.71, "n": 5, "n_configs": 1, "n_hidden": 0, "n_silent": 0,
    "n_diverged": 0,
}  # fmt: skip


def cells_of(values, rates=RATES, **changes):
    """Cells of the first learning rate, with these metrics; the other cells are missing."""
    rows = [
        {"batch_size": batch, "learning_rate": rates[0], "median": value, "median_all": value, **FIGURES, **changes}
        for batch, value in zip(BATCHES, values, strict=False)
    ]
    return build_cells(RunConfig(), dict(zip(AXES, (BATCHES, rates), strict=True)), DIGEST, rows, [], 5)


def figure_of(cells, metric="val_acc", theme="light", axes=AXES, **options):
    options = {"selected": (), "shown": (), "predicted": {}} | options
    table = grid_table(cells, axes, metric, **options)
    orders = tuple(list(dict.fromkeys(display_value(name, c.place[i]) for c in cells)) for i, name in enumerate(axes))
    return grid_figure(table, axes, orders, metric, metric_domain(cells, metric), theme)


def drawn(figure, width=None):
    spec = figure.standalone_spec()
    return vl_convert.vegalite_to_svg(spec | ({"width": width} if width else {}))


def test_every_text_of_a_cell_can_be_read_on_its_colour():
    for step in range(2001):
        colour = scale_colour(step / 2000)
        ink = DARK_TEXT if takes_dark_text(colour) else BRIGHT_TEXT
        assert contrast(ink, colour) >= 4.5, colour
    for theme in ("light", "dark"):
        assert contrast(MUTED[theme], BACKGROUND[theme]) >= 4.5, "cells without a colour"
        assert contrast(INK[theme], SEVERAL_FILL[theme]) >= 4.5
        assert contrast(INK[theme], BACKGROUND[theme]) >= 4.5, "axes"
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01), "WCAG's own example"


@pytest.mark.parametrize("metric", ["val_acc", "val_loss"])
def test_vega_draws_the_colours_for_which_the_ink_is_chosen(metric):
    values = [0.2, 0.31, 0.4, 0.47, 0.55, 0.66, 0.8]
    svg = drawn(figure_of(cells_of(values), metric))
    fills = re.findall(r'aria-label="\d+ × 1e-3: [^>]*rect mark"[^>]*?fill="(?:rgb\(([^)]*)\)|(#[0-9a-f]{6}))"', svg)
    found = [tuple(map(int, rgb.split(","))) if rgb else tuple(bytes.fromhex(code[1:])) for rgb, code in fills]
    shares = [(value - 0.2) / 0.6 for value in values]
    for share, rgb in zip(shares, found, strict=True):
        expected = bytes.fromhex(scale_colour(share if metric == "val_acc" else 1 - share)[1:])
        assert rgb == pytest.approx(tuple(expected), abs=1)


def test_text_is_dark_on_bright_cells_for_every_metric():
    cells = cells_of([0.5, 1.5])
    bright = {r["x"]: r["bright"] for r in grid_table(cells, AXES, "val_loss").to_pylist() if r["filled"]}
    assert bright == {"16": True, "32": False}
    assert {r["x"]: r["bright"] for r in grid_table(cells, AXES, "val_acc").to_pylist() if r["filled"]}["32"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("metric", ["val_acc", "test_loss", "train_time_s"])
def test_the_grid_is_a_valid_chart_with_its_selections_and_a_bar_of_colours(theme, metric, texts_drawn):
    figure = figure_of(cells_of([0.7]), metric, theme)
    spec = figure.standalone_spec()
    assert [p["name"] for p in spec["params"]] == ["cell", "toggled", "box"]
    texts = texts_drawn(spec)
    assert {"Batch size", "Learning rate", "16", "1024", "1e-3", "1e-2", "n=5"} <= {*texts}
    assert texts.count("+") == 13
    title = {"val_acc": "Validation accuracy, last epoch", "test_loss": "Test loss, last epoch (nats)"}
    assert title.get(metric, "Training time (s)") in texts
    if metric == "val_acc":
        assert {"20%", "40%", "60%", "80%"} <= {*texts}
    (table,) = figure.tables.values()
    assert spec["datasets"]["cells"] == table.to_pylist()
    assert figure.arrow_spec()["datasets"]["cells"] is table


@pytest.mark.parametrize("width", [300, 350, 600])
def test_no_text_of_a_cell_is_smaller_than_11_pixels_or_wider_than_its_cell(width):
    cells = cells_of([0.7] * 7, n_silent=3, n_diverged=12)
    guesses = {cell.config_id: Prediction(0.65, 0.6, 0.7) for cell in cells if cell.state == "missing"}
    svg = drawn(figure_of(cells, predicted=guesses), width)
    marks = re.findall(r'font-size="([\d.]+)px"[^>]*>([^<]+)<', svg)
    sizes = {text: float(size) for size, text in marks}
    assert min(sizes.values()) >= 11
    assert sizes["70.0%"] >= 12
    for text in ("70.0%", "≈65.0%", "60–70%", "n=2 †3 ‡12", "†3 ‡12"):
        assert text not in sizes or 0.5 * sizes[text] * len(text) < width / 7
    assert ("n=2 †3 ‡12" in sizes) == (width == 600)
    assert "†3 ‡12" in sizes or width == 600, "in narrow cells the count of seeds is left out, never what went wrong"


def networks(names):
    return build_cells(RunConfig(), {"model": names, "learning_rate": RATES}, DIGEST, [], [])


def test_networks_have_their_parameters_and_turn_where_columns_are_narrow():
    names = sorted(FIELDS["model"].default_values)
    custom = "16b-64b-32b-32b-32b-16b-5"
    wide, narrow = (drawn(figure_of(networks([*names, custom]), axes=("model", AXES[1])), w) for w in (1200, 350))
    assert "Network · parameters" in wide
    assert "rotate(-40)" in narrow
    assert "rotate(-40)" not in wide
    axis = figure_of(networks(names), axes=("model", AXES[1])).spec["layer"][0]["encoding"]["x"]["axis"]
    assert axis["labelOverlap"] is False, "the page's theme would leave labels out"
    for name, count in (("jsc-tiny", "117"), ("jsc-three-linear", "661"), ("16b-64b…2b-16b-5", "6,277")):
        assert f">{name}<" in wide
        assert f">{name} · {count}" in narrow
    across = build_cells(RunConfig(), {"batch_size": [16], "model": names}, DIGEST, [], [])
    assert ">jsc-three-linear<" in drawn(figure_of(across, axes=("batch_size", "model")))


def test_the_outlines_lie_above_all_cells_on_a_halo():
    cells = cells_of([0.7] * 7)
    selected = {cells[0].config_id}
    figure = figure_of(cells, selected=selected, shown={cells[2].config_id}, theme="dark")
    svg = drawn(figure)
    halo, outline = (
        svg.index(f'stroke="{colour}" stroke-width="{width}"')
        for colour, width in ((BACKGROUND["dark"], 7), (INK["dark"], 3))
    )
    assert max(m.start() for m in re.finditer('stroke="#4A4E5A"', svg)) < halo < outline
    assert f'stroke="{INK["dark"]}" stroke-width="1.5"' in svg, "thinner where nothing is selected"


def slice_of(**changes):
    return replace(Slice(*AXES, None, "val_acc", RunConfig(), DIGEST, (), "", 5, True), **changes)


def test_without_a_selection_the_cells_whose_curves_are_drawn_are_outlined():
    cells = cells_of([0.7] * 7)
    (part,) = grid.parts(slice_of(), cells, (), lambda _: {}, "light", 1.0)
    rows = part.figure.tables["cells"].to_pylist()
    assert {row["y"] for row in rows if row["shown"]} == {"1e-3"}
    assert "outlined: drawn as curves" in grid.legend_text(slice_of(), cells)
    (part,) = grid.parts(slice_of(), cells, (cells[0].place,), lambda _: {}, "light", 1.0)
    rows = part.figure.tables["cells"].to_pylist()
    assert not any(row["shown"] for row in rows)
    assert [row["x"] for row in rows if row["selected"]] == ["16"]


def test_facets_share_one_bar_of_colours():
    axes = {"batch_size": [16], "learning_rate": [1e-3], "final_relu": [True, False]}
    rows = [{"batch_size": 16, "learning_rate": 1e-3, "final_relu": True, "median": 0.7, "median_all": 0.7, **FIGURES}]
    cells = build_cells(RunConfig(), axes, DIGEST, rows, [])
    parts = grid.parts(slice_of(facet="final_relu"), cells, (), lambda _: {}, "light", 1.0)
    assert ["last epoch" in drawn(part.figure) for part in parts] == [False, True]
    missing = build_cells(RunConfig(), axes, DIGEST, [], [])
    parts = grid.parts(slice_of(facet="final_relu"), missing, (), lambda _: {}, "light", 1.0)
    assert not any("last epoch" in drawn(part.figure) for part in parts), "nothing has a colour"


def clicked(config_id, selection=0, **more):
    return Report(frozenset({(config_id, selection)}), **more)


def test_a_click_selects_a_cell_and_a_second_one_deselects_it():
    def change(report, before, selected, **more):
        found = change_selection(report, before, frozenset(selected), **more)
        return None if found is None else (set(found[0]), set(found[1]))

    assert change(clicked("a"), Report(), "") == ({"a"}, {"a"})
    assert change(clicked("a", 1), clicked("a"), "a") == (set(), set())
    assert change(clicked("a", 2), clicked("a", 1), "ab") == ({"a"}, {"a"}), "of several it stays alone"
    assert change(clicked("a", 1), clicked("a"), "a", trainable=frozenset("a")) == ({"a"}, {"a"}), "it is trained"
    assert change(clicked("a", toggled=frozenset("b")), clicked("a"), "a") == ({"b"}, {"a", "b"})
    assert change(clicked("a"), clicked("a", toggled=frozenset("b")), "ab") == (set(), {"a"})
    assert change(Report(), clicked("a"), "a") == (set(), set()), "a click beside all cells"
    assert change(Report(box=frozenset("bc")), clicked("a"), "a") == (set(), {"b", "c"})
    assert change(Report(), Report(box=frozenset("bc")), "bc") is None, "the end of a drag"
    assert change(clicked("a"), clicked("a", box=frozenset("bc")), "a") is None, "the box goes with the click"


def test_the_selection_is_part_of_what_a_click_reports():
    cells = cells_of([0.7, 0.6])
    ids = [
        grid_table(cells, AXES, "val_acc", chosen)["selection_id"][0].as_py()
        for chosen in ((), (cells[0].config_id,), (cells[1].config_id,))
    ]
    assert len({*ids}) == 3


def test_ticks_of_learning_rates_are_all_powers():
    assert all(number_axis(name).to_dict()["labelExpr"] == LOG_LABEL for name in ("learning_rate", "lr_sum"))
    values = [1e-4, 3e-3, 1e-2, 1e-1, 1, 10]
    axis = {"labelExpr": LOG_LABEL, "values": values}
    x = {"field": "x", "type": "quantitative", "scale": {"type": "log"}, "axis": axis}
    svg = vl_convert.vegalite_to_svg(
        {"data": {"values": [{"x": value} for value in values]}, "mark": "point", "encoding": {"x": x}, "width": 900}
    )
    assert re.findall(r">(\d[\de-]*)</text>", svg) == ["1e-4", "3e-3", "1e-2", "1e-1", "1", "10"]
